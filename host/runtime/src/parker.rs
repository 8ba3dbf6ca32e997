//! Waiting for a wake-up or a moment, without polling.

use std::time::Instant;

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

/// One thread waits here, others wake it. A wake-up before the wait is kept, once.
#[derive(Debug, Default)]
pub struct Parker {
    token: Mutex<bool>,
    changed: Condvar,
}

impl Parker {
    /// A parker without a kept wake-up.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits for a wake-up or until `deadline`, without end if there is none.
    pub fn park(&self, deadline: Option<Instant>) -> Wake {
        let mut token = self.token.lock();
        while !*token {
            match deadline {
                None => self.changed.wait(&mut token),
                Some(moment) => {
                    if self.changed.wait_until(&mut token, moment).timed_out() && !*token {
                        return Wake::Deadline;
                    }
                }
            }
        }
        *token = false;
        Wake::Unparked
    }

    /// Wakes the thread that waits, or the next that will.
    pub fn unpark(&self) {
        let mut token = self.token.lock();
        if !*token {
            *token = true;
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
        let parker = Arc::new(Parker::new());
        let waiting = Arc::clone(&parker);
        let thread = std::thread::spawn(move || waiting.park(None));
        std::thread::sleep(Duration::from_millis(5));
        parker.kick();

        assert_eq!(thread.join().unwrap(), Wake::Unparked);
    }
}
