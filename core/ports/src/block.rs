//! Disks: requests by value, completions by token (DESIGN §4, "I/O is asynchronous by values").

use alloc::sync::Weak;
use alloc::vec::Vec;
use core::fmt;

/// A piece of guest memory that a request reads or fills: guest-physical, so that the request can
/// go to another thread or process. The guest may change its bytes at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestRange {
    /// First byte's guest-physical address.
    pub gpa: u64,
    /// Bytes.
    pub len: u32,
}

/// What a request asks for. Offsets and lengths are in bytes and multiples of 512.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockOperation {
    /// Disk to guest memory.
    Read,
    /// Guest memory to disk.
    Write,
    /// Everything that was completed before this request was submitted is made durable.
    Flush,
    /// The range's content is no longer needed; it may read as anything.
    Discard {
        /// Bytes.
        len: u64,
    },
    /// The range reads as zeros from now on.
    WriteZeroes {
        /// Bytes.
        len: u64,
        /// What the disk does with the space.
        space: ZeroedSpace,
    },
}

/// What becomes of the space that zeros were written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroedSpace {
    /// It stays allocated.
    Keep,
    /// It may be given back.
    Release,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRequest {
    /// Comes back with the completion. Chosen by who submits, unique among those under way.
    pub token: u64,
    /// The device's queue that it came by; a hint for backends with several workers.
    pub queue: u16,
    /// What to do.
    pub operation: BlockOperation,
    /// First byte on the disk.
    pub offset: u64,
    /// For `Read` and `Write`: the memory, in the disk's order. Empty for others.
    pub ranges: Vec<GuestRange>,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockError {
    /// The range is not on the disk.
    OutOfRange,
    /// The disk is read-only.
    ReadOnly,
    /// The backend can't do this operation.
    Unsupported,
    /// Some of the memory is not there.
    Memory,
    /// No space is left where the disk is stored.
    NoSpace,
    /// The place where the disk is stored failed.
    Io,
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfRange => "the range is not on the disk",
            Self::ReadOnly => "the disk is read-only",
            Self::Unsupported => "the disk can't do this",
            Self::Memory => "the request's memory is not there",
            Self::NoSpace => "no space is left where the disk is stored",
            Self::Io => "the disk's storage failed",
        })
    }
}

impl core::error::Error for BlockError {}

/// What a disk is, for the device that shows it. It doesn't change while a machine has it, but for
/// the capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// Size in bytes, a multiple of 512.
    pub capacity: u64,
    /// Writes are refused.
    pub read_only: bool,
    /// Preferred unit of writes in bytes: a power of two from 512.
    pub block_size: u32,
    /// Whether `Discard` does something.
    pub discard: bool,
}

/// What a disk's requests go to.
pub trait BlockBackend: Send + Sync {
    /// What the disk is.
    fn info(&self) -> BlockInfo;
    /// Where completions go; told once, before the first request. They come from any thread, also
    /// from inside `submit`, so who submits holds no lock that the receiver takes.
    fn connect(&self, to: Weak<dyn BlockCompletions>);
    /// Takes requests in order and returns soon. Each is completed exactly once, in any order,
    /// whatever happens; a flush covers what was *completed* before it was submitted.
    fn submit(&self, requests: Vec<BlockRequest>);
    /// Tells of what has ended by now, on this thread, without waiting: for a thread that waits for
    /// nothing else and would have to be woken by one that was woken itself. Never needed.
    fn poll(&self) {}
    /// Waits until nothing is under way, and all of it was told to the receiver: before a machine
    /// is saved or let go, and when its driver resets the device. Not called from `completed`.
    fn drain(&self);
}

/// Who waits for completions.
pub trait BlockCompletions: Send + Sync {
    /// These are done.
    fn completed(&self, done: &[BlockCompletion]);
}

/// The end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockCompletion {
    /// Whose.
    pub token: u64,
    /// How it ended.
    pub result: Result<(), BlockError>,
}
