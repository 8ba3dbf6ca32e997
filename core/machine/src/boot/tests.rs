//! Tests of the loaders with small images of our own, whole and cut at every length.

use std::string::ToString;
use std::vec::Vec;

use kasane_cpu::Gpr;
use kasane_memory::{Ram, RamSlot};
use kasane_spec_x86::control::{cr0, efer};

use super::*;

const MIB: u64 = 1 << 20;
const XLF_KERNEL_64: u16 = 1;

fn ram(bytes: u64) -> Ram {
    Ram::new(alloc::vec![RamSlot::allocated(0, bytes as usize)])
}

fn read<const N: usize>(memory: &Ram, at: u64) -> [u8; N] {
    let mut out = [0; N];
    memory.read(at, &mut out).unwrap();
    out
}

fn u32_at(memory: &Ram, at: u64) -> u64 {
    u32::from_le_bytes(read(memory, at)).into()
}

fn u64_at(memory: &Ram, at: u64) -> u64 {
    u64::from_le_bytes(read(memory, at))
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A bzImage of protocol 2.15 with one setup sector more than the boot sector and `code_len`
/// bytes of 0x90.
fn bzimage(xloadflags: u16, pref_address: u64, init_size: u32, code_len: usize) -> Vec<u8> {
    let mut image = alloc::vec![0; 1024];
    image[0x1F1] = 1;
    put(&mut image, 0x1F4, &(code_len as u32 / 16).to_le_bytes());
    put(&mut image, 0x1FE, &[0x55, 0xAA, 0xEB, 0x66]);
    put(&mut image, 0x202, b"HdrS");
    put(&mut image, 0x206, &0x020Fu16.to_le_bytes());
    image[0x211] = 1;
    put(&mut image, 0x22C, &0x7FFF_FFFFu32.to_le_bytes());
    put(&mut image, 0x230, &0x20_0000u32.to_le_bytes());
    image[0x234] = 1;
    put(&mut image, 0x236, &xloadflags.to_le_bytes());
    put(&mut image, 0x238, &2047u32.to_le_bytes());
    put(&mut image, 0x24C, &(code_len as u32).to_le_bytes());
    put(&mut image, 0x258, &pref_address.to_le_bytes());
    put(&mut image, 0x260, &init_size.to_le_bytes());
    image.resize(1024 + code_len, 0x90);
    image
}

/// Program headers: type, file offset, physical address, file size, memory size.
type Header = (u32, u64, u64, u64, u64);

fn elf32(entry: u32, headers: &[Header], body: &[u8]) -> Vec<u8> {
    let mut image = alloc::vec![0; 52];
    put(&mut image, 0, b"\x7FELF\x01\x01\x01");
    put(&mut image, 16, &[2, 0, 3, 0, 1, 0, 0, 0]);
    put(&mut image, 24, &entry.to_le_bytes());
    put(&mut image, 28, &52u32.to_le_bytes());
    put(&mut image, 42, &[32, 0, headers.len() as u8, 0]);
    for (kind, offset, paddr, file_len, memory_len) in headers {
        let fields = [*kind, *offset as u32, *paddr as u32, *paddr as u32];
        let sizes = [*file_len as u32, *memory_len as u32, 7, 4];
        image.extend(fields.iter().chain(&sizes).flat_map(|f| f.to_le_bytes()));
    }
    image.extend_from_slice(body);
    image
}

fn elf64(entry: u64, headers: &[Header], body: &[u8]) -> Vec<u8> {
    let mut image = alloc::vec![0; 64];
    put(&mut image, 0, b"\x7FELF\x02\x01\x01");
    put(&mut image, 16, &[2, 0, 62, 0, 1, 0, 0, 0]);
    put(&mut image, 24, &entry.to_le_bytes());
    put(&mut image, 32, &64u64.to_le_bytes());
    put(&mut image, 54, &[56, 0, headers.len() as u8, 0]);
    for (kind, offset, paddr, file_len, memory_len) in headers {
        image.extend(kind.to_le_bytes());
        image.extend(7u32.to_le_bytes());
        // Linked at a kernel address, loaded low.
        let vaddr = paddr | 0xFFFF_FFFF_8000_0000;
        let fields = [*offset, vaddr, *paddr, *file_len, *memory_len, 4];
        image.extend(fields.iter().flat_map(|f| f.to_le_bytes()));
    }
    image.extend_from_slice(body);
    image
}

fn pvh_note(entry: u32) -> Vec<u8> {
    let mut note: Vec<u8> = [4u32, 4, 18].iter().flat_map(|f| f.to_le_bytes()).collect();
    note.extend_from_slice(b"Xen\0");
    note.extend(entry.to_le_bytes());
    note
}

/// An ELF64 image with a PVH note: 20 bytes of note, then 16 of code at 2 MiB, 4 KiB of BSS.
fn pvh_image() -> Vec<u8> {
    let body_at = 64 + 2 * 56;
    let headers = [(4, body_at, 0, 20, 20), (1, body_at + 20, 0x20_0000, 16, 0x1000)];
    let mut body = pvh_note(0x20_0004);
    body.extend([0xAB; 16]);
    elf64(0xFFFF_FFFF_8020_0000, &headers, &body)
}

fn multiboot_header(flags: u32) -> Vec<u8> {
    let sum = 0u32.wrapping_sub(0x1BAD_B002).wrapping_sub(flags);
    [0x1BAD_B002, flags, sum].iter().flat_map(|f| f.to_le_bytes()).collect()
}

/// An ELF32 image with a Multiboot header and code at 1 MiB.
fn multiboot_image() -> Vec<u8> {
    let body_at = 52 + 32;
    let mut body = multiboot_header(3);
    body.extend([0xCD; 20]);
    elf32(0x10_000C, &[(1, body_at, 0x10_0000, 32, 64)], &body)
}

/// A flat Multiboot image at 3 MiB.
fn multiboot_flat() -> Vec<u8> {
    let mut image = alloc::vec![0u8; 16];
    image.extend(multiboot_header(1 << 16));
    let addresses = [0x30_0010u32, 0x30_0000, 0, 0x30_2000, 0x30_0030];
    image.extend(addresses.iter().flat_map(|f| f.to_le_bytes()));
    image.extend([0xEF; 32]);
    image
}

fn images<'a>(kernel: &'a [u8]) -> BootImages<'a> {
    BootImages { kernel, initrd: Some(b"initrd!"), cmdline: "console=ttyS0", modules: &[] }
}

