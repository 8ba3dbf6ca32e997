//! Whether this processor has it, and switching it on.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

use kasane_metal_cpu::{self as cpu, MAX_CPUS};
use kasane_metal_memory::{PAGE, physical};

use crate::controls::Capabilities;
use crate::current;

const FEATURE_CONTROL: u32 = 0x3A;
/// IA32_FEATURE_CONTROL: can't be changed any more; VT-x outside of SMX.
const LOCKED: u64 = 1;
const OUTSIDE_SMX: u64 = 1 << 2;
/// CR0.NE, CR4.VMXE.
const NE: u64 = 1 << 5;
const VMXE: u64 = 1 << 13;

/// Where it is switched on.
static ON: [AtomicBool; MAX_CPUS] = [const { AtomicBool::new(false) }; MAX_CPUS];

/// What the processor can do.
pub(crate) fn capabilities() -> Capabilities {
    Capabilities::read(cpu::read_msr)
}

/// Whether the processor has VT-x with all that is needed, and firmware lets us use it.
#[must_use]
pub fn is_there() -> bool {
    let [_, _, features, _] = cpu::cpuid(1, 0);
    if features >> 5 & 1 == 0 {
        return false;
    }
    let allowed = cpu::read_msr(FEATURE_CONTROL);
    (allowed & LOCKED == 0 || allowed & OUTSIDE_SMX != 0) && capabilities().suffice()
}

/// A page with the identifier that regions and control structures begin with.
pub(crate) fn region(revision: u32) -> Option<u64> {
    let page = physical::take_zeroed(PAGE, PAGE, 0x10_0000..u64::MAX)?;
    let at: *mut u32 = core::ptr::with_exposed_provenance_mut(page as usize);
    // SAFETY: just taken; the hypervisor is identity-mapped.
    unsafe { at.write_volatile(revision) }
    Some(page)
}

/// Switches it on, on this processor, whose descriptor tables are set. False if it isn't there.
pub fn enable() -> bool {
    if !is_there() {
        return false;
    }
    let Some(region) = region(capabilities().revision) else { return false };
    // SAFETY: the processor has the feature, which changes nothing until VMXON; numeric errors are
    // exceptions, of which the hypervisor makes none. The region is this processor's for ever.
    let on = unsafe {
        if cpu::read_msr(FEATURE_CONTROL) & LOCKED == 0 {
            cpu::write_msr(FEATURE_CONTROL, LOCKED | OUTSIDE_SMX);
        }
        asm!("mov {0}, cr0", "or {0}, {1}", "mov cr0, {0}", out(reg) _, in(reg) NE, options(nostack));
        asm!("mov {0}, cr4", "or {0}, {1}", "mov cr4, {0}", out(reg) _, in(reg) VMXE, options(nostack));
        current::vmxon(region)
    };
    if let Some(slot) = ON.get(cpu::current() as usize) {
        slot.store(on, Ordering::Release);
    }
    on
}

/// Whether it is on, on this processor.
pub(crate) fn is_on() -> bool {
    ON.get(cpu::current() as usize).is_some_and(|on| on.load(Ordering::Acquire))
}
