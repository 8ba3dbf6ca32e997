//! Where finished requests go, and how many are under way.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{OnceLock, Weak};

use kasane_ports::{BlockCompletion, BlockCompletions};
use parking_lot::{Condvar, Mutex};

use crate::job::{Failed, Job};

/// Shared by a disk and its threads.
#[derive(Default)]
pub(crate) struct Sink {
    to: OnceLock<Weak<dyn BlockCompletions>>,
    under_way: AtomicUsize,
    idle: Mutex<()>,
    became_idle: Condvar,
    trouble: Mutex<Option<String>>,
}

impl Sink {
    pub(crate) fn connect(&self, to: Weak<dyn BlockCompletions>) {
        let _told_once = self.to.set(to);
    }
    /// So many requests were taken.
    pub(crate) fn taken(&self, count: usize) {
        self.under_way.fetch_add(count, Ordering::AcqRel);
    }
    /// Tells of ended jobs. Their memory is let go, and so noted as written, before anybody hears
    /// of it.
    pub(crate) fn finish(&self, ended: Vec<(Job, Result<(), Failed>)>) {
        if ended.is_empty() {
            return;
        }
        let done: Vec<_> = ended
            .into_iter()
            .map(|(job, result)| {
                if let Err(failed) = &result {
                    self.note(&failed.why);
                }
                job.finish(&result)
            })
            .collect();
        self.tell(&done);
    }
    /// Tells of ended requests.
    pub(crate) fn tell(&self, done: &[BlockCompletion]) {
        if done.is_empty() {
            return;
        }
        if let Some(to) = self.to.get().and_then(Weak::upgrade) {
            to.completed(done);
        }
        // After the receiver has heard, so that who drains may let the receiver go.
        if self.under_way.fetch_sub(done.len(), Ordering::AcqRel) == done.len() {
            let _guard = self.idle.lock();
            self.became_idle.notify_all();
        }
    }
    /// Waits until nothing is under way.
    pub(crate) fn drain(&self) {
        let mut guard = self.idle.lock();
        while self.under_way.load(Ordering::Acquire) > 0 {
            self.became_idle.wait(&mut guard);
        }
    }
    fn note(&self, why: &str) {
        self.trouble.lock().get_or_insert_with(|| why.to_owned());
    }
    /// The host's reason of the first failure since it was last asked for.
    pub(crate) fn take_trouble(&self) -> Option<String> {
        self.trouble.lock().take()
    }
}
