//! The same where files are read and written through a buffer.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use kasane_memory::PinnedPiece;

use super::{Patience, read_at, write_at};

/// Bytes that go through the buffer at once.
const CHUNK: usize = 1 << 18;

/// Memory for one call.
#[derive(Default)]
pub(crate) struct Vectors(Vec<PinnedPiece>);

// SAFETY: addresses and lengths only; who makes the call vouches for the memory.
unsafe impl Send for Vectors {}
// SAFETY: as above.
unsafe impl Sync for Vectors {}

impl Vectors {
    /// Takes as many of these pieces as go through the buffer, and no more than `limit` bytes.
    pub(crate) fn set(&mut self, pieces: impl Iterator<Item = PinnedPiece>, limit: u64) {
        let mut left = limit.min(CHUNK as u64);
        self.0.clear();
        for piece in pieces {
            let len = left.min(piece.len as u64);
            if len == 0 {
                break;
            }
            left = left.saturating_sub(len);
            self.0.push(PinnedPiece { len: len as usize, ..piece });
        }
    }
    /// Takes one buffer of the host's.
    pub(crate) fn set_buffer(&mut self, host: *mut u8, len: usize) {
        self.0.clear();
        self.0.push(PinnedPiece { host, len: len.min(CHUNK) });
    }
    pub(crate) fn is_aligned(&self, _align: usize) -> bool {
        true
    }
    fn len(&self) -> usize {
        self.0.iter().map(|piece| piece.len).sum()
    }
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
    if patience == Patience::None {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let mut buffer = vec![0; into.len()];
    let came = read_at(file, &mut buffer, offset)?;
    let mut from = buffer.get(..came).unwrap_or_default();
    for piece in &into.0 {
        let Some((part, rest)) = from.split_at_checked(piece.len.min(from.len())) else { break };
        // SAFETY: `part` is no longer than the piece, which the caller vouches for.
        unsafe { part.as_ptr().copy_to_nonoverlapping(piece.host, part.len()) };
        from = rest;
    }
    Ok(came)
}

/// Writes once from the pieces to `offset`; gives how many bytes went.
///
/// # Safety
/// The pieces of `from` are memory that stays valid during the call and of which there is no
/// exclusive reference.
pub(crate) unsafe fn write_vectors(file: &File, from: &Vectors, offset: u64) -> io::Result<usize> {
    let mut buffer = vec![0u8; from.len()];
    let mut into = buffer.as_mut_slice();
    for piece in &from.0 {
        let Some((part, rest)) = into.split_at_mut_checked(piece.len) else { break };
        // SAFETY: `part` is as long as the piece, which the caller vouches for.
        unsafe { piece.host.copy_to_nonoverlapping(part.as_mut_ptr(), part.len()) };
        into = rest;
    }
    write_at(file, &buffer, offset)?;
    Ok(buffer.len())
}

pub(crate) fn punch_hole(_file: &File, _offset: u64, _len: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn zero_range(_file: &File, _offset: u64, _len: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// What a file wants of requests that pass the host's cache by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alignment {
    pub(crate) memory: usize,
    pub(crate) offset: usize,
}

pub(crate) fn open_direct(_options: &mut OpenOptions, _path: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn direct_alignment(_file: &File) -> io::Result<Alignment> {
    Err(io::ErrorKind::Unsupported.into())
}
