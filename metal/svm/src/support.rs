//! Whether this processor has it, and switching it on.

use core::sync::atomic::{AtomicU64, Ordering};

use kasane_cpu::cpuid::{Feature, FeatureSet};
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

/// What of a guest's processor can't be given here: features with bits in control registers, and
/// page sizes. Instructions that the processor lacks are the interpreter's.
#[must_use]
pub fn hidden_features() -> FeatureSet {
    let [_, _, leaf_1, _] = cpu::cpuid(1, 0);
    let [_, leaf_7b, leaf_7c, _] = cpu::cpuid(7, 0);
    let [_, _, _, extended] = cpu::cpuid(0x8000_0001, 0);
    let needed: [(u32, u32, &[Feature]); 7] = [
        (leaf_1, 17, &[Feature::Pcid, Feature::Invpcid]),
        (leaf_1, 26, &[Feature::Xsave, Feature::Avx, Feature::Avx2, Feature::Fma, Feature::F16c]),
        (leaf_7b, 0, &[Feature::Fsgsbase]),
        (leaf_7b, 7, &[Feature::Smep]),
        (leaf_7b, 20, &[Feature::Smap]),
        (leaf_7c, 2, &[Feature::Umip]),
        (extended, 26, &[Feature::Page1g]),
    ];
    let lacking = needed.iter().filter(|(register, bit, _)| register >> bit & 1 == 0);
    lacking.fold(FeatureSet::EMPTY, |set, (_, _, features)| set.union(FeatureSet::of(features)))
}
