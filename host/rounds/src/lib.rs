//! The thread of a backend that pulls: it sleeps until the host, the guest or a deadline wakes it,
//! and then does one round.
//!
//! Networks and sockets have it. What they do in a round is theirs; here is what is easy to get
//! wrong: that no wake-up is lost, that few of them cost a system call, and how the thread ends.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Registry, Token, Waker};
use parking_lot::Mutex;

/// The token that only wakes; no backend registers anything under it.
pub const WAKE: Token = Token(0);

/// How many events of the host one round looks at, at most.
const EVENTS_MAX: usize = 512;

/// When the next round is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once: there is more to do.
    Now,
    /// At this time, if nothing happens before.
    At(Instant),
    /// When something happens.
    Event,
}

/// A running thread whose rounds are about a device `D`. Dropping it ends the thread.
pub struct Rounds<D: ?Sized> {
    shared: Arc<Shared<D>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared<D: ?Sized> {
    waker: Waker,
    /// Something has happened that the thread has not looked at yet.
    pending: AtomicBool,
    /// The thread sleeps or is about to: it needs the waker.
    asleep: AtomicBool,
    stop: AtomicBool,
    device: Mutex<Option<Weak<D>>>,
}

impl<D: ?Sized + Send + Sync + 'static> Rounds<D> {
    /// Starts a thread. `build` makes, with the registry of its poll, what does one round: events
    /// of the host, what comes from the device, what goes to it. A round must end soon; its answer
    /// says what is left to do.
    ///
    /// # Errors
    /// Those of `build`, or when the system has no more threads or descriptors.
    pub fn start<R, E>(name: &str, build: impl FnOnce(Registry) -> Result<R, E>) -> Result<Self, E>
    where
        R: FnMut(Option<&D>, &Events, Instant) -> Next + Send + 'static,
        E: From<io::Error>,
    {
        let poll = Poll::new()?;
        let shared = Arc::new(Shared {
            waker: Waker::new(poll.registry(), WAKE)?,
            pending: AtomicBool::new(true),
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            device: Mutex::new(None),
        });
        let round = build(poll.registry().try_clone()?)?;
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&of_thread, poll, round))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Puts the backend to a device.
    pub fn connect(&self, device: Weak<D>) {
        *self.shared.device.lock() = Some(device);
        self.wake();
    }
}

impl<D: ?Sized> Rounds<D> {
    /// Makes the thread look at the device. Cheap, from any thread, never blocks.
    pub fn wake(&self) {
        // The order matters: the thread says first that it is about to sleep and then looks for
        // what is pending, so one of the two sees the other.
        self.shared.pending.store(true, Ordering::SeqCst);
        if self.shared.asleep.swap(false, Ordering::SeqCst) {
            // It can only fail for want of kernel memory; the next one wakes the thread then.
            let _ = self.shared.waker.wake();
        }
    }
}

impl<D: ?Sized> Drop for Rounds<D> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = self.shared.waker.wake();
        let Some(thread) = self.thread.take() else { return };
        // The thread itself may drop the last of the device, and the device this.
        if thread.thread().id() != std::thread::current().id() {
            let _ = thread.join();
        }
    }
}

fn run<D: ?Sized>(
    shared: &Shared<D>,
    mut poll: Poll,
    mut round: impl FnMut(Option<&D>, &Events, Instant) -> Next,
) {
    let mut events = Events::with_capacity(EVENTS_MAX);
    let mut next = Next::Now;
    while !shared.stop.load(Ordering::SeqCst) {
        shared.asleep.store(true, Ordering::SeqCst);
        let timeout = if shared.pending.load(Ordering::SeqCst) {
            Some(Duration::ZERO)
        } else {
            match next {
                Next::Now => Some(Duration::ZERO),
                Next::At(time) => Some(time.saturating_duration_since(Instant::now())),
                Next::Event => None,
            }
        };
        if poll.poll(&mut events, timeout).is_err() {
            // Interrupted by a signal: there are no events.
            events.clear();
        }
        shared.asleep.store(false, Ordering::SeqCst);
        shared.pending.store(false, Ordering::SeqCst);
        let device = shared.device.lock().as_ref().and_then(Weak::upgrade);
        next = round(device.as_deref(), &events, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::sync::mpsc;

    use super::*;

    /// A device that counts what it was asked for.
    #[derive(Default)]
    struct Counter(AtomicU32);

    fn counting(next: Next) -> (Rounds<Counter>, mpsc::Receiver<u32>) {
        let (tell, told) = mpsc::channel();
        let rounds = Rounds::start::<_, io::Error>("counting", |_| {
            Ok(move |device: Option<&Counter>, _: &Events, _: Instant| {
                if let Some(device) = device {
                    let _ = tell.send(device.0.fetch_add(1, Ordering::SeqCst) + 1);
                }
                next
            })
        });
        (rounds.unwrap(), told)
    }

    #[test]
    fn each_wake_up_is_followed_by_a_round() {
        let (rounds, told) = counting(Next::Event);
        let device = Arc::new(Counter::default());
        rounds.connect(Arc::downgrade(&device));

        let mut seen = told.recv().unwrap();
        for _ in 0..10_000 {
            rounds.wake();
            seen = told.recv().unwrap().max(seen);
        }

        assert!(seen >= 10_000, "{seen}");
    }

    #[test]
    fn a_deadline_is_followed_by_a_round() {
        let (rounds, told) = counting(Next::At(Instant::now()));
        let device = Arc::new(Counter::default());

        rounds.connect(Arc::downgrade(&device));

        for expected in 1..10 {
            assert_eq!(told.recv().unwrap(), expected);
        }
    }

    #[test]
    fn dropping_it_ends_a_thread_that_sleeps() {
        let (rounds, told) = counting(Next::Event);

        drop(rounds);

        assert_eq!(told.recv(), Err(mpsc::RecvError));
    }
}
