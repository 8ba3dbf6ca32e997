//! The configuration header of type 0 (PCI Local Bus 3.0 §6.1).

/// Bytes of a function's configuration space in ECAM shape.
pub const SPACE_LEN: usize = 4096;
/// Bytes of it that configuration mechanism #1 reaches.
pub const CONVENTIONAL_LEN: usize = 256;

/// Vendor, 16 bits.
pub const VENDOR_ID: usize = 0x00;
/// Device, 16 bits.
pub const DEVICE_ID: usize = 0x02;
/// Command, 16 bits.
pub const COMMAND: usize = 0x04;
/// Status, 16 bits.
pub const STATUS: usize = 0x06;
/// Revision.
pub const REVISION: usize = 0x08;
/// Programming interface, subclass, class.
pub const CLASS: usize = 0x09;
/// Cache line size in doublewords.
pub const CACHE_LINE: usize = 0x0C;
/// Latency timer.
pub const LATENCY: usize = 0x0D;
/// Header type.
pub const HEADER_TYPE: usize = 0x0E;
/// First of the six base address registers.
pub const BAR0: usize = 0x10;
/// Number of base address registers.
pub const BARS: u8 = 6;
/// Subsystem vendor, 16 bits.
pub const SUBSYSTEM_VENDOR: usize = 0x2C;
/// Subsystem, 16 bits.
pub const SUBSYSTEM_ID: usize = 0x2E;
/// First capability.
pub const CAPABILITIES: usize = 0x34;
/// Interrupt line: a note from firmware to the driver.
pub const INTERRUPT_LINE: usize = 0x3C;
/// Interrupt pin: 0 none, 1 to 4 INTA to INTD.
pub const INTERRUPT_PIN: usize = 0x3D;
/// First byte behind the header.
pub const END: usize = 0x40;

/// Header type: the device has more functions.
pub const MULTI_FUNCTION: u8 = 0x80;

/// Command register (§6.2.2).
pub mod command {
    /// Answers I/O accesses.
    pub const IO: u16 = 1 << 0;
    /// Answers memory accesses.
    pub const MEMORY: u16 = 1 << 1;
    /// May do DMA and send messages.
    pub const BUS_MASTER: u16 = 1 << 2;
    /// Parity errors are reported.
    pub const PARITY: u16 = 1 << 6;
    /// SERR# is driven.
    pub const SERR: u16 = 1 << 8;
    /// INTx is not driven.
    pub const INTX_DISABLE: u16 = 1 << 10;
}

/// Status register (§6.2.3).
pub mod status {
    /// INTx is wanted (whether or not it is disabled).
    pub const INTERRUPT: u16 = 1 << 3;
    /// There is a capability list.
    pub const CAPABILITIES: u16 = 1 << 4;
    /// Fast back-to-back capable.
    pub const FAST_BACK_TO_BACK: u16 = 1 << 7;
    /// Medium DEVSEL# timing.
    pub const DEVSEL_MEDIUM: u16 = 1 << 9;
    /// Errors that are cleared by writing one.
    pub const WRITE_ONE_TO_CLEAR: u16 = 0xF900;
}

/// Bits of a base address register (§6.2.5.1).
pub mod bar {
    /// I/O space.
    pub const IO: u32 = 1;
    /// Memory: anywhere in 64 bits; takes the next register too.
    pub const MEMORY64: u32 = 0b100;
    /// Memory: reading has no side effects.
    pub const PREFETCHABLE: u32 = 0b1000;
}
