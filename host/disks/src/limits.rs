//! How much a disk may do in a second: a bucket of tokens for bytes and one for requests.
//!
//! A bucket fills evenly, up to what comes in a tenth of a second, so that short bursts pass. A
//! request passes if both buckets have something, and takes what it costs even if that is more: so
//! a large request passes, and the next ones wait the longer. What waits is let through in order by
//! one thread, which sleeps until then.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::disk::Core;
use crate::job::{Job, Work};
use crate::options::DiskLimits;

/// The burst of a bucket is what comes in one second divided by this.
const BURSTS_PER_SECOND: f64 = 10.0;

/// Tokens; below zero, somebody took in advance.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    per_second: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    fn new(per_second: u64, now: Instant) -> Self {
        #[allow(clippy::cast_precision_loss)] // 53 bits are enough for a rate
        let per_second = per_second as f64;
        Self { per_second, level: per_second / BURSTS_PER_SECOND, at: now }
    }
    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let full = self.per_second / BURSTS_PER_SECOND;
        self.level = (self.level + passed * self.per_second).min(full);
        self.at = now;
    }
    /// How long until something passes.
    fn wait(&self) -> Duration {
        if self.level > 0.0 {
            return Duration::ZERO;
        }
        // A rate of less than one in an hour is no more than a person waits for.
        Duration::from_secs_f64((1e-6 - self.level / self.per_second).min(3600.0))
    }
}

#[derive(Debug, Default)]
struct Buckets {
    bytes: Option<Bucket>,
    operations: Option<Bucket>,
}

impl Buckets {
    fn new(limits: DiskLimits, now: Instant) -> Option<Self> {
        let bucket = |limit: Option<std::num::NonZeroU64>| Some(Bucket::new(limit?.get(), now));
        let (bytes, operations) =
            (bucket(limits.bytes_per_second), bucket(limits.operations_per_second));
        (bytes.is_some() || operations.is_some()).then_some(Self { bytes, operations })
    }
    fn both(&mut self) -> impl Iterator<Item = &mut Bucket> {
        [&mut self.bytes, &mut self.operations].into_iter().flatten()
    }
    /// Lets a request of so many bytes pass, or says how long it has to wait.
    fn take(&mut self, bytes: u64, now: Instant) -> Result<(), Duration> {
        self.both().for_each(|bucket| bucket.fill(now));
        let wait = self.both().map(|bucket| bucket.wait()).max().unwrap_or_default();
        if !wait.is_zero() {
            return Err(wait);
        }
        #[allow(clippy::cast_precision_loss)] // as above
        if let Some(bucket) = &mut self.bytes {
            bucket.level -= bytes as f64;
        }
        if let Some(bucket) = &mut self.operations {
            bucket.level -= 1.0;
        }
        Ok(())
    }
}

#[derive(Default)]
struct State {
    buckets: Buckets,
    waiting: VecDeque<Job>,
    /// Everything passes: somebody waits for the end.
    open: bool,
    closed: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    core: Arc<Core>,
}

/// Where jobs wait until they may begin.
pub(crate) struct Gate {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Gate {
    /// A gate, if there are limits.
    ///
    /// # Errors
    /// The host has no more threads.
    pub(crate) fn new(limits: DiskLimits, core: &Arc<Core>) -> io::Result<Option<Self>> {
        let Some(buckets) = Buckets::new(limits, Instant::now()) else { return Ok(None) };
        let state = Mutex::new(State { buckets, ..State::default() });
        let shared = Arc::new(Shared { state, changed: Condvar::new(), core: Arc::clone(core) });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("disk limits".into())
            .spawn(move || theirs.let_through())?;
        Ok(Some(Self { shared, thread: Some(thread) }))
    }

    /// Begins with what may begin now; the rest waits.
    pub(crate) fn pass(&self, jobs: Vec<Job>) {
        let mut state = self.shared.state.lock();
        let slept = state.waiting.is_empty();
        state.waiting.extend(jobs);
        // Who waits already is let through first, by the thread.
        let (ready, _) = if slept { state.ready(Instant::now()) } else { (Vec::new(), None) };
        if slept && !state.waiting.is_empty() {
            self.shared.changed.notify_all();
        }
        drop(state);
        if !ready.is_empty() {
            self.shared.core.start(ready);
        }
    }

    /// Lets everything through that waits.
    pub(crate) fn open(&self) {
        let mut state = self.shared.state.lock();
        state.open = !state.waiting.is_empty();
        self.shared.changed.notify_all();
    }
}

impl State {
    /// What may begin, and how long the next one has to wait.
    fn ready(&mut self, now: Instant) -> (Vec<Job>, Option<Duration>) {
        let mut ready = Vec::new();
        while let Some(job) = self.waiting.front() {
            let bytes = match job.work {
                Work::Read | Work::Write => job.len,
                Work::Flush | Work::Discard | Work::Zero(_) => 0,
            };
            match self.buckets.take(bytes, now) {
                Err(wait) if !self.open => return (ready, Some(wait)),
                Ok(()) | Err(_) => ready.extend(self.waiting.pop_front()),
            }
        }
        self.open = false;
        (ready, None)
    }
}

impl Shared {
    fn let_through(&self) {
        let mut state = self.state.lock();
        loop {
            let (ready, wait) = state.ready(Instant::now());
            if !ready.is_empty() {
                drop(state);
                self.core.start(ready);
                state = self.state.lock();
                continue;
            }
            match wait {
                Some(wait) => {
                    self.changed.wait_for(&mut state, wait);
                }
                None if state.closed => return,
                None => self.changed.wait(&mut state),
            }
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.closed = true;
        state.open = true;
        self.shared.changed.notify_all();
        drop(state);
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            let _panicked = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU64;

    fn buckets(bytes: u64, operations: u64, now: Instant) -> Buckets {
        let limits = DiskLimits {
            bytes_per_second: NonZeroU64::new(bytes),
            operations_per_second: NonZeroU64::new(operations),
        };
        Buckets::new(limits, now).unwrap()
    }

    #[test]
    fn a_second_has_what_it_may_have_and_one_burst() {
        let now = Instant::now();
        let mut buckets = buckets(1_000_000, 0, now);
        let mut passed = 0u64;
        for ms in 0..1000u64 {
            while buckets.take(4096, now + Duration::from_millis(ms)).is_ok() {
                passed += 4096;
            }
        }

        assert!((1_090_000..1_110_000).contains(&passed), "{passed}");
    }

    #[test]
    fn the_tighter_limit_holds_and_says_how_long() {
        let now = Instant::now();
        let mut buckets = buckets(1 << 30, 10, now);
        let first = buckets.take(512, now);
        let wait = buckets.take(512, now).unwrap_err();
        let later = buckets.take(512, now + wait + Duration::from_millis(1));

        assert_eq!((first, later), (Ok(()), Ok(())));
        assert!(wait <= Duration::from_millis(1));
    }

    #[test]
    fn a_request_larger_than_a_burst_passes_and_is_paid_for_after() {
        let now = Instant::now();
        let mut buckets = buckets(1000, 0, now);

        assert_eq!(buckets.take(10_000, now), Ok(()));
        assert!(buckets.take(1, now).unwrap_err() > Duration::from_secs(9));
    }

    #[test]
    fn without_limits_there_is_no_bucket() {
        assert!(Buckets::new(DiskLimits::default(), Instant::now()).is_none());
    }
}
