//! Which processor this is.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::registers::write_msr;

/// So many processors at most.
pub const MAX_CPUS: usize = 64;

const GS_BASE: u32 = 0xC000_0101;

/// What GS points to on each processor: its number.
static NUMBERS: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];
static ONLINE: AtomicU32 = AtomicU32::new(0);

/// Makes this processor number `index`, and counts it.
pub fn set_current(index: u32) {
    let Some(number) = NUMBERS.get(index as usize) else { return };
    number.store(index, Ordering::Relaxed);
    // SAFETY: nothing else uses GS, and the number lives for ever.
    unsafe { write_msr(GS_BASE, core::ptr::from_ref(number).addr() as u64) }
    ONLINE.fetch_add(1, Ordering::AcqRel);
}

/// This processor's number.
#[must_use]
pub fn current() -> u32 {
    let index: u32;
    // SAFETY: GS points to a number since `set_current`.
    unsafe { asm!("mov {:e}, gs:[0]", out(reg) index, options(readonly, nostack)) }
    index
}

/// How many processors run.
#[must_use]
pub fn online() -> u32 {
    ONLINE.load(Ordering::Acquire)
}