fn text_at(memory: &Ram, at: u64) -> std::string::String {
    let bytes: [u8; 32] = read(memory, at);
    let len = bytes.iter().position(|b| *b == 0).unwrap();
    std::string::String::from_utf8(bytes[..len].to_vec()).unwrap()
}

#[test]
fn linux64_starts_in_long_mode_at_the_64_bit_entry_with_the_zero_page_in_rsi() {
    let memory = ram(64 * MIB);
    let kernel = bzimage(XLF_KERNEL_64, 0x100_0000, 0x10_0000, 0x1000);

    let state = load(&memory, &MachineConfig::default(), &images(&kernel)).unwrap();

    assert_eq!(state.rip, 0x100_0200);
    assert_eq!(state.cr0 & (cr0::PG | cr0::PE), cr0::PG | cr0::PE);
    assert_eq!(state.efer, efer::LME | efer::LMA);
    assert_eq!((state.cs.selector, state.cs.access), (0x10, 0xA09B));
    assert_eq!((state.ds.selector, state.ds.access, state.ds.limit), (0x18, 0xC093, u32::MAX));
    let zero_page = state.gpr[Gpr::Rsi as usize];
    assert_eq!(&read(&memory, zero_page + 0x202), b"HdrS");
    assert_eq!(read(&memory, zero_page + 0x210), [0xFF]);
    assert_eq!(u32_at(&memory, zero_page + 0x214), 0x100_0000);
    assert_eq!(text_at(&memory, u32_at(&memory, zero_page + 0x228)), "console=ttyS0");
    let initrd = u32_at(&memory, zero_page + 0x218);
    assert_eq!(&read(&memory, initrd), b"initrd!");
    assert_eq!(u32_at(&memory, zero_page + 0x21C), 7);
    assert_eq!(&read(&memory, u64_at(&memory, zero_page + 0x70)), b"RSD PTR ");
    assert_eq!(read(&memory, zero_page + 0x1E8), [4]);
    assert_eq!(read(&memory, 0x100_0200), [0x90; 8]);
}

