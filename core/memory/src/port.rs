//! The `GuestMemory` port: what a device that does DMA, a loader or a page walk may do.

use core::fmt;

/// An access that guest memory refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryError {
    /// There is no memory at some byte of the range.
    Unmapped {
        /// Guest-physical address of the access.
        gpa: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// The range is read-only memory.
    ReadOnly {
        /// Guest-physical address of the access.
        gpa: u64,
    },
    /// An atomic access that is not naturally aligned.
    Misaligned {
        /// Guest-physical address of the access.
        gpa: u64,
    },
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmapped { gpa, len } => {
                write!(f, "no guest memory at {gpa:#x}, {len} bytes")
            }
            Self::ReadOnly { gpa } => write!(f, "guest memory at {gpa:#x} is read-only"),
            Self::Misaligned { gpa } => write!(f, "misaligned atomic access at {gpa:#x}"),
        }
    }
}

impl core::error::Error for MemoryError {}

/// Guest physical memory as devices, loaders and page walks see it.
///
/// A guest may change any byte between two calls; no reference to it ever exists. Every access
/// may fail. Writes are seen by the dirty log and by the code map (DMA into code is exact).
pub trait GuestMemory: Send + Sync {
    /// Copies `buf.len()` bytes from `gpa`; may cross slots.
    ///
    /// # Errors
    /// `Unmapped`; then `buf` holds no promise.
    fn read(&self, gpa: u64, buf: &mut [u8]) -> Result<(), MemoryError>;
    /// Copies `data` to `gpa`; may cross slots.
    ///
    /// # Errors
    /// `Unmapped` or `ReadOnly`; then nothing or a part was written.
    fn write(&self, gpa: u64, data: &[u8]) -> Result<(), MemoryError>;
    /// Fills `len` bytes with `byte`.
    ///
    /// # Errors
    /// As for `write`.
    fn fill(&self, gpa: u64, len: u64, byte: u8) -> Result<(), MemoryError>;
    /// Atomic aligned load with acquire order.
    ///
    /// # Errors
    /// `Unmapped` or `Misaligned`.
    fn load_u16(&self, gpa: u64) -> Result<u16, MemoryError>;
    /// As `load_u16`.
    ///
    /// # Errors
    /// `Unmapped` or `Misaligned`.
    fn load_u32(&self, gpa: u64) -> Result<u32, MemoryError>;
    /// As `load_u16`.
    ///
    /// # Errors
    /// `Unmapped` or `Misaligned`.
    fn load_u64(&self, gpa: u64) -> Result<u64, MemoryError>;
    /// Atomic aligned store with release order.
    ///
    /// # Errors
    /// `Unmapped`, `ReadOnly` or `Misaligned`.
    fn store_u16(&self, gpa: u64, value: u16) -> Result<(), MemoryError>;
    /// As `store_u16`.
    ///
    /// # Errors
    /// `Unmapped`, `ReadOnly` or `Misaligned`.
    fn store_u32(&self, gpa: u64, value: u32) -> Result<(), MemoryError>;
    /// As `store_u16`.
    ///
    /// # Errors
    /// `Unmapped`, `ReadOnly` or `Misaligned`.
    fn store_u64(&self, gpa: u64, value: u64) -> Result<(), MemoryError>;
    /// Sequentially consistent compare-and-exchange: gives the old value; it was exchanged if
    /// that equals `current`.
    ///
    /// # Errors
    /// `Unmapped`, `ReadOnly` or `Misaligned`.
    fn compare_exchange_u32(&self, gpa: u64, current: u32, new: u32) -> Result<u32, MemoryError>;
    /// As `compare_exchange_u32`.
    ///
    /// # Errors
    /// `Unmapped`, `ReadOnly` or `Misaligned`.
    fn compare_exchange_u64(&self, gpa: u64, current: u64, new: u64) -> Result<u64, MemoryError>;
    /// The slots that hold RAM, as (base, length), ascending.
    fn ram_ranges(&self) -> alloc::vec::Vec<(u64, u64)>;
}
