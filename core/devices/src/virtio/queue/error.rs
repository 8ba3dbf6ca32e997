//! What a driver can do wrong with a ring. The device then needs a reset.

use core::fmt;

use kasane_memory::MemoryError;

/// A ring that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueError {
    /// A part of the ring is not in memory.
    Memory(MemoryError),
    /// A size, or an address, that a queue can't have.
    BadPlace {
        /// Entries.
        size: u16,
    },
    /// The driver's index is further ahead than the ring is long.
    IndexAhead {
        /// By how much.
        by: u16,
        /// Entries.
        size: u16,
    },
    /// More is available, without having been used, than the ring has entries.
    AvailableTwice,
    /// A descriptor that is not in its table.
    NoDescriptor {
        /// Its number.
        index: u16,
        /// Entries of the table.
        len: u16,
    },
    /// A chain of too many descriptors: a loop, as a rule.
    ChainTooLong,
    /// A chain of more than 4 GiB.
    TooManyBytes,
    /// A buffer beyond the end of the address space.
    AddressOverflow {
        /// Where it begins.
        address: u64,
    },
    /// A readable descriptor behind a writable one.
    ReadableAfterWritable,
    /// An indirect table where there may be none: not agreed on, in another, or with a successor.
    IndirectHere,
    /// An indirect table of an impossible length.
    IndirectTable {
        /// Bytes.
        len: u32,
    },
    /// A buffer that makes no sense to the device.
    BadRequest,
}

impl From<MemoryError> for QueueError {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(_) => write!(f, "a part of the ring is not in memory"),
            Self::BadPlace { size } => {
                write!(f, "no queue of {size} entries can be where the driver wants it")
            }
            Self::IndexAhead { by, size } => {
                write!(f, "the driver's index is {by} ahead in a ring of {size}")
            }
            Self::AvailableTwice => write!(f, "more is available than the ring has entries"),
            Self::NoDescriptor { index, len } => {
                write!(f, "descriptor {index} of a table of {len}")
            }
            Self::ChainTooLong => write!(f, "a chain of descriptors without end"),
            Self::TooManyBytes => write!(f, "a chain of more than 4 GiB"),
            Self::AddressOverflow { address } => {
                write!(f, "a buffer at {address:#x} goes beyond the address space")
            }
            Self::ReadableAfterWritable => {
                write!(f, "a readable descriptor behind a writable one")
            }
            Self::IndirectHere => write!(f, "an indirect table where none may be"),
            Self::IndirectTable { len } => write!(f, "an indirect table of {len} bytes"),
            Self::BadRequest => write!(f, "a request that makes no sense to the device"),
        }
    }
}

impl core::error::Error for QueueError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Memory(error) => Some(error),
            Self::BadPlace { .. }
            | Self::IndexAhead { .. }
            | Self::AvailableTwice
            | Self::NoDescriptor { .. }
            | Self::ChainTooLong
            | Self::TooManyBytes
            | Self::AddressOverflow { .. }
            | Self::ReadableAfterWritable
            | Self::IndirectHere
            | Self::IndirectTable { .. }
            | Self::BadRequest => None,
        }
    }
}
