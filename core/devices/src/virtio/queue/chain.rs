//! Buffers: what a chain of descriptors says, checked.
//!
//! Descriptors come from the guest, who may write anything and may change it while it is read.
//! Each is read once. A chain has at most [`CHAIN_MAX`] descriptors (or as many as the queue, if
//! that is more), all of its readable ones come first, and its lengths add up to 4 GiB at most
//! (virtio 1.2 §2.7.5.2): so neither a loop nor a large number costs more than that. Whether there
//! is memory at an address shows when it is used.

use alloc::vec::Vec;

use kasane_memory::GuestMemory;
use kasane_ports::GuestRange;
use kasane_spec_virtio::ring::{DESCRIPTOR_LEN, flag};

use super::error::QueueError;

/// The most descriptors of a chain in a smaller queue: with an indirect table, Linux makes chains
/// that are longer than the queue.
pub const CHAIN_MAX: u16 = 1024;

/// Names a chain between `pop` and `push`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChainId {
    /// Split: its first descriptor. Packed: its buffer id.
    pub(super) id: u16,
    /// Descriptors that it takes in the ring.
    pub(super) descriptors: u16,
    /// Which life of the queue it is of.
    pub(super) life: u16,
}

/// A buffer that the driver has made available.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Goes back to the queue.
    pub id: ChainId,
    /// What the device reads, in order. No range is empty.
    pub readable: Vec<GuestRange>,
    /// What the device fills, in order. No range is empty.
    pub writable: Vec<GuestRange>,
}

/// One descriptor, as it was when it was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) len: u32,
    /// Split: flags. Packed: buffer id.
    low: u16,
    /// Split: next. Packed: flags.
    high: u16,
}

impl Descriptor {
    /// Reads descriptor `index` of the table at `table`.
    pub(super) fn read(
        memory: &dyn GuestMemory,
        table: u64,
        index: u16,
    ) -> Result<Self, QueueError> {
        let gpa = table
            .checked_add(u64::from(index) * DESCRIPTOR_LEN)
            .ok_or(QueueError::AddressOverflow { address: table })?;
        let mut bytes = [0; DESCRIPTOR_LEN as usize];
        memory.read(gpa, &mut bytes)?;
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, x0, x1, y0, y1] = bytes;
        Ok(Self {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            low: u16::from_le_bytes([x0, x1]),
            high: u16::from_le_bytes([y0, y1]),
        })
    }

    /// Flags and next descriptor of a split ring's descriptor.
    pub(super) fn split(self) -> (u16, u16) {
        (self.low, self.high)
    }

    /// Buffer id and flags of a packed ring's descriptor.
    pub(super) fn packed(self) -> (u16, u16) {
        (self.low, self.high)
    }

    /// Entries of the indirect table that it describes (§2.7.5.3).
    pub(super) fn table_len(self) -> Result<u16, QueueError> {
        let len = u64::from(self.len);
        let entries = u16::try_from(len / DESCRIPTOR_LEN).unwrap_or(u16::MAX);
        if len == 0 || !len.is_multiple_of(DESCRIPTOR_LEN) {
            return Err(QueueError::IndirectTable { len: self.len });
        }
        Ok(entries)
    }
}

/// A chain that is being read.
pub(super) struct ChainBuilder {
    readable: Vec<GuestRange>,
    writable: Vec<GuestRange>,
    bytes: u64,
    left: u16,
}

impl ChainBuilder {
    /// Nothing yet, in a queue of `size`.
    pub(super) fn new(size: u16) -> Self {
        let left = size.max(CHAIN_MAX);
        Self { readable: Vec::new(), writable: Vec::new(), bytes: 0, left }
    }

    /// Takes a descriptor that is no indirect table.
    pub(super) fn add(&mut self, descriptor: Descriptor, flags: u16) -> Result<(), QueueError> {
        let Descriptor { address, len, .. } = descriptor;
        self.left = self.left.checked_sub(1).ok_or(QueueError::ChainTooLong)?;
        self.bytes = self.bytes.saturating_add(len.into());
        if self.bytes > 1 << 32 {
            return Err(QueueError::TooManyBytes);
        }
        if address.checked_add(len.into()).is_none() {
            return Err(QueueError::AddressOverflow { address });
        }
        let writes = flags & flag::WRITE != 0;
        if !writes && !self.writable.is_empty() {
            return Err(QueueError::ReadableAfterWritable);
        }
        // A descriptor of nothing means nothing.
        if len != 0 {
            let to = if writes { &mut self.writable } else { &mut self.readable };
            to.push(GuestRange { gpa: address, len });
        }
        Ok(())
    }

    /// The whole chain.
    pub(super) fn finish(self, id: ChainId) -> Chain {
        Chain { id, readable: self.readable, writable: self.writable }
    }
}
