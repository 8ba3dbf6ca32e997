//! The calls of Linux.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use kasane_memory::PinnedPiece;
use rustix::fs::FallocateFlags;

use super::Patience;

/// Pieces that one call takes at most (`UIO_MAXIOV`).
const PIECES_MAX: usize = 1024;

/// Memory for one call, as the kernel wants it described.
#[derive(Default)]
pub(crate) struct Vectors(Vec<libc::iovec>);

// SAFETY: addresses and lengths only; who makes the call vouches for the memory.
unsafe impl Send for Vectors {}
// SAFETY: as above.
unsafe impl Sync for Vectors {}

impl Vectors {
    /// Takes as many of these pieces as one call can, and no more than `limit` bytes.
    pub(crate) fn set(&mut self, pieces: impl Iterator<Item = PinnedPiece>, limit: u64) {
        let mut left = limit;
        self.0.clear();
        for piece in pieces.take(PIECES_MAX) {
            let len = left.min(piece.len as u64);
            if len == 0 {
                break;
            }
            left = left.saturating_sub(len);
            self.0.push(libc::iovec { iov_base: piece.host.cast(), iov_len: len as usize });
        }
    }
    /// Takes one buffer of the host's.
    pub(crate) fn set_buffer(&mut self, host: *mut u8, len: usize) {
        self.0.clear();
        self.0.push(libc::iovec { iov_base: host.cast(), iov_len: len });
    }
    /// Where the description is; valid until it is set again.
    pub(crate) fn as_ptr(&self) -> *const libc::iovec {
        self.0.as_ptr()
    }
    /// How many pieces there are, at most 1024.
    pub(crate) fn count(&self) -> u32 {
        self.0.len() as u32
    }
    /// Whether every piece begins and ends at a multiple of `align` bytes.
    pub(crate) fn is_aligned(&self, align: usize) -> bool {
        let whole = |n: usize| n.is_multiple_of(align);
        self.0.iter().all(|piece| whole(piece.iov_base as usize) && whole(piece.iov_len))
    }
}

fn flags(patience: Patience) -> libc::c_int {
    match patience {
        Patience::None => libc::RWF_NOWAIT,
        Patience::Full => 0,
    }
}

fn outcome(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Reads once from `offset` into the pieces; gives how many bytes came.
///
/// # Safety
/// The pieces of `into` are memory that stays valid during the call, may be written, and of which
/// there is no reference.
pub(crate) unsafe fn read_vectors(
    file: &File,
    into: &Vectors,
    offset: u64,
    patience: Patience,
) -> io::Result<usize> {
    let (fd, at) = (file.as_raw_fd(), offset as libc::off_t);
    let count = into.count() as libc::c_int;
    // SAFETY: the description has `count` entries; the caller vouches for the memory.
    outcome(unsafe { libc::preadv2(fd, into.as_ptr(), count, at, flags(patience)) })
}

/// Writes once from the pieces to `offset`; gives how many bytes went.
///
/// # Safety
/// The pieces of `from` are memory that stays valid during the call and of which there is no
/// exclusive reference.
pub(crate) unsafe fn write_vectors(file: &File, from: &Vectors, offset: u64) -> io::Result<usize> {
    let (fd, at) = (file.as_raw_fd(), offset as libc::off_t);
    // SAFETY: the description has that many entries; the caller vouches for the memory.
    outcome(unsafe { libc::pwritev(fd, from.as_ptr(), from.count() as libc::c_int, at) })
}

/// Gives a range's space back; it reads as zeros.
pub(crate) fn punch_hole(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(rustix::fs::fallocate(file, flags, offset, len)?)
}

/// A range reads as zeros and keeps its space.
pub(crate) fn zero_range(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
    Ok(rustix::fs::fallocate(file, flags, offset, len)?)
}

/// What a file wants of requests that pass the page cache by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alignment {
    /// Of addresses in memory, in bytes.
    pub(crate) memory: usize,
    /// Of offsets and lengths, in bytes.
    pub(crate) offset: usize,
}

/// Opens a file past the page cache.
pub(crate) fn open_direct(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.custom_flags(libc::O_DIRECT).open(path)
}

/// The alignment that direct I/O on `file` needs: what the kernel says (since Linux 6.1), or else
/// what nearly every device takes.
pub(crate) fn direct_alignment(file: &File) -> io::Result<Alignment> {
    // SAFETY: all-zero bytes are a valid `statx`.
    let mut answer: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor, an empty path with the flag that allows it, and room for the
    // answer.
    let refused = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            &raw mut answer,
        )
    };
    if refused != 0 {
        return Err(io::Error::last_os_error());
    }
    if answer.stx_mask & libc::STATX_DIOALIGN == 0 {
        return Ok(Alignment { memory: 4096, offset: 512 });
    }
    let (memory, offset) =
        (answer.stx_dio_mem_align as usize, answer.stx_dio_offset_align as usize);
    if memory == 0 || offset == 0 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(Alignment { memory, offset })
}
