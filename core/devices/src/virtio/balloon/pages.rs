//! Which pages a driver names.

use alloc::vec::Vec;

use kasane_memory::{GuestMemory, MemoryError};
use kasane_ports::GuestRange;
use kasane_spec_virtio::balloon::PAGE_SHIFT;

use crate::virtio::queue::{gather, len};

/// Bytes of a page of the balloon; the host takes back whole ones.
const PAGE: u64 = 1 << PAGE_SHIFT;
/// The most page numbers of a chain (Linux: 256).
const NUMBERS_MAX: u64 = 1 << 16;

/// A run of whole pages of RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Run {
    pub(super) gpa: u64,
    pub(super) len: u64,
}

/// Whole pages of `run` that are RAM.
fn of_ram(run: Run, ram: &[(u64, u64)]) -> impl Iterator<Item = Run> {
    let end = run.gpa.saturating_add(run.len);
    ram.iter().filter_map(move |(base, len)| {
        let start = run.gpa.max(*base).checked_next_multiple_of(PAGE)?;
        let end = end.min(base.saturating_add(*len)) & !(PAGE - 1);
        (start < end).then(|| Run { gpa: start, len: end - start })
    })
}

/// The pages whose numbers a chain holds (§5.5.6), as runs; `None` if there are too many.
pub(super) fn numbered(
    memory: &dyn GuestMemory,
    readable: &[GuestRange],
) -> Result<Option<Vec<Run>>, MemoryError> {
    let count = len(readable) / 4;
    if count > NUMBERS_MAX {
        return Ok(None);
    }
    let mut bytes = alloc::vec![0; (count * 4) as usize];
    gather(memory, readable, 0, &mut bytes)?;
    let mut numbers: Vec<u32> =
        bytes.as_chunks().0.iter().map(|number| u32::from_le_bytes(*number)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut runs: Vec<Run> = Vec::new();
    for number in numbers {
        let gpa = u64::from(number) << PAGE_SHIFT;
        match runs.last_mut() {
            Some(last) if last.gpa + last.len == gpa => last.len += PAGE,
            Some(_) | None => runs.push(Run { gpa, len: PAGE }),
        }
    }
    let ram = memory.ram_ranges();
    Ok(Some(runs.into_iter().flat_map(|run| of_ram(run, &ram)).collect()))
}

/// The pages that a chain consists of (§5.5.6.6).
pub(super) fn reported(memory: &dyn GuestMemory, writable: &[GuestRange]) -> Vec<Run> {
    let ram = memory.ram_ranges();
    let runs = writable.iter().map(|range| Run { gpa: range.gpa, len: range.len.into() });
    runs.flat_map(|run| of_ram(run, &ram)).collect()
}
