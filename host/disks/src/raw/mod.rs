//! Raw images: the disk's bytes as they are, in a file or a block device.
//!
//! A request becomes one call of the host or a few ([`RawImage::next`]), and what a call gives
//! becomes the request's end or its next call ([`RawImage::advance`]). Who makes the call is
//! another matter: the thread that submitted it, a worker, or the kernel by a ring.

mod open;

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use kasane_ports::{BlockError, BlockInfo, ZeroedSpace};

use crate::image::Image;
use crate::job::{Bounce, Failed, Job, Step, Work, Zeroing};
use crate::sys::{self, Alignment, Patience};

pub(crate) use open::{FileKind, kind_of, open_file};

/// A call of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Read at the offset into the job's vectors.
    Read(u64),
    /// Write the job's vectors to the offset.
    Write(u64),
    /// Make everything durable.
    Sync,
    /// Give the job's range back.
    Punch,
    /// Make the job's range zeros.
    ZeroRange,
}

/// An open raw image.
pub(crate) struct RawImage {
    file: File,
    info: BlockInfo,
    /// Length of the file when it was opened: the last sector may be cut off.
    end: u64,
    /// What the file wants if it is read and written past the page cache.
    direct: Option<Alignment>,
    /// The host can say whether data is at hand.
    asks_cache: AtomicBool,
}

impl RawImage {
    #[cfg(target_os = "linux")]
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Whether it passes the page cache by.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// The next call of a job, whose vectors are set for it.
    pub(crate) fn next(&self, job: &mut Job) -> Call {
        match job.work {
            Work::Flush => Call::Sync,
            Work::Discard => Call::Punch,
            Work::Zero(_) if job.zeroing == Zeroing::Punch => Call::Punch,
            Work::Zero(_) if job.zeroing == Zeroing::Range => Call::ZeroRange,
            Work::Zero(_) => {
                self.bounce(job);
                Call::Write(job.at())
            }
            Work::Read | Work::Write => {
                self.aim(job);
                if job.work == Work::Read { Call::Read(job.at()) } else { Call::Write(job.at()) }
            }
        }
    }

    /// Sets the vectors: the guest's memory, unless the host can't take it from there.
    fn aim(&self, job: &mut Job) {
        if job.bounce.is_none() {
            job.aim(u64::MAX);
            match self.direct {
                Some(align) if !job.vectors.is_aligned(align.memory.max(align.offset)) => {}
                Some(_) | None => return,
            }
        }
        self.bounce(job);
        if let (Work::Write, Some(memory), Some(bounce)) = (job.work, &job.memory, &mut job.bounce)
        {
            memory.copy_to(job.done, bounce.bytes());
        }
    }

    fn bounce(&self, job: &mut Job) {
        let left = job.left();
        let align = self.direct.map_or(1, |align| align.memory.max(align.offset));
        let bounce = job.bounce.get_or_insert_with(|| Bounce::new(left, align));
        let bytes = bounce.bytes();
        let len = (bytes.len() as u64).min(left) as usize;
        job.vectors.set_buffer(bytes.as_mut_ptr(), len);
    }

    /// What a call gave: so many bytes, or an error. A call that wasn't made, or was interrupted,
    /// is made again.
    pub(crate) fn advance(&self, job: &mut Job, result: io::Result<usize>) -> Step {
        let result = match result {
            Err(error) if is_transient(&error) => return Step::Again,
            other => other,
        };
        match (job.work, result) {
            (Work::Read, Ok(bytes)) => self.was_read(job, bytes),
            (Work::Write, Ok(bytes)) => was_written(job, bytes),
            (Work::Zero(_), Ok(bytes)) if job.zeroing == Zeroing::Write => was_written(job, bytes),
            (Work::Flush | Work::Discard | Work::Zero(_), Ok(_)) => Step::Done(Ok(())),
            // There is no promise about discarded ranges.
            (Work::Discard, Err(error)) if sys::is_unsupported(&error) => Step::Done(Ok(())),
            (Work::Zero(_), Err(error))
                if job.zeroing != Zeroing::Write && sys::is_unsupported(&error) =>
            {
                job.zeroing = match job.zeroing {
                    Zeroing::Punch => Zeroing::Range,
                    Zeroing::Range | Zeroing::Write => Zeroing::Write,
                };
                Step::Again
            }
            (_, Err(error)) => Step::Done(Err(error.into())),
        }
    }

