//! Model-specific registers that belong to the board's idea of a processor, not to the
//! architecture: those that the CPU model's family has and that kernels read without asking
//! (BIOS and Kernel Developer's Guide for AMD NPT family 0Fh, chapter 14). They read as zero and
//! ignore writes. IA32_XSS is there because XSAVES is; with no supervisor state components it
//! holds nothing but zero (SDM vol. 1 §13.3). Any other MSR faults.

use kasane_cpu::Entry;
use kasane_cpu::cpuid::{CpuModel, Feature};

/// SYSCFG.
const SYSCFG: u32 = 0xC001_0010;
/// HWCR.
const HWCR: u32 = 0xC001_0015;

/// Extended supervisor state mask.
const XSS: u32 = 0xDA0;

/// Answers RDMSR.
pub(crate) fn read(index: u32, model: &CpuModel) -> Entry {
    let there = is_silent(index) || (index == XSS && model.has(Feature::Xsaves));
    if there { Entry::Value(0) } else { Entry::Fault }
}

/// Answers WRMSR.
pub(crate) fn write(index: u32, value: u64, model: &CpuModel) -> Entry {
    let zero_only = index == XSS && model.has(Feature::Xsaves);
    if is_silent(index) || (zero_only && value == 0) { Entry::Resume } else { Entry::Fault }
}

/// Whether a register of the family reads as zero and ignores writes.
const fn is_silent(index: u32) -> bool {
    matches!(
        index,
        // Performance event select and counters.
        0xC001_0000..=0xC001_0007
        // I/O range registers, top of memory.
        | SYSCFG
        | HWCR
        | 0xC001_0016..=0xC001_001A
        | 0xC001_001D
        // Northbridge configuration.
        | 0xC001_001F
        // Interrupt pending and C1E.
        | 0xC001_0055
        // SMM base, address and mask.
        | 0xC001_0111..=0xC001_0113
        // Load-store, data cache and bus unit configuration.
        | 0xC001_1020
        | 0xC001_1022
        | 0xC001_1023
    )
}
