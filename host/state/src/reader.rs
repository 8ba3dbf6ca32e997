//! Reading.

use std::io::{self, Read};

use kasane_devices::Section;

use crate::error::StateError;
use crate::{
    CHUNK, CHUNK_RECORD_MAX, FORMAT, KIND_END, KIND_MEMORY, KIND_SECTION, MAGIC, PAGE,
    SECTIONS_BYTES_MAX, SECTIONS_MAX,
};

/// A record whose checksum is right.
struct Record {
    kind: u8,
    bytes: Vec<u8>,
}

/// Reads a saved machine: its sections at once, then its memory piece by piece.
pub struct StateReader<R> {
    from: R,
    sections: Vec<Section>,
    /// The record behind the sections, until it is asked for.
    ahead: Option<Record>,
    records: u64,
    /// Where memory may go on.
    next_address: u64,
}

/// Memory of a saved machine.
pub(crate) struct Chunk {
    pub(crate) address: u64,
    pub(crate) bytes: Vec<u8>,
}

impl<R: Read> StateReader<R> {
    /// Reads the head and the sections. Small pieces are read: `from` should have a buffer.
    ///
    /// # Errors
    /// What `from` says, or what is wrong with the bytes.
    pub fn new(from: R) -> Result<Self, StateError> {
        let mut reader =
            Self { from, sections: Vec::new(), ahead: None, records: 0, next_address: 0 };
        if reader.fixed("its head")? != MAGIC {
            return Err(StateError::Magic);
        }
        let format = u32::from_le_bytes(reader.fixed("its head")?);
        if format != FORMAT {
            return Err(StateError::Format { found: format });
        }
        let mut left = SECTIONS_BYTES_MAX;
        loop {
            let record = reader.record(left + 64)?;
            if record.kind != KIND_SECTION {
                reader.ahead = Some(record);
                return Ok(reader);
            }
            left = left.saturating_sub(record.bytes.len());
            let section = section(record.bytes).ok_or_else(|| reader.damaged("not a section"))?;
            if reader.sections.len() >= SECTIONS_MAX {
                return Err(reader.damaged("too many sections"));
            }
            reader.sections.push(section);
        }
    }

    /// The sections, in the order in which they were written.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The next piece of memory; none at the end.
    pub(crate) fn chunk(&mut self) -> Result<Option<Chunk>, StateError> {
        let record = match self.ahead.take() {
            Some(record) => record,
            None => self.record(CHUNK_RECORD_MAX)?,
        };
        match record.kind {
            KIND_MEMORY => self.memory(&record.bytes).map(Some),
            KIND_END => {
                let before = self.records.saturating_sub(1);
                if record.bytes == before.to_le_bytes() {
                    return Ok(None);
                }
                Err(self.damaged("records are missing"))
            }
            KIND_SECTION => Err(self.damaged("a section in the midst of memory")),
            _ => Err(self.damaged("a record of unknown kind")),
        }
    }

    fn memory(&mut self, record: &[u8]) -> Result<Chunk, StateError> {
        let parts = record
            .split_first_chunk::<8>()
            .and_then(|(address, rest)| Some((address, rest.split_first_chunk::<4>()?)));
        let Some((address, (len, compressed))) = parts else {
            return Err(self.damaged("not a piece of memory"));
        };
        let address = u64::from_le_bytes(*address);
        let len = u32::from_le_bytes(*len) as usize;
        let end = address.checked_add(len as u64);
        let whole = len != 0 && len <= CHUNK && len.is_multiple_of(PAGE);
        let (Some(end), true) = (end, whole && address.is_multiple_of(PAGE as u64)) else {
            return Err(self.damaged("a piece of memory that is no pages"));
        };
        if address < self.next_address {
            return Err(self.damaged("memory that is not in order"));
        }
        self.next_address = end;
        let mut bytes = vec![0; len];
        match lz4_flex::block::decompress_into(compressed, &mut bytes) {
            Ok(filled) if filled == len => Ok(Chunk { address, bytes }),
            Ok(_) | Err(_) => Err(self.damaged("memory that can't be unpacked")),
        }
    }

    /// The next record, of at most `max` bytes.
    fn record(&mut self, max: usize) -> Result<Record, StateError> {
        let [kind] = self.fixed(&self.place())?;
        let len_bytes: [u8; 4] = self.fixed(&self.place())?;
        let len = u32::from_le_bytes(len_bytes);
        if len as usize > max {
            return Err(self.damaged("a record that is too long"));
        }
        // Grows with what is really there, whatever the length says.
        let mut bytes = Vec::new();
        let taken = self.from.by_ref().take(u64::from(len)).read_to_end(&mut bytes);
        if taken.map_err(StateError::Read)? < len as usize {
            return Err(StateError::CutOff { place: self.place() });
        }
        let crc = u32::from_le_bytes(self.fixed(&self.place())?);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&[kind]);
        hasher.update(&len_bytes);
        hasher.update(&bytes);
        if hasher.finalize() != crc {
            return Err(self.damaged("the checksum is wrong"));
        }
        self.records += 1;
        Ok(Record { kind, bytes })
    }

    fn fixed<const N: usize>(&mut self, place: &str) -> Result<[u8; N], StateError> {
        let mut bytes = [0; N];
        match self.from.read_exact(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(StateError::CutOff { place: place.to_owned() })
            }
            Err(error) => Err(StateError::Read(error)),
        }
    }

    fn damaged(&self, what: &'static str) -> StateError {
        StateError::Damaged { place: self.place(), what }
    }

    /// Where reading is, in words.
    fn place(&self) -> String {
        match self.sections.last() {
            None => format!("record {}", self.records),
            Some(last) => format!("record {}, behind section `{}`", self.records, last.name),
        }
    }
}

fn section(bytes: Vec<u8>) -> Option<Section> {
    let (name_len, rest) = bytes.split_first_chunk::<2>()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*name_len)))?;
    let (version, body) = rest.split_first_chunk::<4>()?;
    let name = String::from_utf8(name.to_vec()).ok()?;
    Some(Section { name, version: u32::from_le_bytes(*version), bytes: body.to_vec() })
}
