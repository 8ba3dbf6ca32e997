//! Control words of the 8254 (Intel datasheet 231164-005, pages 6 to 9) and port 0x61
//! (PIIX4 §4.2.6).

use bitflags::bitflags;

/// Ticks per second. The PC's oscillator is 14.31818 MHz over 12; every system rounds to this.
pub const TICKS_PER_SECOND: u64 = 1_193_182;
/// Deadlines of a periodic counter are at least so many ticks apart: 50.3 µs. A guest may count
/// from 1 (838 ns), which a host would need a whole core to follow; the rises in between are one.
pub const SHORTEST_DEADLINE_TICKS: u64 = 60;

/// How a counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Mode {
    /// 0: OUT rises at the end of the count.
    TerminalCount,
    /// 1: a gate edge makes OUT low for the count.
    OneShot,
    /// 2: OUT is low for the last tick of each period.
    RateGenerator,
    /// 3: OUT is high for one half of each period.
    SquareWave,
    /// 4: OUT is low for one tick after the count.
    SoftwareStrobe,
    /// 5: the same, started by a gate edge.
    HardwareStrobe,
}

impl Mode {
    /// Decodes bits 1 to 3 of a control word; 6 and 7 are 2 and 3.
    #[must_use]
    pub const fn decode(bits: u8) -> Self {
        match bits & 7 {
            0 => Self::TerminalCount,
            1 => Self::OneShot,
            2 | 6 => Self::RateGenerator,
            3 | 7 => Self::SquareWave,
            4 => Self::SoftwareStrobe,
            5.. => Self::HardwareStrobe,
        }
    }
    /// The number of the mode.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::TerminalCount => 0,
            Self::OneShot => 1,
            Self::RateGenerator => 2,
            Self::SquareWave => 3,
            Self::SoftwareStrobe => 4,
            Self::HardwareStrobe => 5,
        }
    }
    /// Whether the count starts over by itself.
    #[must_use]
    pub const fn is_periodic(self) -> bool {
        matches!(self, Self::RateGenerator | Self::SquareWave)
    }
    /// Whether a rising gate starts the count, not the write of a count.
    #[must_use]
    pub const fn is_triggered(self) -> bool {
        matches!(self, Self::OneShot | Self::HardwareStrobe)
    }
}

/// Which bytes of a count are read and written: bits 4 and 5 of a control word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Bytes {
    /// The low one.
    Low,
    /// The high one.
    High,
    /// The low one, then the high one.
    Both,
}

impl Bytes {
    /// The two bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Low => 1,
            Self::High => 2,
            Self::Both => 3,
        }
    }
}

/// How a counter counts digits: bit 0 of a control word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Radix {
    /// 16 bits.
    Binary,
    /// Four decimal digits.
    Decimal,
}

impl Radix {
    /// From a control word.
    #[must_use]
    pub const fn decode(control: u8) -> Self {
        if control & 1 == 0 { Self::Binary } else { Self::Decimal }
    }
}

bitflags! {
    /// The read-back command's bits (datasheet page 8); the first two mean "don't".
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ReadBack: u8 {
        /// The counts are not latched.
        const NO_COUNT = 1 << 5;
        /// The status bytes are not latched.
        const NO_STATUS = 1 << 4;
    }

    /// Port 0x61.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ControlB: u8 {
        /// Gate of counter 2.
        const GATE_2 = 1 << 0;
        /// Counter 2 drives the speaker.
        const SPEAKER = 1 << 1;
        /// Parity errors make no NMI.
        const PARITY_OFF = 1 << 2;
        /// Channel checks make no NMI.
        const CHANNEL_CHECK_OFF = 1 << 3;
        /// Toggles with each refresh; read only.
        const REFRESH = 1 << 4;
        /// OUT of counter 2; read only.
        const OUT_2 = 1 << 5;
        /// What a write changes.
        const WRITABLE = 0x0F;
    }
}

/// Ticks between two refresh requests.
pub const REFRESH_TICKS: u64 = 18;
