//! The thread: it sleeps until the host, the guest or a deadline wakes it, and does one round.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kasane_ports::VsockDevice;
use mio::net::UnixListener;
use mio::{Events, Poll, Waker};
use parking_lot::Mutex;

use crate::switch::{Next, Switch, WAKE};

/// How many events of the host one round looks at, at most.
const EVENTS_MAX: usize = 256;

struct Shared {
    waker: Waker,
    /// Something has happened that the thread has not looked at yet.
    pending: AtomicBool,
    /// The thread sleeps or is about to: it needs the waker.
    asleep: AtomicBool,
    stop: AtomicBool,
    device: Mutex<Option<Weak<dyn VsockDevice>>>,
}

/// The running thread. Dropping it ends the thread and removes the socket.
pub(crate) struct Service {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

impl Service {
    pub(crate) fn start(listener: UnixListener, path: &Path) -> io::Result<Self> {
        let poll = Poll::new()?;
        let shared = Arc::new(Shared {
            waker: Waker::new(poll.registry(), WAKE)?,
            pending: AtomicBool::new(true),
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            device: Mutex::new(None),
        });
        let switch = Switch::new(listener, path, poll.registry().try_clone()?)?;
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("vsock".into())
            .spawn(move || run(&of_thread, poll, switch))?;
        Ok(Self { shared, thread: Some(thread), path: path.to_owned() })
    }

    pub(crate) fn connect(&self, device: Weak<dyn VsockDevice>) {
        *self.shared.device.lock() = Some(device);
        self.wake();
    }

    pub(crate) fn wake(&self) {
        // The order matters: the thread says first that it is about to sleep and then looks for
        // what is pending, so one of the two sees the other.
        self.shared.pending.store(true, Ordering::SeqCst);
        if self.shared.asleep.swap(false, Ordering::SeqCst) {
            // It can only fail for want of kernel memory; the next one wakes the thread then.
            let _ = self.shared.waker.wake();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = self.shared.waker.wake();
        // Nothing is lost if it is gone already.
        let _ = fs::remove_file(&self.path);
        let Some(thread) = self.thread.take() else { return };
        // The thread itself may drop the last of the device, and the device this.
        if thread.thread().id() != std::thread::current().id() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, mut poll: Poll, mut switch: Switch) {
    let mut events = Events::with_capacity(EVENTS_MAX);
    let mut next = Next::Now;
    while !shared.stop.load(Ordering::SeqCst) {
        shared.asleep.store(true, Ordering::SeqCst);
        let timeout = match next {
            _ if shared.pending.load(Ordering::SeqCst) => Some(Duration::ZERO),
            Next::Now => Some(Duration::ZERO),
            Next::Within(time) => Some(time),
            Next::Event => None,
        };
        if poll.poll(&mut events, timeout).is_err() {
            // Interrupted by a signal: there are no events.
            events.clear();
        }
        shared.asleep.store(false, Ordering::SeqCst);
        shared.pending.store(false, Ordering::SeqCst);
        let device = shared.device.lock().as_ref().and_then(Weak::upgrade);
        next = switch.round(device.as_deref(), &events, Instant::now());
    }
}