#[test]
fn page_tables_of_long_mode_map_four_gib_one_to_one() {
    let memory = ram(64 * MIB);
    let kernel = bzimage(XLF_KERNEL_64, 0x100_0000, 0x10_0000, 0x1000);

    let state = load(&memory, &MachineConfig::default(), &images(&kernel)).unwrap();

    let address = 0xFEE0_0123u64;
    let table = |entry: u64| entry & 0x000F_FFFF_FFFF_F000;
    let pdpt = table(u64_at(&memory, state.cr3));
    let pd = table(u64_at(&memory, pdpt + (address >> 30) * 8));
    let leaf = u64_at(&memory, pd + (address >> 21 & 511) * 8);
    assert_eq!(leaf, 0xFEE0_0083);
}

#[test]
fn linux32_starts_in_flat_protected_mode_at_the_load_address() {
    let memory = ram(64 * MIB);
    let kernel = bzimage(0, 0x100_0000, 0x10_0000, 0x1000);

    let state = load(&memory, &MachineConfig::default(), &images(&kernel)).unwrap();

    assert_eq!(state.rip, 0x100_0000);
    assert_eq!(state.cr0 & (cr0::PG | cr0::PE), cr0::PE);
    assert_eq!(state.efer, 0);
    assert_eq!((state.cs.selector, state.cs.access, state.cs.limit), (0x10, 0xC09B, u32::MAX));
    let [ebx, ebp, edi] = [Gpr::Rbx, Gpr::Rbp, Gpr::Rdi].map(|r| state.gpr[r as usize]);
    assert_eq!([ebx, ebp, edi], [0; 3]);
    assert_eq!(state.rflags, 2);
    let gdt_code = u64_at(&memory, state.gdtr.base + 0x10);
    assert_eq!(gdt_code, 0x00CF_9B00_0000_FFFF);
}

#[test]
fn a_kernel_that_does_not_fit_where_it_wants_is_moved_if_it_can_be() {
    let memory = ram(16 * MIB);
    let kernel = bzimage(XLF_KERNEL_64, 0x100_0000, 0x20_0000, 0x1000);

    let state = load(&memory, &MachineConfig::default(), &images(&kernel)).unwrap();

    assert_eq!(state.rip, 0x20_0200);
}

#[test]
fn a_kernel_that_needs_more_ram_than_there_is_is_refused_with_the_sizes() {
    let memory = ram(16 * MIB);
    let kernel = bzimage(XLF_KERNEL_64, 0x100_0000, 0x400_0000, 0x1000);

    let error = load(&memory, &MachineConfig::default(), &images(&kernel)).unwrap_err();

    assert_eq!(
        error.to_string(),
        "no room for the kernel: 67108864 bytes of free RAM below 0x1000000 needed"
    );
}

#[test]
fn command_lines_are_checked_against_what_the_kernel_takes() {
    let memory = ram(64 * MIB);
    let kernel = bzimage(XLF_KERNEL_64, 0x100_0000, 0x10_0000, 0x1000);
    let long = "x".repeat(2048);
    let too_long = BootImages { cmdline: &long, ..images(&kernel) };
    let zero = BootImages { cmdline: "a\0b", ..images(&kernel) };
    let config = MachineConfig::default();

    let errors = [load(&memory, &config, &too_long), load(&memory, &config, &zero)];

    let errors = errors.map(Result::unwrap_err);
    assert_eq!(
        errors,
        [
            BootError::CommandLineTooLong { len: 2048, max: 2047 },
            BootError::CommandLineZero { at: 1 }
        ]
    );
}

#[test]
fn initrd_stays_below_the_kernels_limit_and_above_the_kernel() {
    let memory = ram(64 * MIB);
    let mut kernel = bzimage(XLF_KERNEL_64, 0x100_0000, 0x10_0000, 0x1000);
    put(&mut kernel, 0x22C, &0x1FF_FFFFu32.to_le_bytes());

    let state = load(&memory, &MachineConfig::default(), &images(&kernel)).unwrap();

    let at = u32_at(&memory, state.gpr[Gpr::Rsi as usize] + 0x218);
    assert_eq!(at, 0x1FF_F000);
}

