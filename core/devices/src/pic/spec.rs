//! Command words of the 8259A (Intel datasheet 231468-003, pages 10 to 17).

use bitflags::bitflags;

bitflags! {
    /// Initialisation command word 1, at the command port.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Icw1: u8 {
        /// ICW4 will follow; without it all its functions are off.
        const NEEDS_ICW4 = 1 << 0;
        /// Single: no ICW3 follows.
        const SINGLE = 1 << 1;
        /// Call interval, of the MCS-80 only.
        const INTERVAL_4 = 1 << 2;
        /// Level-triggered; the PIIX4 has the ELCR instead and ignores it (§4.2.1).
        const LEVEL = 1 << 3;
        /// Marks ICW1.
        const MARK = 1 << 4;
    }

    /// Initialisation command word 4, at the data port.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Icw4: u8 {
        /// 8086 mode (the only one a PC has).
        const MODE_8086 = 1 << 0;
        /// Automatic end of interrupt.
        const AUTO_EOI = 1 << 1;
        /// Special fully nested mode.
        const SPECIAL_FULLY_NESTED = 1 << 4;
    }

    /// Operation command word 3, at the command port.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Ocw3: u8 {
        /// With `READ`: the in-service register is read next, else the request register.
        const READ_IN_SERVICE = 1 << 0;
        /// `READ_IN_SERVICE` counts.
        const READ = 1 << 1;
        /// The next read is a poll.
        const POLL = 1 << 2;
        /// Marks OCW3 (with `Icw1::MARK` clear).
        const MARK = 1 << 3;
        /// With `SPECIAL_MASK_COUNTS`: special mask mode on.
        const SPECIAL_MASK = 1 << 5;
        /// `SPECIAL_MASK` counts.
        const SPECIAL_MASK_COUNTS = 1 << 6;
    }
}

/// What operation command word 2 asks for: bits 5 to 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ocw2 {
    /// Rotation in automatic EOI mode off.
    ClearRotateInAutoEoi,
    /// End of the highest-priority interrupt in service.
    NonSpecificEoi,
    /// Nothing.
    NoOperation,
    /// End of interrupt at this level.
    SpecificEoi(u8),
    /// Rotation in automatic EOI mode on.
    SetRotateInAutoEoi,
    /// As `NonSpecificEoi`; its level gets the lowest priority.
    RotateOnNonSpecificEoi,
    /// This level gets the lowest priority.
    SetPriority(u8),
    /// As `SpecificEoi`; the level gets the lowest priority.
    RotateOnSpecificEoi(u8),
}

impl Ocw2 {
    /// Decodes a command byte with bits 3 and 4 clear.
    #[must_use]
    pub const fn decode(value: u8) -> Self {
        let level = value & 7;
        match value >> 5 {
            0 => Self::ClearRotateInAutoEoi,
            1 => Self::NonSpecificEoi,
            2 => Self::NoOperation,
            3 => Self::SpecificEoi(level),
            4 => Self::SetRotateInAutoEoi,
            5 => Self::RotateOnNonSpecificEoi,
            6 => Self::SetPriority(level),
            7.. => Self::RotateOnSpecificEoi(level),
        }
    }
}

/// Inputs of the first controller whose trigger mode can be set: not 0, 1 and 2 (PIIX4 §4.2.5).
pub const ELCR_1_MASK: u8 = 0xF8;
/// Inputs of the second controller whose trigger mode can be set: not 8 and 13.
pub const ELCR_2_MASK: u8 = 0xDE;
