//! Multiboot 1 (The Multiboot Specification 0.6.96): ELF images and flat ones.

use kasane_cpu::{CpuState, Gpr};

use super::e820;
use super::elf::{self, Elf};
use super::image::Image;
use super::placement::Placement;
use super::start::{self, Mode};
use super::{BootError, BootImages, MODULES_MAX, TEXT_MAX};
use crate::config::MachineConfig;
use crate::layout;
use crate::record::Record;

const HEADER_MAGIC: u32 = 0x1BAD_B002;
const LOADER_MAGIC: u64 = 0x2BAD_B002;
/// The header lies in the first 8192 bytes, 4-byte aligned (§3.1).
const SEARCH_LEN: u64 = 8192;
/// Header flag: the address fields are valid.
const HAS_ADDRESSES: u32 = 1 << 16;
/// Flags that a loader has to understand; of these we know 0 (page-aligned modules),
/// 1 (memory information) and 2 (video mode, which we may leave unanswered).
const UNKNOWN_REQUIREMENTS: u32 = 0xFFF8;

mod info {
    pub(super) const LEN: usize = 116;
    pub(super) const MEM_LOWER: usize = 4;
    pub(super) const MEM_UPPER: usize = 8;
    pub(super) const CMDLINE: usize = 16;
    pub(super) const MODS_COUNT: usize = 20;
    pub(super) const MODS_ADDR: usize = 24;
    pub(super) const MMAP_LENGTH: usize = 44;
    pub(super) const MMAP_ADDR: usize = 48;
    pub(super) const BOOT_LOADER_NAME: usize = 64;
    pub(super) const MODULE_LEN: usize = 16;
    pub(super) const MMAP_ENTRY_LEN: usize = 24;
    /// Flags: memory (0), command line (2), modules (3), memory map (6), loader name (9).
    pub(super) const FLAGS_VALUE: u32 = 1 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9;
}

/// Where the Multiboot header is, if there is one with a right checksum.
pub(super) fn find_header(image: Image<'_>) -> Option<u64> {
    let end = image.len().min(SEARCH_LEN);
    (0..end).step_by(4).find(|at| {
        let field = |offset: u64| image.u32("the Multiboot header", at.saturating_add(offset));
        match (field(0), field(4), field(8)) {
            (Ok(magic), Ok(flags), Ok(checksum)) => {
                magic == HEADER_MAGIC && magic.wrapping_add(flags).wrapping_add(checksum) == 0
            }
            _ => false,
        }
    })
}

/// Copies the image to where its header's address fields say (§3.1.3); gives the entry point.
fn load_flat(
    image: Image<'_>,
    header: u64,
    placement: &mut Placement<'_>,
) -> Result<u64, BootError> {
    const WHAT: &str = "the Multiboot image";
    let field = |offset: u64| {
        image.u32("the Multiboot header", header.saturating_add(offset)).map(u64::from)
    };
    let (header_addr, load_addr) = (field(12)?, field(16)?);
    let (load_end, bss_end, entry) = (field(20)?, field(24)?, field(28)?);
    let bad = |field, value, expected| BootError::BadField { field, value, expected };
    let Some(offset) = header_addr.checked_sub(load_addr).and_then(|o| header.checked_sub(o))
    else {
        return Err(bad("Multiboot load_addr", load_addr, "at or below header_addr, in the file"));
    };
    let len = match load_end {
        0 => image.len().saturating_sub(offset),
        end if end >= load_addr => end - load_addr,
        end => return Err(bad("Multiboot load_end_addr", end, "at or above load_addr")),
    };
    let data = image.slice(WHAT, offset, len)?;
    let loaded_end = load_addr.saturating_add(len);
    let end = match bss_end {
        0 => loaded_end,
        end if end >= loaded_end => end,
        end => return Err(bad("Multiboot bss_end_addr", end, "at or above load_end_addr")),
    };
    if entry < load_addr || entry >= end {
        return Err(bad("Multiboot entry_addr", entry, "an address in the loaded image"));
    }
    placement.claim(WHAT, load_addr, end - load_addr)?;
    placement.write(load_addr, data)?;
    placement.clear(loaded_end, end - loaded_end)?;
    Ok(entry)
}

