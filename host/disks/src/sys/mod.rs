//! What the host does with files, at positions and in pieces of memory by address.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod other;

#[cfg(target_os = "linux")]
pub(crate) use linux::{
    Alignment, Vectors, direct_alignment, open_direct, punch_hole, read_vectors, write_vectors,
    zero_range,
};
#[cfg(not(target_os = "linux"))]
pub(crate) use other::{
    Alignment, Vectors, direct_alignment, open_direct, punch_hole, read_vectors, write_vectors,
    zero_range,
};

use std::fs::File;
use std::io;

/// Whether a call may wait for the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// What isn't at hand is [`io::ErrorKind::WouldBlock`].
    None,
    /// It may.
    Full,
}

/// Whether the host lacks an operation for a file, so that there must be another way.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    #[cfg(target_os = "linux")]
    if matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENODEV | libc::EINVAL | libc::ENOTTY)
    ) {
        return true;
    }
    error.kind() == io::ErrorKind::Unsupported
}

/// Reads until `buf` is full or the file ends; gives how many bytes there were.
pub(crate) fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0usize;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match read_once(file, rest, offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(n) => done = done.saturating_add(n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Writes all of `data`.
pub(crate) fn write_at(file: &File, data: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0usize;
    while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
        match write_once(file, rest, offset.saturating_add(done as u64)) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => done = done.saturating_add(n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(unix)]
fn read_once(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buf, offset)
}

#[cfg(unix)]
fn write_once(file: &File, data: &[u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::write_at(file, data, offset)
}

#[cfg(windows)]
fn read_once(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buf, offset)
}

#[cfg(windows)]
fn write_once(file: &File, data: &[u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, data, offset)
}
