//! The state in which a boot protocol expects the processor, and the GDT and page tables that
//! belong to it.

use kasane_cpu::{CpuState, DescriptorTable, SegmentRegister};
use kasane_spec_x86::{control, flags, paging};

use super::BootError;
use super::placement::Placement;
use crate::layout;
use crate::record::Record;

/// Code selector of the Linux boot protocols (`__BOOT_CS`).
const CODE_SELECTOR: u16 = 0x10;
/// Data selector of the Linux boot protocols (`__BOOT_DS`).
const DATA_SELECTOR: u16 = 0x18;
/// Task register's selector; nobody names it, but the register has to hold a TSS.
const TSS_SELECTOR: u16 = 0x20;
/// Flat 4 GiB code, 32-bit, accessed.
const CODE32: u64 = 0x00CF_9B00_0000_FFFF;
/// Flat code, 64-bit, accessed.
const CODE64: u64 = 0x00AF_9B00_0000_FFFF;
/// Flat 4 GiB data, accessed.
const DATA: u64 = 0x00CF_9300_0000_FFFF;
/// A busy 32-bit (64-bit) TSS at 0 with limit 0x67.
const TSS: u64 = 0x0000_8B00_0000_0067;
/// Entries of the GDT; the TSS takes two in long mode.
const GDT_ENTRIES: usize = 6;

/// Memory types (SDM vol. 3A table 12-2).
mod memory_type {
    pub(super) const UC: u64 = 0;
    pub(super) const WP: u64 = 5;
    pub(super) const WB: u64 = 6;
}

/// What kind of code starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Protected mode, flat segments, no paging.
    Protected32,
    /// Long mode, the first 4 GiB mapped one to one.
    Long64,
}

fn gdt(mode: Mode) -> [u64; GDT_ENTRIES] {
    let code = match mode {
        Mode::Protected32 => CODE32,
        Mode::Long64 => CODE64,
    };
    [0, 0, code, DATA, TSS, 0]
}

/// The segment register that a flat descriptor loads. `descriptor` has base 0 and either a
/// page-granular limit of 4 GiB or a byte limit below 64 KiB.
const fn register(selector: u16, descriptor: u64) -> SegmentRegister {
    let access = (descriptor >> 40) as u16 & 0xF0FF;
    let limit = if descriptor >> 55 & 1 != 0 { u32::MAX } else { descriptor as u32 & 0xFFFF };
    SegmentRegister { selector, access, limit, base: 0 }
}

/// Writes page tables that map the first 4 GiB one to one in 2 MiB pages; gives CR3.
fn identity_map(placement: &mut Placement<'_>) -> Result<u64, BootError> {
    const PAGE: usize = 4096;
    let base = placement.claim_conventional("the boot page tables", 6 * PAGE as u64)?;
    let table = |n: u64| base.saturating_add(n.saturating_mul(PAGE as u64));
    let link = paging::P | paging::RW;
    let mut pages = Record::zeroed(6 * PAGE);
    pages.put_u64(0, table(1) | link);
    for n in 0..4u64 {
        pages.put_u64(PAGE + n as usize * 8, table(2 + n) | link);
    }
    for n in 0..2048u64 {
        pages.put_u64(2 * PAGE + n as usize * 8, (n << 21) | link | paging::PS);
    }
    placement.write(base, &pages.0)?;
    Ok(base)
}

/// Memory types as firmware sets them on every processor: RAM write-back, the PCI hole and the
/// VGA window uncached, the option ROM area write-protected.
fn set_memory_types(state: &mut CpuState) {
    const ENABLE: u64 = 1 << 11;
    const FIXED_ENABLE: u64 = 1 << 10;
    const VALID: u64 = 1 << 11;
    /// 40 physical address bits, less the low 30: the mask of 1 GiB.
    const MASK_1GIB: u64 = 0xFF_C000_0000;
    let all = |kind: u64| kind * 0x0101_0101_0101_0101;
    let (wb, uc, wp) = (all(memory_type::WB), all(memory_type::UC), all(memory_type::WP));
    state.msrs.mtrr_fixed = [wb, wb, uc, wp, wp, wp, wp, wp, wp, wp, wp];
    state.msrs.mtrr_variable = [0; 16];
    let [base, mask, ..] = &mut state.msrs.mtrr_variable;
    *base = layout::LOW_RAM_MAX | memory_type::UC;
    *mask = MASK_1GIB | VALID;
    state.msrs.mtrr_def_type = ENABLE | FIXED_ENABLE | memory_type::WB;
}

/// The state of an application processor that firmware has seen: waiting for its start-up IPI,
/// with the memory types of the bootstrap processor.
#[must_use]
pub fn application_processor() -> CpuState {
    let mut state = CpuState::reset(false);
    set_memory_types(&mut state);
    state
}

/// The bootstrap processor's state at `entry`: flat segments, interrupts off. Writes the GDT, and
/// for [`Mode::Long64`] the page tables.
pub(super) fn bootstrap(
    mode: Mode,
    entry: u64,
    placement: &mut Placement<'_>,
) -> Result<CpuState, BootError> {
    let descriptors = gdt(mode);
    let len = size_of_val(&descriptors);
    let base = placement.claim_conventional("the boot GDT", len as u64)?;
    let bytes: alloc::vec::Vec<u8> = descriptors.iter().flat_map(|d| d.to_le_bytes()).collect();
    placement.write(base, &bytes)?;

    let mut state = CpuState::reset(true);
    set_memory_types(&mut state);
    state.gpr = [0; 16];
    state.rip = entry;
    state.rflags = flags::FIXED;
    let data = register(DATA_SELECTOR, DATA);
    (state.es, state.ss, state.ds, state.fs, state.gs) = (data, data, data, data, data);
    state.tr = register(TSS_SELECTOR, TSS);
    state.gdtr = DescriptorTable { base, limit: len.saturating_sub(1) as u16 };
    state.idtr = DescriptorTable { base: 0, limit: 0 };
    state.cr0 = control::cr0::PE | control::cr0::ET;
    match mode {
        Mode::Protected32 => state.cs = register(CODE_SELECTOR, CODE32),
        Mode::Long64 => {
            state.cs = register(CODE_SELECTOR, CODE64);
            state.cr3 = identity_map(placement)?;
            state.cr4 = control::cr4::PAE;
            state.cr0 |= control::cr0::PG;
            state.efer = control::efer::LME | control::efer::LMA;
        }
    }
    Ok(state)
}