/// Loads the image; gives its entry point.
fn load_image(image: Image<'_>, placement: &mut Placement<'_>) -> Result<u64, BootError> {
    let header = find_header(image)
        .ok_or(BootError::UnknownFormat { first: image.first(), len: image.len() })?;
    let flags = image.u32("the Multiboot header", header.saturating_add(4))?;
    if flags & UNKNOWN_REQUIREMENTS != 0 {
        return Err(BootError::BadField {
            field: "Multiboot flags",
            value: flags.into(),
            expected: "no requirement but those of bits 0 to 2",
        });
    }
    if flags & HAS_ADDRESSES != 0 {
        return load_flat(image, header, placement);
    }
    if !elf::is_elf(image) {
        return Err(BootError::Unsupported {
            what: "a Multiboot image that is not ELF and has no load addresses",
        });
    }
    let elf = Elf::read(image)?;
    elf.load(placement)?;
    let entry = elf.physical_entry()?;
    if entry > u64::from(u32::MAX) {
        return Err(BootError::BadField {
            field: "the entry point",
            value: entry,
            expected: "an address below 4 GiB",
        });
    }
    Ok(entry)
}

/// By custom the first word of a Multiboot command line is the image's name.
fn with_name(name: &str, text: &str) -> alloc::string::String {
    if text.is_empty() { name.into() } else { alloc::format!("{name} {text}") }
}

fn place_modules(
    images: &BootImages<'_>,
    placement: &mut Placement<'_>,
) -> Result<(u64, u32), BootError> {
    let count = images.all_modules().count();
    if count > MODULES_MAX {
        return Err(BootError::Unsupported { what: "more than 64 boot modules" });
    }
    let mut list = Record::zeroed(count.max(1) * info::MODULE_LEN);
    for (n, module) in images.all_modules().enumerate() {
        let len = module.data.len() as u64;
        let at = placement.claim_highest("a boot module", len, layout::LOW_RAM_MAX)?;
        placement.write(at, module.data)?;
        let text = super::place_text(placement, &with_name("module", module.cmdline), TEXT_MAX)?;
        let entry = n * info::MODULE_LEN;
        list.put_u32(entry, at as u32);
        list.put_u32(entry + 4, at.saturating_add(len) as u32);
        list.put_u32(entry + 8, text as u32);
    }
    let at = super::place_record(placement, "the Multiboot module list", &list)?;
    Ok((at, count as u32))
}

/// Loads the image and its modules, writes the information structure (§3.3).
pub(super) fn load(
    config: &MachineConfig,
    images: &BootImages<'_>,
    placement: &mut Placement<'_>,
    ram: &[(u64, u64)],
) -> Result<CpuState, BootError> {
    let entry = load_image(Image::new(images.kernel), placement)?;
    let cmdline = super::place_text(placement, &with_name("kernel", images.cmdline), TEXT_MAX)?;
    let loader = super::place_text(placement, "kasane", TEXT_MAX)?;
    let (modules, count) = place_modules(images, placement)?;

    let map = e820::memory_map(config, ram);
    let mut table = Record::zeroed(map.len() * info::MMAP_ENTRY_LEN);
    for (n, range) in map.iter().enumerate() {
        let at = n * info::MMAP_ENTRY_LEN;
        // The size field does not count itself.
        table.put_u32(at, info::MMAP_ENTRY_LEN as u32 - 4);
        table.put_u64(at + 4, range.base);
        table.put_u64(at + 12, range.len);
        table.put_u32(at + 20, range.kind as u32);
    }
    let memmap = super::place_record(placement, "the Multiboot memory map", &table)?;

    let upper_k = placement.low_ram_end().saturating_sub(layout::HIGH_MEMORY) / 1024;
    let mut record = Record::zeroed(info::LEN);
    record.put_u32(0, info::FLAGS_VALUE);
    record.put_u32(info::MEM_LOWER, (layout::EBDA / 1024) as u32);
    record.put_u32(info::MEM_UPPER, upper_k as u32);
    record.put_u32(info::CMDLINE, cmdline as u32);
    record.put_u32(info::MODS_COUNT, count);
    record.put_u32(info::MODS_ADDR, modules as u32);
    record.put_u32(info::MMAP_LENGTH, table.0.len() as u32);
    record.put_u32(info::MMAP_ADDR, memmap as u32);
    record.put_u32(info::BOOT_LOADER_NAME, loader as u32);
    let at = super::place_record(placement, "the Multiboot information", &record)?;

    let mut state = start::bootstrap(Mode::Protected32, entry, placement)?;
    for (register, value) in [(Gpr::Rax, LOADER_MAGIC), (Gpr::Rbx, at)] {
        if let Some(place) = state.gpr.get_mut(register as usize) {
            *place = value;
        }
    }
    Ok(state)
}