#[test]
fn pvh_gets_start_info_in_ebx() {
    let memory = ram(64 * MIB);
    let kernel = pvh_image();

    let state = load(&memory, &MachineConfig::default(), &images(&kernel)).unwrap();

    assert_eq!(state.rip, 0x20_0004);
    assert_eq!(state.cr0 & cr0::PG, 0);
    assert_eq!(read(&memory, 0x20_0000), [0xAB; 16]);
    assert_eq!(read(&memory, 0x20_0010), [0; 16]);
    let info = state.gpr[Gpr::Rbx as usize];
    assert_eq!(u32_at(&memory, info), 0x336E_C578);
    assert_eq!((u32_at(&memory, info + 4), u32_at(&memory, info + 12)), (1, 1));
    let module = u64_at(&memory, info + 16);
    assert_eq!(&read(&memory, u64_at(&memory, module)), b"initrd!");
    assert_eq!(u64_at(&memory, module + 8), 7);
    assert_eq!(text_at(&memory, u64_at(&memory, info + 24)), "console=ttyS0");
    assert_eq!(&read(&memory, u64_at(&memory, info + 32)), b"RSD PTR ");
    let map = u64_at(&memory, info + 40);
    assert_eq!((u64_at(&memory, map), u64_at(&memory, map + 8)), (0, 0x9_FC00));
    assert_eq!(u32_at(&memory, info + 48), 4);
}

#[test]
fn multiboot_gets_its_magic_and_information() {
    let memory = ram(64 * MIB);
    let kernel = multiboot_image();

    let state = load(&memory, &MachineConfig::default(), &images(&kernel)).unwrap();

    assert_eq!(state.rip, 0x10_000C);
    assert_eq!(state.gpr[Gpr::Rax as usize], 0x2BAD_B002);
    let info = state.gpr[Gpr::Rbx as usize];
    assert_eq!(u32_at(&memory, info), 0b10_0100_1101);
    assert_eq!((u32_at(&memory, info + 4), u32_at(&memory, info + 8)), (639, 63 * 1024));
    assert_eq!(text_at(&memory, u32_at(&memory, info + 16)), "kernel console=ttyS0");
    assert_eq!(u32_at(&memory, info + 20), 1);
    let module = u32_at(&memory, info + 24);
    let (start, end) = (u32_at(&memory, module), u32_at(&memory, module + 4));
    assert_eq!((&read(&memory, start), end - start), (b"initrd!", 7));
    assert_eq!(u32_at(&memory, info + 44), 4 * 24);
    assert_eq!(text_at(&memory, u32_at(&memory, info + 64)), "kasane");
}

#[test]
fn multiboot_flat_images_go_where_their_header_says() {
    let memory = ram(64 * MIB);
    let kernel = multiboot_flat();

    let state = load(&memory, &MachineConfig::default(), &images(&kernel)).unwrap();

    assert_eq!(state.rip, 0x30_0030);
    assert_eq!(read(&memory, 0x30_0030), [0xEF; 16]);
}

#[test]
fn an_image_over_the_firmwares_area_is_refused() {
    let memory = ram(64 * MIB);
    let body_at = 52 + 32;
    let mut body = multiboot_header(3);
    body.extend([0; 20]);
    let kernel = elf32(0xF_000C, &[(1, body_at, 0xF_0000, 32, 64)], &body);

    let error = load(&memory, &MachineConfig::default(), &images(&kernel)).unwrap_err();

    assert_eq!(
        error.to_string(),
        "an ELF segment at 0xf0000..0xf0040 overlaps the firmware's area and the VGA window"
    );
}

#[test]
fn what_is_no_kernel_is_named() {
    let memory = ram(16 * MIB);
    let config = MachineConfig::default();
    let error = |kernel: &[u8]| load(&memory, &config, &images(kernel)).unwrap_err().to_string();

    let found = [error(b"hello"), error(b"\x1F\x8B\x08"), error(b"")];

    assert_eq!(
        found,
        [
            "not a Linux bzImage, not an ELF image with a PVH note, not a Multiboot image \
             (5 bytes, begins with 68 65 6c 6c)",
            "the image is packed with gzip; unpack it first",
            "not a Linux bzImage, not an ELF image with a PVH note, not a Multiboot image \
             (0 bytes, begins with 00 00 00 00)",
        ]
    );
}

