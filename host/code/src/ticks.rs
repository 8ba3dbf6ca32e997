//! The host's time-stamp counter, as a clock that guest code can read for itself.

use std::arch::x86_64::{__cpuid, _mm_lfence, _rdtsc};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long the counter is compared with the host's clock. An error of 40 ns at each end makes
/// 8 millionths of this.
const COMPARED: Duration = Duration::from_millis(10);
/// How often each end is looked at; the quickest look counts.
const LOOKS: u32 = 8;

/// The counter now, after everything before it (SDM vol. 2B, RDTSC).
#[must_use]
pub fn read() -> u64 {
    // SAFETY: every x86-64 CPU has both instructions, and Linux lets programs read the counter.
    unsafe {
        _mm_lfence();
        _rdtsc()
    }
}

/// Nanoseconds in a tick, times 2^64; `None` if the counter is no clock: it changes its rate or
/// stops (SDM vol. 3B §18.17.1), or is slower than one tick in a nanosecond. Measured once.
#[must_use]
pub fn multiplier() -> Option<u64> {
    static MULTIPLIER: OnceLock<Option<u64>> = OnceLock::new();
    *MULTIPLIER.get_or_init(measure)
}

fn measure() -> Option<u64> {
    if !is_invariant() {
        return None;
    }
    let (began, first) = look();
    std::thread::sleep(COMPARED);
    let (ended, last) = look();
    let ns = ended.duration_since(began).as_nanos();
    let ticks = u128::from(last.checked_sub(first)?);
    (ticks > ns).then(|| u64::try_from((ns << 64) / ticks).ok())?
}

fn is_invariant() -> bool {
    const HIGHEST: u32 = 0x8000_0000;
    const POWER: u32 = 0x8000_0007;
    __cpuid(HIGHEST).eax >= POWER && __cpuid(POWER).edx & 1 << 8 != 0
}

/// The clock, and the counter at that moment.
fn look() -> (Instant, u64) {
    let looks = (0..LOOKS).map(|_| {
        let before = read();
        let now = Instant::now();
        let after = read();
        let width = after.wrapping_sub(before);
        (width, now, before.wrapping_add(width / 2))
    });
    let best = looks.min_by_key(|(width, ..)| *width);
    best.map_or_else(|| (Instant::now(), read()), |(_, now, ticks)| (now, ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_keeps_the_clocks_pace() {
        let Some(multiplier) = multiplier() else { return };
        let (began, first) = look();
        std::thread::sleep(Duration::from_millis(50));
        let (ended, last) = look();

        let by_clock = ended.duration_since(began).as_nanos();
        let by_counter = (u128::from(last - first) * u128::from(multiplier)) >> 64;

        assert!(by_clock.abs_diff(by_counter) < by_clock / 1000, "{by_clock} {by_counter}");
    }
}
