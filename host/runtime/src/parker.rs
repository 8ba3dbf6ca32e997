//! Waiting for a wake-up or a moment.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kasane_ports::Kick;
use parking_lot::{Condvar, Mutex};

/// Why [`Parker::park`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Somebody woke it, now or before it parked.
    Unparked,
    /// The moment came.
    Deadline,
}

/// The longest time that is polled before a thread sleeps, in nanoseconds: what the host takes to
/// wake a thread on a processor that sleeps, too, and the guest to go on from there, is of that
/// order.
const WINDOW_MAX: u32 = 200_000;
/// The first window after a short wait.
const WINDOW_FIRST: u32 = 10_000;

/// One thread waits here, others wake it. A wake-up before the wait is kept, once.
///
/// To sleep and to be woken takes the host tens of microseconds, which is much where a disk
/// answers in eighty. So a parker that [polls](Self::polling) looks for a while before it sleeps:
/// for longer while waits turn out to be short, and not at all after a long one, so that what
/// idles costs nothing (KVM's `halt_poll_ns` does the same). Who has something else to run on this
/// processor gets it meanwhile. What may lead to a wake-up, without another thread, is looked at
/// each time.
#[derive(Default)]
pub struct Parker {
    woken: AtomicBool,
    sleeping: Mutex<bool>,
    changed: Condvar,
    look: Option<Box<dyn Fn() + Send + Sync>>,
    /// How long the next wait polls, in nanoseconds. Only who waits changes it.
    window: AtomicU32,
}

impl Parker {
    /// A parker without a kept wake-up, which sleeps at once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, but that it polls while waits are short, and calls `look` meanwhile, which may wake
    /// it.
    #[must_use]
    pub fn polling(look: impl Fn() + Send + Sync + 'static) -> Self {
        Self { look: Some(Box::new(look)), ..Self::default() }
    }

    /// Waits for a wake-up or until `deadline`, without end if there is none.
    pub fn park(&self, deadline: Option<Instant>) -> Wake {
        if self.take() {
            return Wake::Unparked;
        }
        let Some(look) = &self.look else { return self.sleep(deadline) };
        let start = Instant::now();
        let window = Duration::from_nanos(u64::from(self.window.load(Ordering::Relaxed)));
        let until = start + window;
        let wake = self.poll(look, until, deadline).unwrap_or_else(|| self.sleep(deadline));
        self.adapt(start.elapsed());
        wake
    }

    fn take(&self) -> bool {
        self.woken.load(Ordering::Relaxed) && self.woken.swap(false, Ordering::SeqCst)
    }

    /// Nothing: the window is over.
    fn poll(&self, look: &dyn Fn(), until: Instant, deadline: Option<Instant>) -> Option<Wake> {
        loop {
            let now = Instant::now();
            if now >= until {
                return None;
            }
            look();
            if self.take() {
                return Some(Wake::Unparked);
            }
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Some(Wake::Deadline);
            }
            std::thread::yield_now();
        }
    }

    fn sleep(&self, deadline: Option<Instant>) -> Wake {
        let mut sleeping = self.sleeping.lock();
        // The order matters: who wakes says so first and looks then whether anybody sleeps, so one
        // of the two sees the other.
        *sleeping = true;
        let wake = loop {
            if self.woken.swap(false, Ordering::SeqCst) {
                break Wake::Unparked;
            }
            match deadline {
                None => self.changed.wait(&mut sleeping),
                Some(moment) => {
                    if self.changed.wait_until(&mut sleeping, moment).timed_out() {
                        let woken = self.woken.swap(false, Ordering::SeqCst);
                        break if woken { Wake::Unparked } else { Wake::Deadline };
                    }
                }
            }
        };
        *sleeping = false;
        wake
    }

    /// Short waits are worth polling for, long ones are not.
    fn adapt(&self, waited: Duration) {
        let window = self.window.load(Ordering::Relaxed);
        let waited = waited.as_nanos();
        let next = if waited > u128::from(WINDOW_MAX) {
            0
        } else if waited > u128::from(window) {
            (window.saturating_mul(2)).clamp(WINDOW_FIRST, WINDOW_MAX)
        } else {
            window
        };
        self.window.store(next, Ordering::Relaxed);
    }

    /// Wakes the thread that waits, or the next that will.
    pub fn unpark(&self) {
        if self.woken.swap(true, Ordering::SeqCst) {
            return;
        }
        if *self.sleeping.lock() {
            self.changed.notify_one();
        }
    }
}

impl Kick for Parker {
    fn kick(&self) {
        self.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_wake_up_before_the_wait_is_kept_once() {
        let parker = Parker::new();
        parker.unpark();
        parker.unpark();
        let first = parker.park(None);
        let second = parker.park(Some(Instant::now()));

        assert_eq!((first, second), (Wake::Unparked, Wake::Deadline));
    }

    #[test]
    fn a_deadline_ends_the_wait() {
        let parker = Parker::new();
        let start = Instant::now();
        let woken = parker.park(start.checked_add(Duration::from_millis(5)));

        assert_eq!(woken, Wake::Deadline);
        assert!(start.elapsed() >= Duration::from_millis(5));
    }

    #[test]
    fn another_thread_ends_the_wait() {
        for parker in [Parker::new(), Parker::polling(|| {})] {
            let parker = Arc::new(parker);
            let waiting = Arc::clone(&parker);
            let thread = std::thread::spawn(move || waiting.park(None));
            std::thread::sleep(Duration::from_millis(5));
            parker.kick();

            assert_eq!(thread.join().unwrap(), Wake::Unparked);
        }
    }

    /// Two threads wake each other in turn: a wake-up that is lost would be waited for forever.
    #[test]
    fn no_wake_up_is_lost_whether_it_finds_a_poller_or_a_sleeper() {
        for make in [Parker::new, || Parker::polling(|| {})] {
            let (here, there) = (Arc::new(make()), Arc::new(make()));
            let (other_here, other_there) = (Arc::clone(&here), Arc::clone(&there));
            let echo = std::thread::spawn(move || {
                for turn in 0..5000_u32 {
                    other_there.park(None);
                    if turn % 64 == 0 {
                        std::thread::sleep(Duration::from_micros(300));
                    }
                    other_here.unpark();
                }
            });
            for _ in 0..5000 {
                there.unpark();
                assert_eq!(here.park(None), Wake::Unparked);
            }
            echo.join().unwrap();
        }
    }

    #[test]
    fn short_waits_are_polled_for_and_a_long_one_ends_that() {
        let parker = Parker::polling(|| {});
        let window = || parker.window.load(Ordering::Relaxed);
        assert_eq!(window(), 0);

        for expected in [10_000, 20_000, 40_000, 80_000, 160_000, 200_000, 200_000] {
            parker.adapt(
                Duration::from_nanos(u64::from(window()) + 1).min(Duration::from_micros(200)),
            );
            assert_eq!(window(), expected);
        }
        parker.adapt(Duration::from_millis(1));
        assert_eq!(window(), 0);
    }
}