    fn was_read(&self, job: &mut Job, bytes: usize) -> Step {
        if let (Some(memory), Some(bounce)) = (&job.memory, &mut job.bounce) {
            memory.copy_from(job.done, bounce.bytes().get(..bytes).unwrap_or_default());
        }
        job.done = job.done.saturating_add(bytes as u64).min(job.len);
        if job.left() > 0 && job.at() >= self.end {
            job.zero_the_rest();
        }
        if job.left() == 0 {
            return Step::Done(Ok(()));
        }
        if bytes == 0 {
            let why = format!("the image became shorter than {} bytes", self.end);
            return Step::Done(Err(Failed::new(BlockError::Io, why)));
        }
        Step::Again
    }

    /// Makes a call on this thread.
    fn call(&self, job: &Job, call: Call, patience: Patience) -> io::Result<usize> {
        match call {
            // SAFETY: the vectors are memory that `job` has pinned or its own bounce buffer, both
            // alive here and raw; `pin` checked that the guest's may be written.
            Call::Read(at) => unsafe { sys::read_vectors(&self.file, &job.vectors, at, patience) },
            // SAFETY: as above.
            Call::Write(at) => unsafe { sys::write_vectors(&self.file, &job.vectors, at) },
            Call::Sync => self.file.sync_data().map(|()| 0),
            Call::Punch => sys::punch_hole(&self.file, job.offset, job.len).map(|()| 0),
            Call::ZeroRange => sys::zero_range(&self.file, job.offset, job.len).map(|()| 0),
        }
    }
}

fn was_written(job: &mut Job, bytes: usize) -> Step {
    job.done = job.done.saturating_add(bytes as u64).min(job.len);
    match (bytes, job.left()) {
        (_, 0) => Step::Done(Ok(())),
        (0, _) => Step::Done(Err(Failed::new(BlockError::Io, "the host wrote nothing"))),
        _ => Step::Again,
    }
}

/// Errors that say nothing about the request: a signal came, or the thread that submitted it ended
/// before the kernel got to it.
fn is_transient(error: &io::Error) -> bool {
    #[cfg(target_os = "linux")]
    if matches!(error.raw_os_error(), Some(libc::ECANCELED | libc::EAGAIN)) {
        return true;
    }
    error.kind() == io::ErrorKind::Interrupted
}

impl Image for RawImage {
    fn info(&self) -> BlockInfo {
        self.info
    }

    fn zeroing(&self, space: ZeroedSpace) -> Zeroing {
        match space {
            ZeroedSpace::Release => Zeroing::Punch,
            ZeroedSpace::Keep => Zeroing::Range,
        }
    }

    fn quick(&self, job: &mut Job) -> Option<Result<(), Failed>> {
        let patience = match job.work {
            _ if self.direct.is_some() => return None,
            Work::Read if !self.asks_cache.load(Ordering::Relaxed) => return None,
            Work::Read => Patience::None,
            Work::Write => Patience::Full,
            Work::Flush | Work::Discard | Work::Zero(_) => return None,
        };
        loop {
            let call = self.next(job);
            let result = self.call(job, call, patience);
            match &result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if patience == Patience::None && sys::is_unsupported(error) => {
                    self.asks_cache.store(false, Ordering::Relaxed);
                    return None;
                }
                _ => {}
            }
            if let Step::Done(result) = self.advance(job, result) {
                return Some(result);
            }
        }
    }

    fn run(&self, job: &mut Job) -> Result<(), Failed> {
        loop {
            let call = self.next(job);
            let result = self.call(job, call, Patience::Full);
            if let Step::Done(result) = self.advance(job, result) {
                return result;
            }
        }
    }
}
