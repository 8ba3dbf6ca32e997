//! Whether this processor has it, and switching it on.

use core::sync::atomic::{AtomicU64, Ordering};

use kasane_metal_cpu::{self as cpu, MAX_CPUS};
use kasane_metal_memory::{PAGE, physical};

use crate::enter::save_host;

const EFER: u32 = 0xC000_0080;
const VM_CR: u32 = 0xC001_0114;
const VM_HSAVE_PA: u32 = 0xC001_0117;
const SVME: u64 = 1 << 12;
/// VM_CR: firmware has switched it off.
const DISABLED: u64 = 1 << 4;

/// Each processor's page for what VMSAVE keeps of the host; 0 where it is not switched on.
static HOST_PAGES: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// Whether the processor has AMD-V with nested paging, and firmware lets us use it.
#[must_use]
pub fn is_there() -> bool {
    let [largest, ..] = cpu::cpuid(0x8000_0000, 0);
    if largest < 0x8000_000A {
        return false;
    }
    let [_, _, features, _] = cpu::cpuid(0x8000_0001, 0);
    let [_, _, _, svm] = cpu::cpuid(0x8000_000A, 0);
    features >> 2 & 1 != 0 && svm & 1 != 0 && cpu::read_msr(VM_CR) & DISABLED == 0
}

/// Switches it on, on this processor, whose descriptor tables are set. False if it isn't there.
pub fn enable() -> bool {
    if !is_there() {
        return false;
    }
    let anywhere = 0x10_0000..u64::MAX;
    let Some(pages) = physical::take_zeroed(2 * PAGE, PAGE, anywhere) else { return false };
    let host = pages + PAGE;
    // SAFETY: the processor has the feature; the first page is its own from now on, as the
    // registers demand, and so is the second for VMSAVE.
    unsafe {
        cpu::write_msr(EFER, cpu::read_msr(EFER) | SVME);
        cpu::write_msr(VM_HSAVE_PA, pages);
        save_host(host);
    }
    let Some(slot) = HOST_PAGES.get(cpu::current() as usize) else { return false };
    slot.store(host, Ordering::Release);
    true
}

/// This processor's page for VMSAVE.
pub(crate) fn host_page() -> Option<u64> {
    let page = HOST_PAGES.get(cpu::current() as usize)?.load(Ordering::Acquire);
    (page != 0).then_some(page)
}
