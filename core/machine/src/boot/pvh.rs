//! PVH: a 32-bit entry point named by an ELF note, with a `hvm_start_info` in EBX
//! (Xen, docs/misc/pvh.pandoc and xen/include/public/arch-x86/hvm/start_info.h).

use kasane_cpu::{CpuState, Gpr};

use super::e820;
use super::elf::Elf;
use super::image::Image;
use super::placement::Placement;
use super::start::{self, Mode};
use super::{BootError, BootImages, MODULES_MAX, TEXT_MAX};
use crate::config::MachineConfig;
use crate::layout;
use crate::record::Record;

/// `XEN_ELFNOTE_PHYS32_ENTRY`.
const NOTE_PHYS32_ENTRY: u32 = 18;
const NOTE_OWNER: &[u8] = b"Xen\0";

mod start_info {
    pub(super) const LEN: usize = 56;
    pub(super) const MAGIC_VALUE: u32 = 0x336E_C578;
    pub(super) const VERSION: usize = 4;
    pub(super) const MODULE_COUNT: usize = 12;
    pub(super) const MODULES: usize = 16;
    pub(super) const CMDLINE: usize = 24;
    pub(super) const RSDP: usize = 32;
    pub(super) const MEMMAP: usize = 40;
    pub(super) const MEMMAP_ENTRIES: usize = 48;
    pub(super) const MODULE_LEN: usize = 32;
    pub(super) const MEMMAP_ENTRY_LEN: usize = 24;
}

/// The 32-bit entry point that the note gives.
fn entry(elf: &Elf<'_>) -> Result<u64, BootError> {
    let Some(desc) = elf.note(NOTE_OWNER, NOTE_PHYS32_ENTRY)? else {
        return Err(BootError::Unsupported {
            what: "an ELF image with neither a Multiboot header nor a PVH entry note",
        });
    };
    let note = Image::new(desc);
    let entry = match desc.len() {
        8 => note.u64("the PVH note", 0)?,
        _ => note.u32("the PVH note", 0)?.into(),
    };
    if entry > u64::from(u32::MAX) {
        return Err(BootError::BadField {
            field: "the PVH entry point",
            value: entry,
            expected: "an address below 4 GiB",
        });
    }
    elf.checked_entry(entry)
}

/// Loads the image and its modules, writes the start info.
pub(super) fn load(
    config: &MachineConfig,
    images: &BootImages<'_>,
    rsdp: u64,
    placement: &mut Placement<'_>,
    ram: &[(u64, u64)],
) -> Result<CpuState, BootError> {
    let elf = Elf::read(Image::new(images.kernel))?;
    let entry = entry(&elf)?;
    elf.load(placement)?;
    let cmdline = super::place_text(placement, images.cmdline, TEXT_MAX)?;

    let count = images.all_modules().count();
    if count > MODULES_MAX {
        return Err(BootError::Unsupported { what: "more than 64 boot modules" });
    }
    let mut list = Record::zeroed(count.max(1) * start_info::MODULE_LEN);
    for (n, module) in images.all_modules().enumerate() {
        let len = module.data.len() as u64;
        let at = placement.claim_highest("a boot module", len, layout::LOW_RAM_MAX)?;
        placement.write(at, module.data)?;
        let text = super::place_text(placement, module.cmdline, TEXT_MAX)?;
        let entry = n * start_info::MODULE_LEN;
        list.put_u64(entry, at);
        list.put_u64(entry + 8, len);
        list.put_u64(entry + 16, text);
    }
    let modules = super::place_record(placement, "the PVH module list", &list)?;

    let map = e820::memory_map(config, ram);
    let mut table = Record::zeroed(map.len() * start_info::MEMMAP_ENTRY_LEN);
    for (n, range) in map.iter().enumerate() {
        let at = n * start_info::MEMMAP_ENTRY_LEN;
        table.put_u64(at, range.base);
        table.put_u64(at + 8, range.len);
        table.put_u32(at + 16, range.kind as u32);
    }
    let memmap = super::place_record(placement, "the PVH memory map", &table)?;

    let mut info = Record::zeroed(start_info::LEN);
    info.put_u32(0, start_info::MAGIC_VALUE);
    info.put_u32(start_info::VERSION, 1);
    info.put_u32(start_info::MODULE_COUNT, count as u32);
    info.put_u64(start_info::MODULES, if count == 0 { 0 } else { modules });
    info.put_u64(start_info::CMDLINE, cmdline);
    info.put_u64(start_info::RSDP, rsdp);
    info.put_u64(start_info::MEMMAP, memmap);
    info.put_u32(start_info::MEMMAP_ENTRIES, map.len() as u32);
    let info = super::place_record(placement, "the PVH start info", &info)?;

    let mut state = start::bootstrap(Mode::Protected32, entry, placement)?;
    if let Some(rbx) = state.gpr.get_mut(Gpr::Rbx as usize) {
        *rbx = info;
    }
    Ok(state)
}
