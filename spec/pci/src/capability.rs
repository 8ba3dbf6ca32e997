//! Capabilities (PCI Local Bus 3.0 §6.7, §6.8).

/// Message-signalled interrupts.
pub const MSI: u8 = 0x05;
/// Vendor-specific.
pub const VENDOR: u8 = 0x09;
/// PCI Express.
pub const EXPRESS: u8 = 0x10;
/// MSI-X.
pub const MSIX: u8 = 0x11;

/// The MSI capability with 64-bit address and per-vector masking (§6.8.1): offsets and bits.
pub mod msi {
    /// Bytes.
    pub const LEN: usize = 24;
    /// Message control, 16 bits.
    pub const CONTROL: usize = 2;
    /// Address, 64 bits.
    pub const ADDRESS: usize = 4;
    /// Data, 16 bits.
    pub const DATA: usize = 12;
    /// Mask bits, 32 bits.
    pub const MASK: usize = 16;
    /// Pending bits, 32 bits.
    pub const PENDING: usize = 20;
    /// Control: on.
    pub const ENABLE: u16 = 1;
    /// Control: log2 of the vectors that the function can use.
    pub const CAPABLE_SHIFT: u32 = 1;
    /// Control: log2 of the vectors that it may use.
    pub const ENABLED_SHIFT: u32 = 4;
    /// Control: 64-bit address.
    pub const ADDRESS64: u16 = 1 << 7;
    /// Control: mask and pending bits.
    pub const PER_VECTOR_MASK: u16 = 1 << 8;
}

/// The MSI-X capability (§6.8.2): offsets and bits.
pub mod msix {
    /// Bytes.
    pub const LEN: usize = 12;
    /// Message control, 16 bits.
    pub const CONTROL: usize = 2;
    /// Table: offset and BAR, 32 bits.
    pub const TABLE: usize = 4;
    /// Pending bit array: offset and BAR, 32 bits.
    pub const PENDING: usize = 8;
    /// Control: all vectors are masked.
    pub const FUNCTION_MASK: u16 = 1 << 14;
    /// Control: on.
    pub const ENABLE: u16 = 1 << 15;
    /// Bytes of a table entry.
    pub const ENTRY_LEN: u32 = 16;
    /// Vector control: masked.
    pub const ENTRY_MASKED: u32 = 1;
    /// The most vectors.
    pub const VECTORS_MAX: u16 = 2048;
}
