//! Segment registers and descriptor tables (SDM vol. 3A §3.4, §2.4).

use kasane_spec_x86::descriptor::access;
use serde::{Deserialize, Serialize};

/// Names of the segment registers, with the numbers that instructions encode for the first six.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Seg {
    /// ES
    Es = 0,
    /// CS
    Cs = 1,
    /// SS
    Ss = 2,
    /// DS
    Ds = 3,
    /// FS
    Fs = 4,
    /// GS
    Gs = 5,
}

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRegister {
    /// Visible selector.
    pub selector: u16,
    /// Access rights, see [`kasane_spec_x86::descriptor::access`]. A null (unusable) segment
    /// has P clear.
    pub access: u16,
    /// Limit in bytes, inclusive, already scaled.
    pub limit: u32,
    /// Linear base address.
    pub base: u64,
}

impl SegmentRegister {
    /// A real-mode segment: base = selector * 16, limit 64 KiB, read/write data.
    #[must_use]
    pub const fn real_mode(selector: u16) -> Self {
        Self { selector, access: 0x93, limit: 0xFFFF, base: (selector as u64) << 4 }
    }
    /// Present.
    #[must_use]
    pub const fn present(&self) -> bool {
        self.access & access::P != 0
    }
    /// Descriptor privilege level.
    #[must_use]
    pub const fn dpl(&self) -> u8 {
        ((self.access >> access::DPL_SHIFT) & 3) as u8
    }
    /// The L bit: 64-bit code.
    #[must_use]
    pub const fn long(&self) -> bool {
        self.access & access::L != 0
    }
    /// The D/B bit.
    #[must_use]
    pub const fn big(&self) -> bool {
        self.access & access::DB != 0
    }
    /// The four type bits.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        (self.access & access::TYPE) as u8
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorTable {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes, inclusive.
    pub limit: u16,
}
