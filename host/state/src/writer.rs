//! Writing.

use std::io::Write;

use kasane_devices::Section;

use crate::error::StateError;
use crate::{
    CHUNK, FORMAT, KIND_END, KIND_MEMORY, KIND_SECTION, MAGIC, SECTIONS_BYTES_MAX, SECTIONS_MAX,
};

/// Writes a saved machine: sections, then memory, then the end.
pub struct StateWriter<W> {
    to: W,
    records: u64,
    sections_bytes: usize,
}

impl<W: Write> StateWriter<W> {
    /// Begins a saved machine. Small pieces are written: `to` should have a buffer.
    ///
    /// # Errors
    /// What `to` says.
    pub fn new(mut to: W) -> Result<Self, StateError> {
        to.write_all(&MAGIC).map_err(StateError::Write)?;
        to.write_all(&FORMAT.to_le_bytes()).map_err(StateError::Write)?;
        Ok(Self { to, records: 0, sections_bytes: 0 })
    }

    /// Writes a section. All of them come before the memory.
    ///
    /// # Errors
    /// What `to` says, or that there are more or longer sections than a reader takes.
    pub fn section(&mut self, section: &Section) -> Result<(), StateError> {
        let Section { name, version, bytes } = section;
        let too_large = || StateError::TooLarge { name: name.clone() };
        self.sections_bytes = self.sections_bytes.saturating_add(name.len() + bytes.len());
        if self.sections_bytes > SECTIONS_BYTES_MAX || self.records >= SECTIONS_MAX as u64 {
            return Err(too_large());
        }
        let name_len = u16::try_from(name.len()).map_err(|_| too_large())?;
        let mut head = name_len.to_le_bytes().to_vec();
        head.extend(name.as_bytes());
        head.extend(version.to_le_bytes());
        self.record(KIND_SECTION, &head, bytes)
    }

    /// Writes `bytes` of memory from the page at `address` on: whole pages, at most
    /// 1 MiB, behind all that were written before.
    pub(crate) fn memory(&mut self, address: u64, bytes: &[u8]) -> Result<(), StateError> {
        debug_assert!(bytes.len() <= CHUNK);
        let mut head = address.to_le_bytes().to_vec();
        head.extend((bytes.len() as u32).to_le_bytes());
        self.record(KIND_MEMORY, &head, &lz4_flex::block::compress(bytes))
    }

    /// Writes the end. Without it the file counts as cut off.
    ///
    /// # Errors
    /// What `to` says.
    pub fn finish(mut self) -> Result<W, StateError> {
        let records = self.records.to_le_bytes();
        self.record(KIND_END, &records, &[])?;
        self.to.flush().map_err(StateError::Write)?;
        Ok(self.to)
    }

    fn record(&mut self, kind: u8, head: &[u8], body: &[u8]) -> Result<(), StateError> {
        // Both are bounded far below 4 GiB.
        let len = (head.len() + body.len()) as u32;
        let mut crc = crc32fast::Hasher::new();
        for part in [&[kind][..], &len.to_le_bytes(), head, body] {
            crc.update(part);
            self.to.write_all(part).map_err(StateError::Write)?;
        }
        self.records += 1;
        self.to.write_all(&crc.finalize().to_le_bytes()).map_err(StateError::Write)
    }
}
