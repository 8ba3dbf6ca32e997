//! Time by the time-stamp counter, whose rate the 8254 tells.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::ports::pit_ms;
use crate::registers::tsc;
use crate::scale::{Scale, ticks_in};

static HZ: AtomicU64 = AtomicU64::new(0);
static BEGAN: AtomicU64 = AtomicU64::new(0);

/// Measures of the counter, and how long each is: the least counts, because whoever runs below us
/// may take time away in any of them.
const MEASURES: u32 = 5;
const MEASURE_MS: u16 = 4;

/// Measures the counter for 20 ms, once. Time begins now.
pub fn calibrate() {
    let began = tsc();
    let measures = (0..MEASURES).map(|_| {
        let before = tsc();
        pit_ms(MEASURE_MS);
        tsc().wrapping_sub(before)
    });
    let ticks = measures.min().unwrap_or(1);
    HZ.store((ticks * 1000 / u64::from(MEASURE_MS)).max(1), Ordering::Relaxed);
    BEGAN.store(began, Ordering::Relaxed);
}

/// Ticks of the counter in a second.
#[must_use]
pub fn ticks_per_second() -> u64 {
    HZ.load(Ordering::Relaxed)
}

/// Nanoseconds since the start.
#[must_use]
pub fn now_ns() -> u64 {
    let scale = Scale::of_frequency(HZ.load(Ordering::Relaxed));
    scale.ns(tsc().saturating_sub(BEGAN.load(Ordering::Relaxed)))
}

/// Spins for so many microseconds: for the start of processors only.
pub fn delay_us(us: u64) {
    let ticks = ticks_in(us.saturating_mul(1000), ticks_per_second());
    let began = tsc();
    while tsc().wrapping_sub(began) < ticks {
        core::hint::spin_loop();
    }
}
