//! Registers of the I/O APIC (Intel 82093AA datasheet 290566 §3; the EOI register: ICH9 datasheet
//! §13.5.3).

/// Offset of the index register.
pub const INDEX: u32 = 0x00;
/// Offset of the data window.
pub const WINDOW: u32 = 0x10;
/// Offset of the EOI register.
pub const EOI: u32 = 0x40;

/// Index of the identification register.
pub const ID: u8 = 0x00;
/// Index of the version register.
pub const VERSION: u8 = 0x01;
/// Index of the arbitration register.
pub const ARBITRATION: u8 = 0x02;
/// Index of the first redirection register; two per pin, low half first.
pub const REDIRECTION: u8 = 0x10;

/// Version 0x20, highest entry in bits 16 to 23.
pub const VERSION_VALUE: u32 = 0x0017_0020;

/// One redirection table entry (82093AA §3.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Redirection(pub u64);

impl Redirection {
    /// Set by software: not delivery status (12) and remote IRR (14).
    pub const WRITABLE: u64 = 0xFF00_0000_0001_AFFF;
    /// An edge-triggered fixed interrupt was accepted for delivery; never visible here, as
    /// delivery takes no time.
    pub const DELIVERY_STATUS: u64 = 1 << 12;
    /// A level-triggered interrupt was delivered and not yet ended.
    pub const REMOTE_IRR: u64 = 1 << 14;
    /// Level-triggered.
    pub const LEVEL: u64 = 1 << 15;
    /// Masked.
    pub const MASKED: u64 = 1 << 16;

    /// An entry after reset: masked.
    pub const RESET: Self = Self(Self::MASKED);

    /// The vector.
    #[must_use]
    pub const fn vector(self) -> u8 {
        self.0 as u8
    }
    /// Delivery mode as in the local APIC: 0 fixed, 1 lowest priority, 2 SMI, 4 NMI, 5 INIT,
    /// 7 ExtINT.
    #[must_use]
    pub const fn delivery_mode(self) -> u8 {
        (self.0 >> 8 & 7) as u8
    }
    /// 0 physical, 1 logical.
    #[must_use]
    pub const fn destination_mode(self) -> u8 {
        (self.0 >> 11 & 1) as u8
    }
    /// The 8-bit destination.
    #[must_use]
    pub const fn destination(self) -> u8 {
        (self.0 >> 56) as u8
    }
    /// Whether any of `bits` is set.
    #[must_use]
    pub const fn has(self, bits: u64) -> bool {
        self.0 & bits != 0
    }
}
