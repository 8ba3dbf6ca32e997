//! The i8042's registers and commands (IBM PS/2 Hardware Interface Technical Reference,
//! "Keyboard and Auxiliary Device Controller"; "Keyboards (101- and 102-key)"; "Mouse").

use bitflags::bitflags;

bitflags! {
    /// The status register, port 0x64.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Status: u8 {
        /// The output buffer has a byte.
        const OUTPUT_FULL = 1 << 0;
        /// The input buffer has a byte; never seen here, as bytes are taken at once.
        const INPUT_FULL = 1 << 1;
        /// The system flag of the command byte.
        const SYSTEM = 1 << 2;
        /// The last write was a command.
        const COMMAND = 1 << 3;
        /// The keyboard isn't locked.
        const UNLOCKED = 1 << 4;
        /// The byte comes from the auxiliary port.
        const AUX = 1 << 5;
    }

    /// The command byte: byte 0 of the controller's RAM.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct CommandByte: u8 {
        /// IRQ 1 when the output buffer fills.
        const KEYBOARD_INTERRUPT = 1 << 0;
        /// IRQ 12 when it fills from the auxiliary port.
        const AUX_INTERRUPT = 1 << 1;
        /// Shown in the status.
        const SYSTEM = 1 << 2;
        /// The keyboard's clock is held low.
        const KEYBOARD_OFF = 1 << 4;
        /// The auxiliary port's clock is held low.
        const AUX_OFF = 1 << 5;
        /// Scan codes of set 2 become those of set 1.
        const TRANSLATE = 1 << 6;
    }

    /// The output port.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct OutputPort: u8 {
        /// Low resets the processor.
        const NO_RESET = 1 << 0;
        /// The A20 gate.
        const A20 = 1 << 1;
        /// The output buffer is full from the keyboard.
        const KEYBOARD_FULL = 1 << 4;
        /// The output buffer is full from the auxiliary port.
        const AUX_FULL = 1 << 5;
    }
}

/// Commands at port 0x64.
pub mod command {
    /// First of 32: reads a byte of the controller's RAM.
    pub const READ_RAM: u8 = 0x20;
    /// First of 32: writes a byte of the controller's RAM.
    pub const WRITE_RAM: u8 = 0x60;
    /// Is a password there?
    pub const TEST_PASSWORD: u8 = 0xA4;
    /// Auxiliary port off.
    pub const AUX_OFF: u8 = 0xA7;
    /// Auxiliary port on.
    pub const AUX_ON: u8 = 0xA8;
    /// Tests the auxiliary port's wires.
    pub const AUX_TEST: u8 = 0xA9;
    /// Tests the controller.
    pub const SELF_TEST: u8 = 0xAA;
    /// Tests the keyboard's wires.
    pub const KEYBOARD_TEST: u8 = 0xAB;
    /// Keyboard off.
    pub const KEYBOARD_OFF: u8 = 0xAD;
    /// Keyboard on.
    pub const KEYBOARD_ON: u8 = 0xAE;
    /// Reads the input port.
    pub const READ_INPUT_PORT: u8 = 0xC0;
    /// Reads the output port.
    pub const READ_OUTPUT_PORT: u8 = 0xD0;
    /// Writes the output port.
    pub const WRITE_OUTPUT_PORT: u8 = 0xD1;
    /// The next byte comes back as if from the keyboard.
    pub const ECHO_KEYBOARD: u8 = 0xD2;
    /// The next byte comes back as if from the auxiliary port.
    pub const ECHO_AUX: u8 = 0xD3;
    /// The next byte goes to the auxiliary device.
    pub const WRITE_AUX: u8 = 0xD4;
    /// A20 low (an extension of many chipsets).
    pub const A20_LOW: u8 = 0xDD;
    /// A20 high.
    pub const A20_HIGH: u8 = 0xDF;
    /// Reads the test inputs.
    pub const READ_TEST_INPUTS: u8 = 0xE0;
    /// First of 16: pulses the low four lines of the output port whose bit is 0.
    pub const PULSE: u8 = 0xF0;
}

/// Answers of keyboard and mouse.
pub mod answer {
    /// Acknowledge.
    pub const ACK: u8 = 0xFA;
    /// Say that again: unknown command.
    pub const RESEND: u8 = 0xFE;
    /// Basic assurance test passed.
    pub const TEST_PASSED: u8 = 0xAA;
}

/// What a scan code of set 2 becomes in set 1 (PS/2 reference, "Scan Code Translation").
/// 0xF0 (release) isn't here; it sets bit 7 of the next one.
#[must_use]
pub fn translate(code: u8) -> u8 {
    match code {
        0x83 => 0x41,
        0x84 => 0x54,
        _ => TRANSLATION.get(usize::from(code)).copied().unwrap_or(code),
    }
}

#[rustfmt::skip]
const TRANSLATION: [u8; 128] = [
    0xFF, 0x43, 0x41, 0x3F, 0x3D, 0x3B, 0x3C, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3E, 0x0F, 0x29, 0x59,
    0x65, 0x38, 0x2A, 0x70, 0x1D, 0x10, 0x02, 0x5A, 0x66, 0x71, 0x2C, 0x1F, 0x1E, 0x11, 0x03, 0x5B,
    0x67, 0x2E, 0x2D, 0x20, 0x12, 0x05, 0x04, 0x5C, 0x68, 0x39, 0x2F, 0x21, 0x14, 0x13, 0x06, 0x5D,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5E, 0x6A, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5F,
    0x6B, 0x33, 0x25, 0x17, 0x18, 0x0B, 0x0A, 0x60, 0x6C, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0C, 0x61,
    0x6D, 0x73, 0x28, 0x74, 0x1A, 0x0D, 0x62, 0x6E, 0x3A, 0x36, 0x1C, 0x1B, 0x75, 0x2B, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7A, 0x0E, 0x7B, 0x7C, 0x4F, 0x7D, 0x4B, 0x47, 0x7E, 0x7F, 0x6F,
    0x52, 0x53, 0x50, 0x4C, 0x4D, 0x48, 0x01, 0x45, 0x57, 0x4E, 0x51, 0x4A, 0x37, 0x49, 0x46, 0x54,
];

/// The mark before a released key's code in set 2.
pub const RELEASE: u8 = 0xF0;

/// Time between two bytes of a device. A byte takes about 1 ms on the wire; handlers that read the
/// data port twice for one interrupt count on the second read giving the same byte.
pub const BYTE_NS: u64 = 300_000;
