//! The thread that every network of this crate has: it sleeps until the host, the guest or a
//! deadline wakes it, and then does one round.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kasane_ports::NetDevice;
use mio::{Events, Poll, Registry, Token, Waker};
use parking_lot::Mutex;

/// The token that only wakes; no network uses it for anything else.
pub(crate) const WAKE: Token = Token(0);

/// How many events of the host one round looks at, at most.
const EVENTS_MAX: usize = 512;

/// What a network does in its thread.
pub(crate) trait Network: Send + 'static {
    /// One round: events of the host, frames from the guest, frames to it. It must end soon; what
    /// is left to do is said by the answer.
    fn round(&mut self, device: Option<&dyn NetDevice>, events: &Events, now: Instant) -> Next;
}

/// When the next round is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// At once: there is more to do.
    Now,
    /// At this time, if nothing happens before.
    At(Instant),
    /// When something happens.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "the NAT always has a deadline")
    )]
    Event,
}

/// A running thread with its network. Dropping it ends the thread.
pub(crate) struct Service {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    waker: Waker,
    /// Something has happened that the thread has not looked at yet.
    pending: AtomicBool,
    /// The thread sleeps or is about to: it needs the waker.
    asleep: AtomicBool,
    stop: AtomicBool,
    device: Mutex<Option<Weak<dyn NetDevice>>>,
}

impl Service {
    /// Starts a thread; `build` makes the network with the registry of its poll.
    pub(crate) fn start<N: Network, E: From<io::Error>>(
        name: &str,
        build: impl FnOnce(Registry) -> Result<N, E>,
    ) -> Result<Self, E> {
        let poll = Poll::new()?;
        let shared = Arc::new(Shared {
            waker: Waker::new(poll.registry(), WAKE)?,
            pending: AtomicBool::new(true),
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            device: Mutex::new(None),
        });
        let network = build(poll.registry().try_clone()?)?;
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&of_thread, poll, network))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Puts the network to a device.
    pub(crate) fn connect(&self, device: Weak<dyn NetDevice>) {
        *self.shared.device.lock() = Some(device);
        self.wake();
    }

    /// Makes the thread look at the device.
    pub(crate) fn wake(&self) {
        // The order matters: the thread says first that it is about to sleep and then looks for
        // what is pending, so one of the two sees the other.
        self.shared.pending.store(true, Ordering::SeqCst);
        if self.shared.asleep.swap(false, Ordering::SeqCst) {
            // It can only fail for want of kernel memory; a deadline wakes the thread then.
            let _ = self.shared.waker.wake();
        }
    }
}

impl Drop for Service {
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

fn run(shared: &Shared, mut poll: Poll, mut network: impl Network) {
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
            events.clear();
        }
        shared.asleep.store(false, Ordering::SeqCst);
        shared.pending.store(false, Ordering::SeqCst);
        let device = shared.device.lock().as_ref().and_then(Weak::upgrade);
        next = network.round(device.as_deref(), &events, Instant::now());
        if let Some(device) = device {
            device.flush();
        }
    }
}
