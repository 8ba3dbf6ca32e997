//! Bytes of a chain: its ranges seen as one piece.

use alloc::vec::Vec;

use kasane_memory::{GuestMemory, MemoryError};
use kasane_ports::GuestRange;

/// Bytes of all ranges.
#[must_use]
pub fn len(ranges: &[GuestRange]) -> u64 {
    ranges.iter().fold(0, |sum, range| sum.saturating_add(range.len.into()))
}

/// The ranges of `len` bytes from `from` on; fewer where there are no more.
#[must_use]
pub fn part(ranges: &[GuestRange], from: u64, len: u64) -> Vec<GuestRange> {
    pieces(ranges, from, len).collect()
}

fn pieces(ranges: &[GuestRange], from: u64, len: u64) -> impl Iterator<Item = GuestRange> {
    let (mut skip, mut left) = (from, len);
    ranges.iter().filter_map(move |range| {
        let whole = u64::from(range.len);
        let before = skip.min(whole);
        skip = skip.saturating_sub(before);
        let take = whole.saturating_sub(before).min(left);
        left = left.saturating_sub(take);
        // At most the range's own length.
        let len = u32::try_from(take).unwrap_or(range.len);
        (len != 0).then(|| GuestRange { gpa: range.gpa.wrapping_add(before), len })
    })
}

/// Copies from the ranges, from byte `from` on, into `buf`: how many bytes there were.
///
/// # Errors
/// Some of it is not in memory.
pub fn gather(
    memory: &dyn GuestMemory,
    ranges: &[GuestRange],
    from: u64,
    buf: &mut [u8],
) -> Result<usize, MemoryError> {
    let mut done = 0usize;
    for piece in pieces(ranges, from, buf.len() as u64) {
        let end = done.saturating_add(piece.len as usize);
        if let Some(to) = buf.get_mut(done..end) {
            memory.read(piece.gpa, to)?;
        }
        done = end;
    }
    Ok(done)
}

/// Copies `data` into the ranges, from byte `from` on: for how many bytes there was room.
///
/// # Errors
/// Some of it is not in memory.
pub fn scatter(
    memory: &dyn GuestMemory,
    ranges: &[GuestRange],
    from: u64,
    data: &[u8],
) -> Result<usize, MemoryError> {
    let mut done = 0usize;
    for piece in pieces(ranges, from, data.len() as u64) {
        let end = done.saturating_add(piece.len as usize);
        if let Some(bytes) = data.get(done..end) {
            memory.write(piece.gpa, bytes)?;
        }
        done = end;
    }
    Ok(done)
}
