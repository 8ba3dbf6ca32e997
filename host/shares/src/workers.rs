//! The threads of a share. File systems block, so there are a few.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use kasane_memory::GuestMemory;
use kasane_ports::{ShareCompletions, ShareRequest};
use parking_lot::{Condvar, Mutex};

use crate::server::Server;
use crate::transfer;
use crate::wire;

/// Threads of a share.
const THREADS: usize = 3;

#[derive(Default)]
struct State {
    /// What waits; the guest's queues bound it.
    requests: VecDeque<ShareRequest>,
    /// Requests that threads are at.
    busy: usize,
    stop: bool,
}

struct Shared {
    state: Mutex<State>,
    more: Condvar,
    idle: Condvar,
    server: Server,
    memory: Arc<dyn GuestMemory>,
    to: Mutex<Option<Weak<dyn ShareCompletions>>>,
}

/// The threads.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    pub(crate) fn start(server: Server, memory: Arc<dyn GuestMemory>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            more: Condvar::new(),
            idle: Condvar::new(),
            server,
            memory,
            to: Mutex::new(None),
        });
        let mut workers = Self { shared, threads: Vec::new() };
        for n in 0..THREADS {
            let shared = workers.shared.clone();
            let builder = std::thread::Builder::new().name(format!("share.{n}"));
            workers.threads.push(builder.spawn(move || run(&shared))?);
        }
        Ok(workers)
    }

    pub(crate) fn connect(&self, to: Weak<dyn ShareCompletions>) {
        *self.shared.to.lock() = Some(to);
    }

    pub(crate) fn submit(&self, requests: Vec<ShareRequest>) {
        self.shared.state.lock().requests.extend(requests);
        self.shared.more.notify_all();
    }

    pub(crate) fn drain(&self) {
        let mut state = self.shared.state.lock();
        while state.busy != 0 || !state.requests.is_empty() {
            self.shared.idle.wait(&mut state);
        }
    }

    pub(crate) fn reset(&self) {
        self.shared.server.forget_all();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.state.lock().stop = true;
        self.shared.more.notify_all();
        for thread in self.threads.drain(..) {
            // One of them may drop the last of the device, and the device this.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

fn run(shared: &Shared) {
    loop {
        let mut state = shared.state.lock();
        let request = loop {
            if state.stop {
                return;
            }
            match state.requests.pop_front() {
                Some(request) => break request,
                None => shared.more.wait(&mut state),
            }
        };
        state.busy += 1;
        drop(state);
        let written = serve(shared, &request);
        let to = shared.to.lock().as_ref().and_then(Weak::upgrade);
        if let Some(to) = to {
            to.completed(request.token, written);
        }
        let mut state = shared.state.lock();
        state.busy -= 1;
        if state.busy == 0 {
            shared.idle.notify_all();
        }
    }
}

/// Answers one request: how many bytes were written. What isn't in memory has no answer.
fn serve(shared: &Shared, request: &ShareRequest) -> u32 {
    let room = transfer::len(&request.answer).min(wire::MESSAGE_MAX as u64) as usize;
    // One byte more than a message can have shows that it is too long.
    let len = transfer::len(&request.message).min(wire::MESSAGE_MAX as u64 + 1) as usize;
    let mut message = vec![0; len];
    if transfer::read(&*shared.memory, &request.message, &mut message).is_err() {
        return 0;
    }
    let Some(answer) = shared.server.answer(&message, room) else { return 0 };
    transfer::write(&*shared.memory, &request.answer, &answer).unwrap_or(0) as u32
}
