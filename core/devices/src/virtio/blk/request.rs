//! What a request asks for (virtio 1.2 §5.2.6), checked.

use alloc::vec::Vec;

use kasane_memory::GuestMemory;
use kasane_ports::{BlockInfo, BlockOperation, GuestRange, ZeroedSpace};
use kasane_spec_virtio::blk::{SECTOR_LEN, request, status};

use crate::virtio::Chain;
use crate::virtio::queue::{QueueError, gather, len, part};

/// The most sectors of a discard or of zeros in one request: 1 GiB.
pub(super) const ERASE_SECTORS_MAX: u32 = 1 << 21;

/// A request's frame: what is in any of them.
pub(super) struct Frame {
    kind: u32,
    sector: u64,
    /// Behind the header.
    data_in: Vec<GuestRange>,
    /// Before the status.
    pub(super) data_out: Vec<GuestRange>,
    /// Where the status goes.
    pub(super) status_gpa: u64,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The backend has to do it.
    Backend {
        operation: BlockOperation,
        /// Bytes on the disk.
        offset: u64,
        ranges: Vec<GuestRange>,
    },
    /// The serial number.
    Id,
    /// Nothing: this status.
    Answer(u8),
}

impl Frame {
    /// Finds the parts of a request, wherever its descriptors end (§2.7.4).
    pub(super) fn read(memory: &dyn GuestMemory, chain: &Chain) -> Result<Self, QueueError> {
        let mut header = [0; request::HEADER_LEN];
        let header_len = header.len() as u64;
        if gather(memory, &chain.readable, 0, &mut header)? < header.len() {
            return Err(QueueError::BadRequest);
        }
        let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = header;
        let data_len = len(&chain.writable).checked_sub(1).ok_or(QueueError::BadRequest)?;
        let status = part(&chain.writable, data_len, 1);
        Ok(Self {
            kind: u32::from_le_bytes([k0, k1, k2, k3]),
            sector: u64::from_le_bytes(sector),
            data_in: part(&chain.readable, header_len, u64::MAX),
            data_out: part(&chain.writable, 0, data_len),
            status_gpa: status.first().ok_or(QueueError::BadRequest)?.gpa,
        })
    }

    /// What it asks of a disk that is so.
    pub(super) fn asks(
        &self,
        memory: &dyn GuestMemory,
        disk: &BlockInfo,
    ) -> Result<Asked, QueueError> {
        Ok(match self.kind {
            request::IN => self.transfer(BlockOperation::Read, &self.data_out, disk),
            request::OUT => self.transfer(BlockOperation::Write, &self.data_in, disk),
            request::FLUSH => {
                Asked::Backend { operation: BlockOperation::Flush, offset: 0, ranges: Vec::new() }
            }
            request::GET_ID => Asked::Id,
            request::DISCARD | request::WRITE_ZEROES => self.erase(memory, disk)?,
            _ => Asked::Answer(status::UNSUPP),
        })
    }

    fn transfer(&self, operation: BlockOperation, data: &[GuestRange], disk: &BlockInfo) -> Asked {
        let refused = disk.read_only && operation == BlockOperation::Write;
        match self.offset(self.sector, len(data), disk) {
            Some(_) if refused => Asked::Answer(status::IOERR),
            Some(_) if data.is_empty() => Asked::Answer(status::OK),
            Some(offset) => Asked::Backend { operation, offset, ranges: data.to_vec() },
            None => Asked::Answer(status::IOERR),
        }
    }

    /// Where on the disk `len` bytes from `sector` on are, if they are whole sectors of it.
    fn offset(&self, sector: u64, len: u64, disk: &BlockInfo) -> Option<u64> {
        let offset = sector.checked_mul(SECTOR_LEN)?;
        let end = offset.checked_add(len)?;
        (len.is_multiple_of(SECTOR_LEN) && end <= disk.capacity).then_some(offset)
    }

    /// Discard and write-zeroes: one segment, as the configuration says.
    fn erase(&self, memory: &dyn GuestMemory, disk: &BlockInfo) -> Result<Asked, QueueError> {
        let mut segment = [0; request::SEGMENT_LEN];
        gather(memory, &self.data_in, 0, &mut segment)?;
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = segment;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes(flags);
        let len_bytes = u64::from(sectors) * SECTOR_LEN;
        let zeroes = self.kind == request::WRITE_ZEROES;
        // §5.2.6.2: what isn't known, and giving space back by a discard, is not supported.
        let known = if zeroes { request::SEGMENT_UNMAP } else { 0 };
        if flags & !known != 0 || (!zeroes && !disk.discard) {
            return Ok(Asked::Answer(status::UNSUPP));
        }
        let space = match flags & request::SEGMENT_UNMAP {
            0 => ZeroedSpace::Keep,
            _ => ZeroedSpace::Release,
        };
        let one = len(&self.data_in) == request::SEGMENT_LEN as u64;
        let offset = self
            .offset(sector, len_bytes, disk)
            .filter(|_| one && sectors <= ERASE_SECTORS_MAX && !disk.read_only);
        let operation = if zeroes {
            BlockOperation::WriteZeroes { len: len_bytes, space }
        } else {
            BlockOperation::Discard { len: len_bytes }
        };
        Ok(match offset {
            Some(_) if sectors == 0 => Asked::Answer(status::OK),
            Some(offset) => Asked::Backend { operation, offset, ranges: Vec::new() },
            None => Asked::Answer(status::IOERR),
        })
    }
}
