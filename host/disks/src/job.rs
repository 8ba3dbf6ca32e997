//! A request on its way: what is asked for, how far it is, and the memory that it holds.

use std::io;

use kasane_memory::PinnedMemory;
use kasane_ports::{BlockCompletion, BlockError, ZeroedSpace};

use crate::sys::Vectors;

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Read,
    Write,
    Flush,
    Discard,
    Zero(ZeroedSpace),
}

/// A request that was checked: its range is on the disk, and its memory is there.
pub(crate) struct Job {
    pub(crate) token: u64,
    pub(crate) work: Work,
    /// First byte on the disk.
    pub(crate) offset: u64,
    /// Bytes; for `Read` and `Write` as many as there is memory.
    pub(crate) len: u64,
    /// Bytes that are done.
    pub(crate) done: u64,
    pub(crate) memory: Option<PinnedMemory>,
    /// The memory of the next call.
    pub(crate) vectors: Vectors,
    /// A buffer that stands in for the guest's memory.
    pub(crate) bounce: Option<Bounce>,
    /// Which way of making zeros is tried.
    pub(crate) zeroing: Zeroing,
}

/// The ways of making zeros, each tried if the host lacks the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zeroing {
    Punch,
    Range,
    Write,
}

/// What is left to do.
#[derive(Debug)]
pub(crate) enum Step {
    /// Another call.
    Again,
    /// Nothing.
    Done(Result<(), Failed>),
}

/// Why a request failed: for the guest, and for the person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) error: BlockError,
    pub(crate) why: String,
}

impl Failed {
    pub(crate) fn new(error: BlockError, why: impl Into<String>) -> Self {
        Self { error, why: why.into() }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => BlockError::NoSpace,
            io::ErrorKind::ReadOnlyFilesystem => BlockError::ReadOnly,
            io::ErrorKind::Unsupported => BlockError::Unsupported,
            _ => BlockError::Io,
        };
        Self::new(kind, error.to_string())
    }
}

impl Job {
    /// Bytes that are left to do.
    pub(crate) fn left(&self) -> u64 {
        self.len.saturating_sub(self.done)
    }
    /// Where on the disk it goes on.
    pub(crate) fn at(&self) -> u64 {
        self.offset.saturating_add(self.done)
    }
    /// Sets the memory of the next call: what is left, at most `limit` bytes.
    pub(crate) fn aim(&mut self, limit: u64) {
        let limit = limit.min(self.left());
        if let Some(memory) = &self.memory {
            self.vectors.set(memory.pieces_from(self.done), limit);
        }
    }
    /// Fills what is left of the guest's memory with zeros.
    pub(crate) fn zero_the_rest(&mut self) {
        let left = self.left();
        if let Some(memory) = &self.memory {
            memory.zero(self.done, left);
        }
        self.done = self.len;
    }
    /// Lets the memory go, which notes what was written to it, and gives what is to be told.
    pub(crate) fn finish(self, result: &Result<(), Failed>) -> BlockCompletion {
        drop(self.memory);
        let result = result.as_ref().map_err(|failed| failed.error).copied();
        BlockCompletion { token: self.token, result }
    }
}

/// Bytes of a bounce buffer at most: longer requests go through it in parts.
const BOUNCE_MAX: u64 = 1 << 20;

/// A buffer whose beginning is aligned.
pub(crate) struct Bounce {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Bounce {
    /// Zeroed, of `len` bytes (but no more than 1 MiB), at a multiple of `align`.
    pub(crate) fn new(len: u64, align: usize) -> Self {
        let len = len.min(BOUNCE_MAX) as usize;
        let bytes = vec![0; len.saturating_add(align)];
        let start = bytes.as_ptr().align_offset(align.max(1)).min(align);
        Self { bytes, start, len }
    }
    /// Its bytes.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        let end = self.start.saturating_add(self.len);
        self.bytes.get_mut(self.start..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_hosts_reasons_become_the_guests() {
        let error = |code| Failed::from(io::Error::from_raw_os_error(code)).error;

        assert_eq!(error(libc::ENOSPC), BlockError::NoSpace);
        assert_eq!(error(libc::EDQUOT), BlockError::NoSpace);
        assert_eq!(error(libc::EROFS), BlockError::ReadOnly);
        assert_eq!(error(libc::EOPNOTSUPP), BlockError::Unsupported);
        assert_eq!(error(libc::EIO), BlockError::Io);
    }

    #[test]
    fn a_bounce_buffer_is_aligned_and_bounded() {
        let mut long = Bounce::new(u64::MAX, 4096);
        let mut short = Bounce::new(512, 512);

        assert!(long.bytes().as_ptr().addr().is_multiple_of(4096));
        assert_eq!(long.bytes().len(), 1 << 20);
        assert!(short.bytes().as_ptr().addr().is_multiple_of(512));
        assert_eq!(short.bytes(), [0; 512]);
    }
}
