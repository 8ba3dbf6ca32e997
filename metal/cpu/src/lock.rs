//! A lock that interrupt handlers may take too: interrupts are off while it is held.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use lock_api::{GuardNoSend, RawMutex};

/// A fair spin lock with interrupts off.
#[derive(Debug)]
pub struct IrqSpinLock {
    next: AtomicU32,
    serving: AtomicU32,
    /// Whether interrupts go on again when the holder unlocks.
    were_on: AtomicBool,
}

const IF: u64 = 1 << 9;

fn off() -> bool {
    let flags: u64;
    // SAFETY: interrupts come back by `on`; the stack is as before.
    unsafe { asm!("pushfq", "pop {}", "cli", out(reg) flags) }
    flags & IF != 0
}

fn on() {
    // SAFETY: they were on before.
    unsafe { asm!("sti", options(nostack)) }
}

// SAFETY: a ticket is served once, and its owner alone holds the lock until `unlock`.
unsafe impl RawMutex for IrqSpinLock {
    #[allow(clippy::declare_interior_mutable_const)] // the trait wants it
    const INIT: Self = Self {
        next: AtomicU32::new(0),
        serving: AtomicU32::new(0),
        were_on: AtomicBool::new(false),
    };
    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        let were_on = off();
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        while self.serving.load(Ordering::Acquire) != ticket {
            core::hint::spin_loop();
        }
        self.were_on.store(were_on, Ordering::Relaxed);
    }

    fn try_lock(&self) -> bool {
        let were_on = off();
        let ticket = self.serving.load(Ordering::Relaxed);
        let next = ticket.wrapping_add(1);
        let taken =
            self.next.compare_exchange(ticket, next, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if taken {
            self.were_on.store(were_on, Ordering::Relaxed);
        } else if were_on {
            on();
        }
        taken
    }

    unsafe fn unlock(&self) {
        let were_on = self.were_on.load(Ordering::Relaxed);
        self.serving.fetch_add(1, Ordering::Release);
        if were_on {
            on();
        }
    }
}
