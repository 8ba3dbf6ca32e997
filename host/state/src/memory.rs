//! The guest's memory to and from a saved machine.

use std::io::{Read, Write};

use kasane_memory::GuestMemory;

use crate::error::StateError;
use crate::{CHUNK, PAGE, StateReader, StateWriter};

/// Writes all pages of `memory` that are not zero. Nobody may change it meanwhile.
///
/// # Errors
/// What the writer says.
pub fn write_memory<W: Write>(
    to: &mut StateWriter<W>,
    memory: &dyn GuestMemory,
) -> Result<(), StateError> {
    let mut buffer = vec![0; CHUNK];
    for (base, len) in memory.ram_ranges() {
        let mut done = 0;
        while done < len {
            let part = (len - done).min(CHUNK as u64);
            let Some(bytes) = buffer.get_mut(..part as usize) else { break };
            let address = base.saturating_add(done);
            memory.read(address, bytes)?;
            write_runs(to, address, bytes)?;
            done += part;
        }
    }
    Ok(())
}

/// Writes the runs of pages in `bytes` that are not zero.
fn write_runs<W: Write>(
    to: &mut StateWriter<W>,
    address: u64,
    bytes: &[u8],
) -> Result<(), StateError> {
    let pages: Vec<&[u8]> = bytes.chunks(PAGE).collect();
    let mut at = address;
    let mut rest = bytes;
    for run in pages.chunk_by(|one, other| is_zero(one) == is_zero(other)) {
        let len = run.iter().map(|page| page.len()).sum();
        let Some((these, after)) = rest.split_at_checked(len) else { break };
        if run.first().is_some_and(|page| !is_zero(page)) {
            to.memory(at, these)?;
        }
        at = at.saturating_add(len as u64);
        rest = after;
    }
    Ok(())
}

fn is_zero(page: &[u8]) -> bool {
    page.iter().all(|byte| *byte == 0)
}

/// Reads the rest of a saved machine into `memory`, which has to be all zero.
///
/// # Errors
/// What is wrong with the bytes, or that they don't fit into `memory`, of which a part is then
/// written.
pub fn read_memory<R: Read>(
    mut from: StateReader<R>,
    memory: &dyn GuestMemory,
) -> Result<(), StateError> {
    while let Some(chunk) = from.chunk()? {
        memory.write(chunk.address, &chunk.bytes)?;
    }
    Ok(())
}
