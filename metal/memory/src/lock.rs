//! The raw mutex of this home. Tasks are never preempted by one another and interrupt handlers take
//! no lock of the core, so a holder always runs on: spinning is short.

use core::sync::atomic::{AtomicBool, Ordering};

use lock_api::{GuardSend, RawMutex};

/// A spin lock.
#[derive(Debug)]
pub struct SpinLock(AtomicBool);

// SAFETY: `try_lock` succeeds for one caller until the `unlock` that follows, by the exchange.
unsafe impl RawMutex for SpinLock {
    #[allow(clippy::declare_interior_mutable_const)] // the trait wants it
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = GuardSend;

    fn lock(&self) {
        while !self.try_lock() {
            while self.0.load(Ordering::Relaxed) {
                core::hint::spin_loop();
            }
        }
    }

    fn try_lock(&self) -> bool {
        self.0.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }
}
