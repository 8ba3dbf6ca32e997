//! Starting another processor.

use core::sync::atomic::{Ordering, fence};

use crate::local::online;
use crate::time::{delay_us, now_ns};

/// A processor that has not come after this time won't.
const PATIENCE_NS: u64 = 1_000_000_000;

/// Starts the processor with this APIC id at `page`, where the trampoline and its parameters are.
/// True if it has counted itself in.
#[must_use]
pub fn start_processor(apic_id: u32, page: u64) -> bool {
    let before = online();
    fence(Ordering::SeqCst);
    crate::apic::send_init_and_startup(apic_id, page);
    let began = now_ns();
    while online() == before {
        if now_ns().saturating_sub(began) > PATIENCE_NS {
            return false;
        }
        delay_us(10);
    }
    true
}