#[test]
fn a_machine_without_high_memory_is_refused() {
    let memory = ram(MIB);
    let kernel = pvh_image();

    let error = load(&memory, &MachineConfig::default(), &images(&kernel)).unwrap_err();

    assert_eq!(
        error,
        BootError::OutsideRam { what: "the kernel", start: 0x10_0000, end: 0x10_0000 }
    );
}

/// Every proper prefix is refused, without a panic.
fn cut_everywhere(kernel: &[u8]) {
    let memory = ram(32 * MIB);
    let config = MachineConfig::default();
    let loaded: Vec<usize> = (0..kernel.len())
        .filter(|len| load(&memory, &config, &images(&kernel[..*len])).is_ok())
        .collect();
    assert_eq!(loaded, []);
}

#[test]
fn a_cut_bzimage_is_refused() {
    // A small kernel, as each try copies it; its sizes are exact, so every cut shows.
    cut_everywhere(&bzimage(XLF_KERNEL_64, 0x100_0000, 0x1000, 0x210));
}

#[test]
fn a_cut_elf_is_refused() {
    cut_everywhere(&pvh_image());
    cut_everywhere(&multiboot_image());
}

#[test]
fn random_damage_never_panics() {
    let memory = ram(32 * MIB);
    let config = MachineConfig::default();
    let kernels = [
        bzimage(XLF_KERNEL_64, 0x100_0000, 0x1000, 0x210),
        pvh_image(),
        multiboot_image(),
        multiboot_flat(),
    ];
    // A linear congruential generator: the damage is the same in every run.
    let mut seed = 0x2545_F491_4F6C_DD1Du64;
    let mut next = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    let mut refused = 0;
    for n in 0..40_000 {
        let mut kernel = kernels[n % kernels.len()].clone();
        for _ in 0..1 + next() % 4 {
            let at = next() % kernel.len();
            kernel[at] = [0, 1, 0x7F, 0x80, 0xFF, next() as u8][next() % 6];
        }
        refused += usize::from(load(&memory, &config, &images(&kernel)).is_err());
    }
    assert!(refused > 1000, "{refused} refused");
}

#[test]
fn application_processors_have_the_memory_types_of_the_bootstrap_processor() {
    let memory = ram(64 * MIB);
    let kernel = pvh_image();

    let first = load(&memory, &MachineConfig::default(), &images(&kernel)).unwrap();
    let other = application_processor();

    assert_eq!(first.msrs.mtrr_fixed, other.msrs.mtrr_fixed);
    assert_eq!(first.msrs.mtrr_variable, other.msrs.mtrr_variable);
    assert_eq!(first.msrs.mtrr_def_type, 0xC06);
    assert_eq!(other.activity, kasane_cpu::Activity::WaitForSipi);
}

/// A stock kernel that `cargo xtask guests` has fetched; `None`, with a word, outside CI only.
fn stock_kernel(name: &str) -> Option<Vec<u8>> {
    let root = std::env::var_os("KASANE_GUESTS").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guests"),
        Into::into,
    );
    let kernel = std::fs::read(root.join(name).join("vmlinuz")).ok();
    assert!(kernel.is_some() || std::env::var_os("CI").is_none(), "no stock kernel `{name}`");
    if kernel.is_none() {
        std::println!("skipped: no stock kernel `{name}` (cargo xtask guests)");
    }
    kernel
}

#[test]
fn stock_kernels_load_by_the_protocol_that_they_ask_for() {
    let expected = [("cloud", 0x100_0200), ("amd64", 0x100_0200), ("i386", 0x100_0000)];
    for (name, rip) in expected {
        let Some(kernel) = stock_kernel(name) else { return };
        let memory = ram(256 * MIB);

        let state = load(&memory, &MachineConfig::default(), &images(&kernel)).unwrap();

        assert_eq!(state.rip, rip, "{name}");
        let cut = &kernel[..kernel.len() - 4096];
        let error = load(&memory, &MachineConfig::default(), &images(cut)).unwrap_err();
        assert!(matches!(error, BootError::Truncated { .. }), "{name}: {error}");
    }
}
