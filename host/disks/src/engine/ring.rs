//! Jobs of a raw image by `io_uring`: the kernel does them, and one thread hears of their end.
//!
//! Requests that don't wait are done by the thread that submits them and never come here (see
//! `disk`), so the ring is for those that take long: reads of what isn't cached, direct I/O,
//! flushes, space given back. All queues of the guest share the ring, under a lock that is held
//! while entries are written and handed over. Completions are taken by the reaper, which lies in
//! the ring until there is one, or by a vCPU's thread that waits anyway and looks first
//! ([`Engine::poll`]): it is the one that the kernel has post them, if it submitted them, and to
//! wake the reaper and then the vCPU takes longer than many a request.
//!
//! A ring can do what a system call can, and seccomp doesn't see it. So it is restricted, before
//! it is enabled and for good (`io_uring_register(2)`, `IORING_REGISTER_RESTRICTIONS`): vectored
//! reads and writes, fsync and fallocate, on the one file that is registered. It can't open,
//! connect, or be given another file.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use io_uring::register::Restriction;
use io_uring::types::{Fixed, FsyncFlags};
use io_uring::{IoUring, cqueue, opcode, squeue};
use kasane_ports::BlockError;
use parking_lot::Mutex;

use super::Engine;
use crate::image::Image;
use crate::job::{Failed, Job, Step};
use crate::raw::{Call, RawImage};
use crate::sink::Sink;
use crate::sys;

/// Jobs in the kernel at once.
const DEPTH: u32 = 256;
/// The entry that wakes the reaper to end it.
const STOP: u64 = u64::MAX;
/// The image's place in the table of registered files.
const IMAGE: Fixed = Fixed(0);

struct Slots {
    /// Jobs in the kernel, by the entry's user data.
    running: Vec<Option<Job>>,
    free: Vec<usize>,
    /// Jobs that wait for a place.
    waiting: VecDeque<Job>,
    closed: bool,
    /// The kernel takes nothing any more: nothing may be begun, and nothing that it has may be
    /// freed.
    broken: bool,
}

struct Shared {
    slots: Mutex<Slots>,
    /// Held while completions are taken.
    arrivals: Mutex<()>,
    ring: IoUring,
    image: Arc<RawImage>,
    sink: Arc<Sink>,
}

/// A ring with its reaper. Dropping it waits for what is in the kernel.
pub(crate) struct Ring {
    shared: Arc<Shared>,
    reaper: Option<JoinHandle<()>>,
}

/// The kernel takes its time to tear a ring down, and until then the ring's files are open. So it
/// gets an open file of its own, without the lock: the image is free as soon as we close ours, or
/// are killed. (Requests are ended before a process's files are closed.)
fn file_of_its_own(image: &RawImage) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(!image.info().read_only);
    let path = format!("/proc/self/fd/{}", image.file().as_raw_fd());
    if image.is_direct() {
        sys::open_direct(&mut options, Path::new(&path))
    } else {
        options.open(path)
    }
}

fn restricted(image: &RawImage) -> io::Result<IoUring> {
    let file = file_of_its_own(image)?;
    let ring = IoUring::builder().dontfork().setup_r_disabled().build(2 * DEPTH)?;
    let submitter = ring.submitter();
    submitter.register_files(&[file.as_raw_fd()])?;
    let fixed = squeue::Flags::FIXED_FILE.bits();
    submitter.register_restrictions(&mut [
        Restriction::sqe_op(opcode::Readv::CODE),
        Restriction::sqe_op(opcode::Writev::CODE),
        Restriction::sqe_op(opcode::Fsync::CODE),
        Restriction::sqe_op(opcode::Fallocate::CODE),
        Restriction::sqe_flags_required(fixed),
    ])?;
    submitter.register_enable_rings()?;
    Ok(ring)
}

impl Ring {
    /// A ring for this image.
    ///
    /// # Errors
    /// The kernel has none, or none that can be restricted (before Linux 5.10), or doesn't let us.
    pub(crate) fn new(image: Arc<RawImage>, sink: Arc<Sink>) -> io::Result<Self> {
        let ring = restricted(&image)?;
        let running = std::iter::repeat_with(|| None).take(DEPTH as usize).collect();
        let slots = Slots {
            running,
            free: (0..DEPTH as usize).collect(),
            waiting: VecDeque::new(),
            closed: false,
            broken: false,
        };
        let (slots, arrivals) = (Mutex::new(slots), Mutex::new(()));
        let shared = Arc::new(Shared { slots, arrivals, ring, image, sink });
        let theirs = Arc::clone(&shared);
        let reaper =
            thread::Builder::new().name("disk ring".into()).spawn(move || theirs.reap())?;
        Ok(Self { shared, reaper: Some(reaper) })
    }
}

