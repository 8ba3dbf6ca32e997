//! Ways to the configuration space.

/// Configuration mechanism #1 (PCI Local Bus 3.0 §3.2.2.3.2): the address register.
pub mod config1 {
    /// The data port is configuration space.
    pub const ENABLE: u32 = 1 << 31;
    /// Bits that can be written: enable, bus, device, function, register.
    pub const WRITABLE: u32 = 0x80FF_FFFC;
    /// Where the bus number starts.
    pub const BUS_SHIFT: u32 = 16;
    /// Where device and function start.
    pub const FUNCTION_SHIFT: u32 = 8;
    /// The register's doubleword.
    pub const REGISTER: u32 = 0xFC;
}

/// ECAM (PCI Express Base 3.0 §7.2.2): where in the window a function is.
pub mod ecam {
    /// Where the bus number starts.
    pub const BUS_SHIFT: u32 = 20;
    /// Where device and function start.
    pub const FUNCTION_SHIFT: u32 = 12;
    /// Offset in the function's space.
    pub const REGISTER: u32 = 0xFFF;
}
