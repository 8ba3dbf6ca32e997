//! Images from anybody: loaded, or refused with a message; memory outside of RAM is never there.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use kasane_machine::MachineConfig;
use kasane_machine::boot::{self, BootImages, BootModule};
use kasane_memory::{Ram, RamSlot};
use libfuzzer_sys::fuzz_target;

/// What the image is made to look like, so that it gets past the first look.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Guise {
    None,
    Linux { version: u8, loadflags: u8, xloadflags: u8 },
    Elf64,
    Elf32,
    Multiboot { at: u8, flags: u32 },
}

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    guise: Guise,
    cpus: u8,
    ecam: bool,
    cmdline: &'a str,
    initrd: Option<&'a [u8]>,
    module: Option<&'a [u8]>,
    kernel: &'a [u8],
}

const MEMORY: u64 = 8 << 20;

/// Used again and again: what an image leaves in it is of no meaning for the next.
static RAM: LazyLock<Ram> =
    LazyLock::new(|| Ram::new(vec![RamSlot::allocated(0, MEMORY as usize)]));

fn put(kernel: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if kernel.len() < at + bytes.len() {
        kernel.resize(at + bytes.len(), 0);
    }
    kernel[at..at + bytes.len()].copy_from_slice(bytes);
}

fn disguise(kernel: &mut Vec<u8>, guise: Guise) {
    match guise {
        Guise::None => {}
        Guise::Linux { version, loadflags, xloadflags } => {
            put(kernel, 0x1FE, &[0x55, 0xAA]);
            put(kernel, 0x202, b"HdrS");
            put(kernel, 0x206, &[version & 15, 2]);
            put(kernel, 0x211, &[loadflags]);
            put(kernel, 0x236, &[xloadflags]);
        }
        Guise::Elf64 => put(kernel, 0, b"\x7FELF\x02\x01\x01"),
        Guise::Elf32 => put(kernel, 0, b"\x7FELF\x01\x01\x01"),
        Guise::Multiboot { at, flags } => {
            let at = usize::from(at) * 4;
            let magic = 0x1BAD_B002u32;
            let sum = 0u32.wrapping_sub(magic).wrapping_sub(flags);
            for (n, word) in [magic, flags, sum].into_iter().enumerate() {
                put(kernel, at + n * 4, &word.to_le_bytes());
            }
        }
    }
}

fuzz_target!(|input: Input<'_>| {
    let mut kernel = input.kernel.to_vec();
    disguise(&mut kernel, input.guise);
    let config = MachineConfig {
        cpus: u32::from(input.cpus % 8) + 1,
        memory_bytes: MEMORY,
        ecam: input.ecam,
        ..MachineConfig::default()
    };
    let module = input.module.map(|data| BootModule { data, cmdline: input.cmdline });
    let images = BootImages {
        kernel: &kernel,
        initrd: input.initrd,
        cmdline: input.cmdline,
        modules: module.as_slice(),
    };
    if let Err(error) = boot::load(&*RAM, &config, &images) {
        assert!(!error.to_string().is_empty());
    }
});
