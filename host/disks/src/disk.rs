//! A disk that a machine has: requests are checked, counted, limited and done.
//!
//! # The cheapest way
//! To wake another thread costs many times what it costs to copy a block from or to the host's
//! page cache (70 µs against 1 µs for 4 KiB where this was measured, and the ring's own threads
//! are no better). So the thread that submits a request does it itself if that takes no longer
//! than a copy: a read of what is in the page cache (`RWF_NOWAIT`: the host says if it isn't), and
//! a write, which goes to the page cache. It is most likely a vCPU's thread, so this is bounded: no
//! more than [`INLINE_MAX`] in one `submit`, and a write that took longer than
//! [`SLOW_WRITE`] (the host holds up who writes faster than its storage) sends writes elsewhere for
//! [`SLOW_FOR`]. Whatever waits goes to the image's engine.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use kasane_memory::{PinAccess, PinnedMemory, Ram};
use kasane_ports::{
    BlockBackend, BlockCompletion, BlockCompletions, BlockError, BlockInfo, BlockOperation,
    BlockRequest,
};

use crate::engine::{Engine, Workers, guarded};
use crate::error::DiskError;
use crate::image::Image;
use crate::job::{Failed, Job, Work, Zeroing};
use crate::limits::Gate;
use crate::options::{DiskFormat, DiskOptions, HostCache, Waiting};
use crate::qcow2::Qcow2Image;
use crate::raw::RawImage;
use crate::sink::{Sink, Trouble};
use crate::{format, sys::Vectors};

/// What one `submit` does on its own thread at most.
const INLINE_MAX: Duration = Duration::from_millis(1);
/// A write that takes longer was held up by the storage.
const SLOW_WRITE: Duration = Duration::from_millis(4);
/// How long writes go elsewhere then.
const SLOW_FOR: Duration = Duration::from_millis(100);
/// Bytes of a sector, the unit of requests.
const SECTOR: u64 = 512;

/// An open disk image that serves a machine's requests. Dropping it waits for what is under way;
/// then the image is closed and its lock is gone.
pub struct Disk {
    core: Arc<Core>,
    gate: Option<Gate>,
    ram: Arc<Ram>,
}

/// What does the jobs.
pub(crate) struct Core {
    image: Arc<dyn Image>,
    engine: Box<dyn Engine>,
    sink: Arc<Sink>,
    began: Instant,
    /// Nanoseconds since `began` until which writes go elsewhere.
    slow_until_ns: AtomicU64,
}

impl Disk {
    /// Opens and locks an image for the machine whose memory is `ram`.
    ///
    /// # Errors
    /// See [`DiskError`]. Nothing was written to the image then.
    pub fn open(options: &DiskOptions, ram: Arc<Ram>) -> Result<Self, DiskError> {
        let path = options.path.as_path();
        let sink = Arc::new(Sink::default());
        let (image, engine) = match format::of(path, options.format)? {
            DiskFormat::Raw => raw(options, &sink)?,
            DiskFormat::Qcow2 if options.cache == HostCache::Direct => {
                return Err(DiskError::unsupported(path, "is qcow2 and not to be cached"));
            }
            DiskFormat::Qcow2 => {
                let image: Arc<dyn Image> = Arc::new(Qcow2Image::open(path, options.access)?);
                workers(path, image, &sink)?
            }
        };
        let core = Arc::new(Core {
            image,
            engine,
            sink,
            began: Instant::now(),
            slow_until_ns: AtomicU64::new(0),
        });
        let gate = Gate::new(options.limits, &core).map_err(DiskError::host("serve", path))?;
        Ok(Self { core, gate, ram })
    }

    /// Who is told, once for each kind, that the storage failed a request: the guest only hears
    /// that there was an error. Called on any thread, a vCPU's too, so it should return soon.
    pub fn on_trouble(&self, tell: impl Fn(&Trouble) + Send + Sync + 'static) {
        self.core.sink.on_trouble(Arc::new(tell));
    }
}

type Opened = (Arc<dyn Image>, Box<dyn Engine>);

#[cfg(target_os = "linux")]
fn raw(options: &DiskOptions, sink: &Arc<Sink>) -> Result<Opened, DiskError> {
    let image = Arc::new(RawImage::open(&options.path, options.access, options.cache)?);
    if options.waiting == Waiting::Auto
        && let Ok(ring) = crate::engine::Ring::new(Arc::clone(&image), Arc::clone(sink))
    {
        return Ok((image, Box::new(ring)));
    }
    workers(&options.path, image, sink)
}

#[cfg(not(target_os = "linux"))]
fn raw(options: &DiskOptions, sink: &Arc<Sink>) -> Result<Opened, DiskError> {
    let (Waiting::Auto | Waiting::Threads) = options.waiting;
    let image = Arc::new(RawImage::open(&options.path, options.access, options.cache)?);
    workers(&options.path, image, sink)
}

