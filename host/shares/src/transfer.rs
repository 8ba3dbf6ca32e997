//! Bytes of a request in guest memory.

use kasane_memory::{GuestMemory, MemoryError};
use kasane_ports::GuestRange;

/// Bytes of all ranges.
pub(crate) fn len(ranges: &[GuestRange]) -> u64 {
    ranges.iter().fold(0, |sum, range| sum.saturating_add(range.len.into()))
}

/// The first bytes of the ranges, as many as `bytes` takes: how many there were.
pub(crate) fn read(
    memory: &dyn GuestMemory,
    ranges: &[GuestRange],
    bytes: &mut [u8],
) -> Result<usize, MemoryError> {
    let mut done = 0usize;
    for range in ranges {
        let end = done.saturating_add(range.len as usize).min(bytes.len());
        let Some(to) = bytes.get_mut(done..end) else { break };
        memory.read(range.gpa, to)?;
        done = end;
    }
    Ok(done)
}

/// Fills the ranges with `bytes` from their beginning on: for how many there was room.
pub(crate) fn write(
    memory: &dyn GuestMemory,
    ranges: &[GuestRange],
    bytes: &[u8],
) -> Result<usize, MemoryError> {
    let mut done = 0usize;
    for range in ranges {
        let end = done.saturating_add(range.len as usize).min(bytes.len());
        let Some(from) = bytes.get(done..end) else { break };
        memory.write(range.gpa, from)?;
        done = end;
    }
    Ok(done)
}