impl Engine for Ring {
    fn start(&self, jobs: Vec<Job>) {
        self.shared.begin(jobs);
    }
    fn poll(&self) {
        let Some(arrivals) = self.shared.arrivals.try_lock() else { return };
        let arrived = self.shared.take_arrived();
        drop(arrivals);
        self.shared.finish(&arrived);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let mut slots = self.shared.slots.lock();
        slots.closed = true;
        // An empty read, the cheapest of what is allowed.
        let stop = opcode::Readv::new(IMAGE, std::ptr::null(), 0).build().user_data(STOP);
        let woken = self.shared.push(&stop).and_then(|()| self.shared.hand_over());
        drop(slots);
        // The last one to let a disk go may be the reaper itself, in a completion.
        if let Some(reaper) = self.reaper.take()
            && woken.is_ok()
            && reaper.thread().id() != thread::current().id()
        {
            let _panicked = reaper.join();
        }
    }
}

impl Shared {
    /// Hands jobs to the kernel, as far as it has room.
    fn begin(&self, jobs: impl IntoIterator<Item = Job>) {
        let mut slots = self.slots.lock();
        slots.waiting.extend(jobs);
        let began = self.fill(&mut slots);
        let lost = match began {
            Ok(()) => Vec::new(),
            Err(error) => slots.give_up(&error),
        };
        drop(slots);
        self.sink.finish(lost);
    }

    fn fill(&self, slots: &mut Slots) -> io::Result<()> {
        if slots.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut some = false;
        while let (Some(mut job), Some(place)) = take_pair(slots) {
            let entry = entry(self.image.next(&mut job), &job).user_data(place as u64);
            if let Some(slot) = slots.running.get_mut(place) {
                *slot = Some(job);
            }
            self.push(&entry)?;
            some = true;
        }
        if some { self.hand_over() } else { Ok(()) }
    }

    fn push(&self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: only called under the lock of `slots` (or, in `drop`, likewise), so there is one
        // submission queue at a time.
        let mut queue = unsafe { self.ring.submission_shared() };
        // SAFETY: what the entry points to belongs to a job in `slots.running`, which stays there
        // until the entry's completion has come.
        let pushed = unsafe { queue.push(entry) };
        // There are twice as many entries as places.
        pushed.map_err(|_| io::ErrorKind::OutOfMemory.into())
    }

