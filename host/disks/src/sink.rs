//! Where finished requests go, and how many are under way.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use kasane_ports::{BlockCompletion, BlockCompletions, BlockError};
use parking_lot::{Condvar, Mutex};

use crate::job::{Failed, Job};

/// Shared by a disk and its threads.
#[derive(Default)]
pub(crate) struct Sink {
    to: OnceLock<Weak<dyn BlockCompletions>>,
    under_way: AtomicUsize,
    idle: Mutex<()>,
    became_idle: Condvar,
    troubles: Mutex<Troubles>,
}

/// A disk's storage failed a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What kind of failure it is: [`BlockError::NoSpace`], [`BlockError::Io`] or
    /// [`BlockError::ReadOnly`].
    pub error: BlockError,
    /// The host's reason.
    pub why: String,
}

type Tell = Arc<dyn Fn(&Trouble) + Send + Sync>;

#[derive(Default)]
struct Troubles {
    tell: Option<Tell>,
    told: Vec<BlockError>,
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
                    self.note(failed);
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
    /// Who is told of troubles.
    pub(crate) fn on_trouble(&self, tell: Tell) {
        self.troubles.lock().tell = Some(tell);
    }
    fn note(&self, failed: &Failed) {
        let Failed { error, why } = failed;
        match error {
            BlockError::NoSpace | BlockError::Io | BlockError::ReadOnly => {}
            // The guest's doing, or something that the host lacks and nobody misses.
            BlockError::OutOfRange | BlockError::Unsupported | BlockError::Memory => return,
        }
        let mut troubles = self.troubles.lock();
        let Some(tell) = troubles.tell.clone().filter(|_| !troubles.told.contains(error)) else {
            return;
        };
        troubles.told.push(*error);
        drop(troubles);
        tell(&Trouble { error: *error, why: why.clone() });
    }
}
