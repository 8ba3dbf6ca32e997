//! Guest time from the host's time-stamp counter, where that is a clock, or its monotonic clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kasane_ports::{Clock, Ticks};
use parking_lot::Mutex;

/// No pause.
const RUNNING: u64 = u64::MAX;

/// Guest nanoseconds, which stand still while the clock is paused and can be set (restore).
#[derive(Debug)]
pub struct HostClock {
    origin: Instant,
    /// Nanoseconds in a tick of the host's counter, times 2^64.
    rate: Option<u64>,
    /// Host nanoseconds in a nanosecond.
    slowness: u32,
    /// Guest time minus host time, wrapping.
    shift_ns: AtomicU64,
    /// Guest time at which the clock stands, or [`RUNNING`].
    paused_at_ns: AtomicU64,
    /// Held by who pauses, resumes or sets; never by readers.
    change: Mutex<()>,
}

impl Default for HostClock {
    fn default() -> Self {
        Self::new()
    }
}

impl HostClock {
    /// A running clock at 0.
    #[must_use]
    pub fn new() -> Self {
        Self::slowed(1)
    }

    /// A running clock at 0 that goes so many times slower than the host's, for machines that do:
    /// otherwise timers would leave them no time for anything else.
    #[must_use]
    pub fn slowed(slowness: u32) -> Self {
        let slowness = slowness.max(1);
        let rate = rate().map(|rate| rate / u64::from(slowness));
        let clock = Self {
            origin: Instant::now(),
            rate,
            slowness,
            shift_ns: AtomicU64::new(0),
            paused_at_ns: AtomicU64::new(RUNNING),
            change: Mutex::new(()),
        };
        clock.shift_ns.store(clock.host_ns().wrapping_neg(), Ordering::Release);
        clock
    }

    /// Stops guest time. Nothing if it stands already.
    pub fn pause(&self) {
        let _guard = self.change.lock();
        if self.paused_at_ns.load(Ordering::Acquire) == RUNNING {
            self.paused_at_ns.store(self.now_ns(), Ordering::Release);
        }
    }

    /// Lets guest time go on from where it stands. Nothing if it runs already.
    pub fn resume(&self) {
        let _guard = self.change.lock();
        let stood_at = self.paused_at_ns.load(Ordering::Acquire);
        if stood_at != RUNNING {
            self.shift_ns.store(stood_at.wrapping_sub(self.host_ns()), Ordering::Release);
            self.paused_at_ns.store(RUNNING, Ordering::Release);
        }
    }

    /// Sets guest time, running or paused. Only while no vCPU runs.
    pub fn set_ns(&self, guest_ns: u64) {
        let _guard = self.change.lock();
        self.shift_ns.store(guest_ns.wrapping_sub(self.host_ns()), Ordering::Release);
        if self.paused_at_ns.load(Ordering::Acquire) != RUNNING {
            self.paused_at_ns.store(guest_ns, Ordering::Release);
        }
    }

    /// The host's moment of a guest time; none while the clock is paused or when it is too far.
    #[must_use]
    pub fn instant_of(&self, guest_ns: u64) -> Option<Instant> {
        if self.paused_at_ns.load(Ordering::Acquire) != RUNNING {
            return None;
        }
        let left = guest_ns.saturating_sub(self.now_ns());
        let left = Duration::from_nanos(left).checked_mul(self.slowness)?;
        Instant::now().checked_add(left)
    }

    /// Nanoseconds since some moment.
    fn host_ns(&self) -> u64 {
        if let Some(rate) = self.rate {
            return (u128::from(counter()).wrapping_mul(rate.into()) >> 64) as u64;
        }
        let elapsed = self.origin.elapsed() / self.slowness;
        u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Clock for HostClock {
    fn now_ns(&self) -> u64 {
        let paused_at = self.paused_at_ns.load(Ordering::Acquire);
        if paused_at != RUNNING {
            return paused_at;
        }
        self.host_ns().wrapping_add(self.shift_ns.load(Ordering::Acquire))
    }

    fn ticks(&self) -> Option<Ticks> {
        let multiplier = self.rate?;
        let stands = self.paused_at_ns.load(Ordering::Acquire) != RUNNING;
        let offset = self.shift_ns.load(Ordering::Acquire);
        (!stands).then_some(Ticks { multiplier, offset })
    }

    fn wall_clock_s(&self) -> u64 {
        self.wall_clock_ns() / 1_000_000_000
    }

    fn wall_clock_ns(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(target_arch = "x86_64")]
use kasane_host_code::ticks::{multiplier as rate, read as counter};

#[cfg(not(target_arch = "x86_64"))]
fn rate() -> Option<u64> {
    None
}
#[cfg(not(target_arch = "x86_64"))]
fn counter() -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn time_goes_forward() {
        let clock = HostClock::new();
        let before = clock.now_ns();
        std::thread::sleep(MILLISECOND);

        assert!(clock.now_ns() >= before + 1_000_000);
    }

    #[test]
    fn a_paused_clock_stands_and_goes_on_from_there() {
        let clock = HostClock::new();
        clock.pause();
        let stood = clock.now_ns();
        std::thread::sleep(20 * MILLISECOND);
        let still = clock.now_ns();
        clock.resume();
        let after = clock.now_ns();

        assert_eq!(still, stood);
        assert!(after >= stood);
        assert!(after < stood + 20_000_000, "the pause was counted");
    }

    #[test]
    fn a_slowed_clock_is_slow_and_its_deadlines_are_late() {
        let (began, clock) = (Instant::now(), HostClock::slowed(100));
        let before = clock.now_ns();
        std::thread::sleep(20 * MILLISECOND);
        let passed = Duration::from_nanos(clock.now_ns() - before);
        let taken = began.elapsed();
        let moment = clock.instant_of(clock.now_ns() + 10_000_000).unwrap();

        assert!(passed >= MILLISECOND / 5 && passed <= taken / 99, "{passed:?} of {taken:?}");
        assert!(moment > Instant::now() + 900 * MILLISECOND);
    }

    #[test]
    fn a_set_clock_tells_the_time_it_was_set_to() {
        let clock = HostClock::new();
        clock.pause();
        clock.set_ns(5_000_000_000);
        let paused = clock.now_ns();
        clock.resume();

        assert_eq!(paused, 5_000_000_000);
        assert!(clock.now_ns() >= 5_000_000_000);
    }

    #[test]
    fn deadlines_have_a_moment_unless_time_stands() {
        let clock = HostClock::new();
        let deadline = clock.now_ns() + 50_000_000;
        let moment = clock.instant_of(deadline).unwrap();
        let in_the_past = clock.instant_of(0).unwrap();
        clock.pause();

        assert!(moment > Instant::now());
        assert!(in_the_past <= Instant::now());
        assert_eq!(clock.instant_of(deadline), None);
    }

    #[test]
    fn the_wall_clock_is_in_this_century() {
        let clock = HostClock::new();

        assert!(clock.wall_clock_s() > 1_600_000_000);
        assert!(clock.wall_clock_ns() / 1_000_000_000 - clock.wall_clock_s() <= 1);
    }
}