    fn hand_over(&self) -> io::Result<()> {
        loop {
            match self.ring.submit() {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The kernel is short of something just now; the reaper hands over what is left
                // before it waits again.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY)) => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The reaper's thread.
    fn reap(&self) {
        loop {
            if let Err(error) = self.ring.submit_and_wait(1)
                && !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
            {
                let lost = self.slots.lock().give_up(&error);
                self.sink.finish(lost);
                return;
            }
            let arrivals = self.arrivals.lock();
            let arrived = self.take_arrived();
            drop(arrivals);
            self.finish(&arrived);
            let slots = self.slots.lock();
            if slots.closed && slots.is_idle() {
                return;
            }
        }
    }
}

impl Shared {
    /// The caller holds the lock of `arrivals`.
    fn take_arrived(&self) -> Vec<cqueue::Entry> {
        // SAFETY: under the lock of `arrivals` there is one completion queue at a time.
        unsafe { self.ring.completion_shared() }.collect()
    }

    /// Ends the jobs of these completions, or makes their next calls.
    fn finish(&self, arrived: &[cqueue::Entry]) {
        if arrived.is_empty() {
            return;
        }
        let mut slots = self.slots.lock();
        let jobs: Vec<_> = arrived
            .iter()
            .filter_map(|entry| Some((slots.take(entry.user_data())?, entry.result())))
            .collect();
        drop(slots);
        let mut ended = Vec::with_capacity(jobs.len());
        let mut again = Vec::new();
        for (mut job, result) in jobs {
            let result = usize::try_from(result)
                .map_err(|_| io::Error::from_raw_os_error(result.saturating_neg()));
            match self.image.advance(&mut job, result) {
                Step::Again => again.push(job),
                Step::Done(result) => ended.push((job, result)),
            }
        }
        self.begin(again);
        self.sink.finish(ended);
    }
}

fn take_pair(slots: &mut Slots) -> (Option<Job>, Option<usize>) {
    if slots.waiting.is_empty() || slots.free.is_empty() {
        return (None, None);
    }
    (slots.waiting.pop_front(), slots.free.pop())
}

fn entry(call: Call, job: &Job) -> squeue::Entry {
    let (vectors, count) = (job.vectors.as_ptr(), job.vectors.count());
    match call {
        Call::Read(at) => opcode::Readv::new(IMAGE, vectors, count).offset(at).build(),
        Call::Write(at) => opcode::Writev::new(IMAGE, vectors, count).offset(at).build(),
        Call::Sync => opcode::Fsync::new(IMAGE).flags(FsyncFlags::DATASYNC).build(),
        Call::Punch => {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            opcode::Fallocate::new(IMAGE, job.len).offset(job.offset).mode(mode).build()
        }
        Call::ZeroRange => {
            let mode = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
            opcode::Fallocate::new(IMAGE, job.len).offset(job.offset).mode(mode).build()
        }
    }
}

impl Slots {
    fn take(&mut self, place: u64) -> Option<Job> {
        let place = usize::try_from(place).ok()?;
        let job = self.running.get_mut(place)?.take()?;
        self.free.push(place);
        Some(job)
    }
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.free.len() == self.running.len()
    }
    /// The kernel refuses the ring itself: everything fails. What the kernel has already may still
    /// be read or filled by it, so its memory is never given back.
    fn give_up(&mut self, error: &io::Error) -> Vec<(Job, Result<(), Failed>)> {
        self.broken = true;
        let failed = Failed::new(BlockError::Io, format!("the ring of the host failed: {error}"));
        let mut lost = Vec::new();
        for mut job in self.running.iter_mut().filter_map(Option::take) {
            std::mem::forget((job.memory.take(), job.bounce.take()));
            std::mem::forget(std::mem::take(&mut job.vectors));
            lost.push((job, Err(failed.clone())));
        }
        self.free = (0..self.running.len()).collect();
        lost.extend(self.waiting.drain(..).map(|job| (job, Err(failed.clone()))));
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{DiskAccess, HostCache};
    use std::ffi::CString;

    fn image(name: &str) -> RawImage {
        let path = std::env::temp_dir().join(format!("kasane-ring-{}-{name}", std::process::id()));
        std::fs::write(&path, [7; 4096]).unwrap();
        let image = RawImage::open(&path, DiskAccess::ReadWrite, HostCache::PageCache).unwrap();
        std::fs::remove_file(path).unwrap();
        image
    }

    fn result_of(ring: &mut IoUring, entry: &squeue::Entry) -> i32 {
        // SAFETY: the callers' entries point to what outlives this call, which waits for the end.
        unsafe { ring.submission().push(entry) }.unwrap();
        ring.submit_and_wait(1).unwrap();
        ring.completion().next().unwrap().result()
    }

    #[test]
    fn the_ring_opens_and_connects_nothing() {
        let image = image("restricted");
        let mut ring = restricted(&image).unwrap();
        let path = CString::new("/dev/null").unwrap();
        let mut byte = 0u8;

        let open = opcode::OpenAt::new(io_uring::types::Fd(libc::AT_FDCWD), path.as_ptr()).build();
        let socket = opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).build();
        let unregistered =
            opcode::Read::new(io_uring::types::Fd(image.file().as_raw_fd()), &raw mut byte, 1);
        let fixed = opcode::Readv::new(IMAGE, std::ptr::null(), 0).build();

        assert_eq!(result_of(&mut ring, &open), -libc::EACCES);
        assert_eq!(result_of(&mut ring, &socket), -libc::EACCES);
        assert_eq!(result_of(&mut ring, &unregistered.build()), -libc::EACCES);
        assert_eq!(result_of(&mut ring, &fixed), 0);
        let other = ring.submitter().register_files_update(0, &[0]);
        assert_eq!(other.unwrap_err().raw_os_error(), Some(libc::EACCES));
    }
}
