//! Registers of the 16550A (National Semiconductor PC16550D datasheet, June 1995, §8).

use bitflags::bitflags;

/// Offset: receiver buffer, transmitter holding register, low byte of the divisor.
pub const DATA: u32 = 0;
/// Offset: interrupt enable, high byte of the divisor.
pub const IER: u32 = 1;
/// Offset: interrupt identification (read), FIFO control (write).
pub const IIR_FCR: u32 = 2;
/// Offset: line control.
pub const LCR: u32 = 3;
/// Offset: modem control.
pub const MCR: u32 = 4;
/// Offset: line status.
pub const LSR: u32 = 5;
/// Offset: modem status.
pub const MSR: u32 = 6;
/// Offset: scratch.
pub const SCR: u32 = 7;

/// Bytes in each FIFO.
pub const FIFO_LEN: usize = 16;
/// Input clock in Hz; one bit takes 16 times the divisor.
pub const CLOCK_HZ: u64 = 1_843_200;

bitflags! {
    /// Interrupt enable (§8.6).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Ier: u8 {
        /// Received data available, and its time-out.
        const RECEIVED = 1 << 0;
        /// Transmitter holding register empty.
        const TRANSMITTER = 1 << 1;
        /// Receiver line status.
        const LINE = 1 << 2;
        /// Modem status.
        const MODEM = 1 << 3;
    }

    /// FIFO control (§8.4).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Fcr: u8 {
        /// FIFOs on; without it the other bits mean nothing.
        const ENABLE = 1 << 0;
        /// Empties the receiver's.
        const RESET_RECEIVER = 1 << 1;
        /// Empties the transmitter's.
        const RESET_TRANSMITTER = 1 << 2;
        /// Signals for a DMA controller; kept, not connected.
        const DMA_MODE = 1 << 3;
        /// Trigger level 1, 4, 8 or 14.
        const TRIGGER = 0xC0;
    }

    /// Line control (§8.1).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Lcr: u8 {
        /// Word length less 5.
        const WORD_LENGTH = 3;
        /// Two stop bits.
        const STOP = 1 << 2;
        /// Parity.
        const PARITY = 1 << 3;
        /// Break.
        const BREAK = 1 << 6;
        /// Offsets 0 and 1 are the divisor.
        const DIVISOR_ACCESS = 1 << 7;
    }

    /// Modem control (§8.7).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Mcr: u8 {
        /// Data terminal ready.
        const DTR = 1 << 0;
        /// Request to send.
        const RTS = 1 << 1;
        /// Output 1, not connected.
        const OUT1 = 1 << 2;
        /// Output 2: in a PC it lets the interrupt through.
        const OUT2 = 1 << 3;
        /// Loopback.
        const LOOP = 1 << 4;
        /// What can be written.
        const WRITABLE = 0x1F;
    }

    /// Line status (§8.3).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Lsr: u8 {
        /// Data ready.
        const DATA_READY = 1 << 0;
        /// A byte was lost.
        const OVERRUN = 1 << 1;
        /// Parity error.
        const PARITY = 1 << 2;
        /// Framing error.
        const FRAMING = 1 << 3;
        /// Break.
        const BREAK = 1 << 4;
        /// Transmitter holding register (or FIFO) empty.
        const HOLDING_EMPTY = 1 << 5;
        /// Transmitter empty altogether.
        const TRANSMITTER_EMPTY = 1 << 6;
        /// An error is somewhere in the FIFO.
        const FIFO_ERROR = 1 << 7;
        /// What makes the line status interrupt.
        const ERRORS = 0x1E;
    }

    /// Modem status (§8.8).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Msr: u8 {
        /// CTS changed.
        const DELTA_CTS = 1 << 0;
        /// DSR changed.
        const DELTA_DSR = 1 << 1;
        /// RI ended.
        const TRAILING_RI = 1 << 2;
        /// DCD changed.
        const DELTA_DCD = 1 << 3;
        /// Clear to send.
        const CTS = 1 << 4;
        /// Data set ready.
        const DSR = 1 << 5;
        /// Ring indicator.
        const RI = 1 << 6;
        /// Data carrier detect.
        const DCD = 1 << 7;
        /// The four that reading clears.
        const DELTAS = 0x0F;
    }
}

/// Interrupt identification (§8.5), highest priority first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identification {
    /// An error or a break.
    Line,
    /// The trigger level is reached.
    Received,
    /// Bytes below the trigger level, and nothing came or was read for four characters.
    Timeout,
    /// The transmitter holding register is empty.
    Transmitter,
    /// A modem line changed.
    Modem,
    /// None.
    None,
}

impl Identification {
    /// Bits 0 to 3.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Line => 0x06,
            Self::Received => 0x04,
            Self::Timeout => 0x0C,
            Self::Transmitter => 0x02,
            Self::Modem => 0x00,
            Self::None => 0x01,
        }
    }
}
