//! Time by the time-stamp counter, whose rate the 8254 tells.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::ports::{pit_ms, pm_timer_ticks};
use crate::registers::tsc;
use crate::scale::{Scale, ticks_in};

static HZ: AtomicU64 = AtomicU64::new(0);
static BEGAN: AtomicU64 = AtomicU64::new(0);

/// The ACPI timer's frequency (ACPI 6.5 §4.8.3.3).
const PM_TIMER_HZ: u64 = 3_579_545;
/// It has at least so many bits.
const PM_TIMER_MASK: u64 = 0xFF_FFFF;
/// How often two counters are read to find a moment at which both were read at once.
const TRIES: u32 = 20;

/// The time-stamp counter and another one at the same moment, as far as that can be had: whoever
/// runs below us may take time away between two instructions, so the quickest of some tries counts.
pub(crate) fn both(other: impl Fn() -> u64) -> (u64, u64) {
    let pairs = (0..TRIES).map(|_| {
        let before = tsc();
        let value = other();
        let after = tsc();
        (after.wrapping_sub(before), before.wrapping_add(after.wrapping_sub(before) / 2), value)
    });
    pairs.min().map_or((0, 0), |(_, moment, value)| (moment, value))
}

/// Measures the time-stamp counter, once: by the ACPI timer at this port, or for 10 ms by the 8254.
/// Both of two counters are read at both ends, so time that is taken away between them does no
/// harm. Time begins now.
pub fn calibrate(pm_timer: Option<u16>) {
    let began = tsc();
    let hz = pm_timer.and_then(|port| {
        let read = || u64::from(pm_timer_ticks(port)) & PM_TIMER_MASK;
        let (from, first) = both(read);
        // Until it has counted 10 ms, or for ever if it stands: not so long.
        let passed = |_: &u32| read().wrapping_sub(first) & PM_TIMER_MASK < PM_TIMER_HZ / 100;
        (0..1_000_000).take_while(passed).for_each(|_| core::hint::spin_loop());
        let (to, last) = both(read);
        let ticks = last.wrapping_sub(first) & PM_TIMER_MASK;
        let hz = u128::from(to.wrapping_sub(from)) * u128::from(PM_TIMER_HZ);
        (ticks != 0).then(|| (hz / u128::from(ticks)) as u64)
    });
    let hz = hz.unwrap_or_else(|| {
        let before = tsc();
        pit_ms(10);
        tsc().wrapping_sub(before).saturating_mul(100)
    });
    HZ.store(hz.max(1), Ordering::Relaxed);
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