fn workers(path: &Path, image: Arc<dyn Image>, sink: &Arc<Sink>) -> Result<Opened, DiskError> {
    let workers = Workers::new(Arc::clone(&image), Arc::clone(sink))
        .map_err(DiskError::host("serve", path))?;
    Ok((image, Box::new(workers)))
}

impl Core {
    /// Does jobs, or has them done.
    pub(crate) fn start(&self, jobs: Vec<Job>) {
        let mut ended = Vec::with_capacity(jobs.len());
        let mut later = Vec::new();
        let began = Instant::now();
        let mut now = began;
        for mut job in jobs {
            let inline = now.duration_since(began) < INLINE_MAX
                && (job.work != Work::Write || !self.is_slow(now));
            let quick = if inline { self.quick(&mut job) } else { None };
            match quick {
                Some(result) => ended.push((job, result)),
                None => {
                    later.push(job);
                    continue;
                }
            }
            let before = std::mem::replace(&mut now, Instant::now());
            if now.duration_since(before) > SLOW_WRITE {
                let until = now.duration_since(self.began).saturating_add(SLOW_FOR);
                self.slow_until_ns.store(until.as_nanos() as u64, Ordering::Relaxed);
            }
        }
        if !later.is_empty() {
            self.engine.start(later);
        }
        self.sink.finish(ended);
    }

    fn is_slow(&self, now: Instant) -> bool {
        let now_ns = now.duration_since(self.began).as_nanos() as u64;
        now_ns < self.slow_until_ns.load(Ordering::Relaxed)
    }

    fn quick(&self, job: &mut Job) -> Option<Result<(), Failed>> {
        let mut ended = true;
        let result = guarded(|| match self.image.quick(job) {
            Some(result) => result,
            None => {
                ended = false;
                Ok(())
            }
        });
        ended.then_some(result)
    }
}

impl Disk {
    /// The job for a request, if it is one that can be done.
    fn job(&self, request: &BlockRequest) -> Result<Job, BlockError> {
        let info = self.core.image.info();
        let BlockRequest { token, operation, offset, ref ranges, .. } = *request;
        let memory_len = ranges.iter().map(|range| u64::from(range.len)).sum::<u64>();
        let mut zeroing = Zeroing::Write;
        let (work, len, access) = match operation {
            BlockOperation::Read => (Work::Read, memory_len, Some(PinAccess::HostWrites)),
            BlockOperation::Write => (Work::Write, memory_len, Some(PinAccess::HostReads)),
            BlockOperation::Flush => (Work::Flush, 0, None),
            BlockOperation::Discard { len } => (Work::Discard, len, None),
            BlockOperation::WriteZeroes { len, space } => {
                zeroing = self.core.image.zeroing(space);
                (Work::Zero(space), len, None)
            }
        };
        let offset = if work == Work::Flush { 0 } else { offset };
        let whole = offset.is_multiple_of(SECTOR) && len.is_multiple_of(SECTOR);
        let on_disk = offset.checked_add(len).is_some_and(|end| end <= info.capacity);
        if !whole || !on_disk {
            return Err(BlockError::OutOfRange);
        }
        if info.read_only && !matches!(work, Work::Read | Work::Flush) {
            return Err(BlockError::ReadOnly);
        }
        let memory: Option<PinnedMemory> = match access {
            None => None,
            Some(access) => Some(self.ram.pin(ranges, access).map_err(|_| BlockError::Memory)?),
        };
        Ok(Job {
            token,
            work,
            offset,
            len,
            done: 0,
            memory,
            vectors: Vectors::default(),
            bounce: None,
            zeroing,
        })
    }
}

/// Whether there is nothing to do: no bytes, or a disk that was never written to flush.
fn is_empty(job: &Job, info: BlockInfo) -> bool {
    match job.work {
        Work::Flush => info.read_only,
        Work::Read | Work::Write | Work::Discard | Work::Zero(_) => job.len == 0,
    }
}

impl BlockBackend for Disk {
    fn info(&self) -> BlockInfo {
        self.core.image.info()
    }

    fn connect(&self, to: Weak<dyn BlockCompletions>) {
        self.core.sink.connect(to);
    }

    fn submit(&self, requests: Vec<BlockRequest>) {
        self.core.sink.taken(requests.len());
        let mut jobs = Vec::with_capacity(requests.len());
        let mut done = Vec::new();
        let info = self.core.image.info();
        for request in &requests {
            match self.job(request) {
                Ok(job) if is_empty(&job, info) => {
                    done.push(BlockCompletion { token: request.token, result: Ok(()) });
                }
                Ok(job) => jobs.push(job),
                Err(error) => {
                    done.push(BlockCompletion { token: request.token, result: Err(error) });
                }
            }
        }
        if !jobs.is_empty() {
            match &self.gate {
                None => self.core.start(jobs),
                Some(gate) => gate.pass(jobs),
            }
        }
        self.core.sink.tell(&done);
    }

    fn poll(&self) {
        self.core.engine.poll();
    }

    fn drain(&self) {
        if let Some(gate) = &self.gate {
            gate.open();
        }
        self.core.sink.drain();
    }
}
