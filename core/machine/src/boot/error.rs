//! Why an image can't be booted. Each message says what was asked and what was found.

use alloc::string::String;
use core::fmt;

use kasane_memory::MemoryError;

/// Why an image can't be booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootError {
    /// Not an image of any known kind.
    UnknownFormat {
        /// The first four bytes; fewer are zero-extended.
        first: [u8; 4],
        /// Length of the image in bytes.
        len: u64,
    },
    /// A compressed file that has to be unpacked first.
    Compressed {
        /// Name of the compression.
        kind: &'static str,
    },
    /// The image ends too early.
    Truncated {
        /// The part that is missing.
        what: &'static str,
        /// Bytes that the file would need.
        needed: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// A field has a value that makes no sense.
    BadField {
        /// The field.
        field: &'static str,
        /// What was found.
        value: u64,
        /// What would be right.
        expected: &'static str,
    },
    /// Something has to be where there is no RAM.
    OutsideRam {
        /// What.
        what: &'static str,
        /// First address.
        start: u64,
        /// First address after it.
        end: u64,
    },
    /// Two things have to be at the same place.
    Overlap {
        /// What is placed.
        what: &'static str,
        /// First address.
        start: u64,
        /// First address after it.
        end: u64,
        /// What is there already.
        with: &'static str,
    },
    /// No free RAM is large enough.
    NoRoom {
        /// What is placed.
        what: &'static str,
        /// Bytes it needs.
        len: u64,
        /// It has to end at or below this address.
        below: u64,
    },
    /// The kernel takes a shorter command line.
    CommandLineTooLong {
        /// Its length in bytes.
        len: u64,
        /// The most the kernel takes.
        max: u64,
    },
    /// A zero byte in the command line.
    CommandLineZero {
        /// Where it is.
        at: u64,
    },
    /// The boot protocol lacks something that was asked for.
    Unsupported {
        /// What.
        what: &'static str,
    },
    /// Guest memory refused an access.
    Memory(MemoryError),
}

impl From<MemoryError> for BootError {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownFormat { first, len } => {
                let bytes: String = first.iter().map(|b| alloc::format!(" {b:02x}")).collect();
                write!(
                    f,
                    "not a Linux bzImage, not an ELF image with a PVH note, not a Multiboot image \
                     ({len} bytes, begins with{bytes})"
                )
            }
            Self::Compressed { kind } => {
                write!(f, "the image is packed with {kind}; unpack it first")
            }
            Self::Truncated { what, needed, found } => {
                write!(f, "the image is cut off in {what}: {needed} bytes needed, {found} found")
            }
            Self::BadField { field, value, expected } => {
                write!(f, "{field} is {value:#x}, expected {expected}")
            }
            Self::OutsideRam { what, start, end } => {
                write!(f, "{what} has to be at {start:#x}..{end:#x}, where there is no RAM")
            }
            Self::Overlap { what, start, end, with } => {
                write!(f, "{what} at {start:#x}..{end:#x} overlaps {with}")
            }
            Self::NoRoom { what, len, below } => {
                write!(f, "no room for {what}: {len} bytes of free RAM below {below:#x} needed")
            }
            Self::CommandLineTooLong { len, max } => {
                write!(f, "the command line has {len} bytes, the kernel takes {max}")
            }
            Self::CommandLineZero { at } => {
                write!(f, "the command line has a zero byte at position {at}")
            }
            Self::Unsupported { what } => write!(f, "{what} is not supported"),
            Self::Memory(_) => write!(f, "guest memory refused the image"),
        }
    }
}

impl core::error::Error for BootError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Memory(error) => Some(error),
            Self::UnknownFormat { .. }
            | Self::Compressed { .. }
            | Self::Truncated { .. }
            | Self::BadField { .. }
            | Self::OutsideRam { .. }
            | Self::Overlap { .. }
            | Self::NoRoom { .. }
            | Self::CommandLineTooLong { .. }
            | Self::CommandLineZero { .. }
            | Self::Unsupported { .. } => None,
        }
    }
}
