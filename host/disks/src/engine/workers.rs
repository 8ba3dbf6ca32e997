//! Jobs on threads.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use kasane_ports::BlockError;
use parking_lot::{Condvar, Mutex};

use super::Engine;
use crate::image::Image;
use crate::job::{Failed, Job};
use crate::sink::Sink;

/// Threads of one disk. They mostly wait for its storage.
const THREADS: usize = 4;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    there_are_some: Condvar,
    image: Arc<dyn Image>,
    sink: Arc<Sink>,
}

/// A disk's threads. Dropping it ends them, once every job is done.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts the threads.
    ///
    /// # Errors
    /// The host has no more threads.
    pub(crate) fn new(image: Arc<dyn Image>, sink: Arc<Sink>) -> io::Result<Self> {
        let shared =
            Shared { queue: Mutex::default(), there_are_some: Condvar::new(), image, sink };
        let mut workers = Self { shared: Arc::new(shared), threads: Vec::new() };
        for _ in 0..THREADS {
            let shared = Arc::clone(&workers.shared);
            let thread = thread::Builder::new().name("disk".into()).spawn(move || work(&shared))?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }
}

fn work(shared: &Shared) {
    loop {
        let mut queue = shared.queue.lock();
        let mut job = loop {
            match queue.jobs.pop_front() {
                Some(job) => break job,
                None if queue.closed => return,
                None => shared.there_are_some.wait(&mut queue),
            }
        };
        drop(queue);
        let result = guarded(|| shared.image.run(&mut job));
        shared.sink.finish(vec![(job, result)]);
    }
}

/// A job that panics is a bug of ours or of the crate that reads the format; it ends the job and
/// not the thread.
pub(crate) fn guarded(run: impl FnOnce() -> Result<(), Failed>) -> Result<(), Failed> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err(Failed::new(BlockError::Io, "a bug: the request panicked")))
}

impl Engine for Workers {
    fn start(&self, jobs: Vec<Job>) {
        let count = jobs.len();
        self.shared.queue.lock().jobs.extend(jobs);
        for _ in 0..count.min(THREADS) {
            self.shared.there_are_some.notify_one();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.there_are_some.notify_all();
        for thread in self.threads.drain(..) {
            // The last one to let a disk go may be one of its own threads, in a completion.
            if thread.thread().id() != thread::current().id() {
                let _panicked = thread.join();
            }
        }
    }
}
