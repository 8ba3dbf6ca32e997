//! I/O ports: the serial console, and the end.

use core::arch::asm;
use core::fmt::{self, Write};

/// COM1's data register.
const COM1: u16 = 0x3F8;
/// Its line status; bit 5: there is room.
const COM1_STATUS: u16 = COM1 + 5;
/// PM1a_CNT of the `pc` board, and SLP_EN with SLP_TYP 0: off.
const POWER: u16 = 0x604;
const POWER_OFF: u16 = 0x2000;

/// Writes a byte.
pub fn write_u8(port: u16, value: u8) {
    // SAFETY: ports are no memory of this program; no device here is told to touch any but by the
    // drivers.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) }
}

/// Reads a byte.
pub fn read_u8(port: u16) -> u8 {
    let value;
    // SAFETY: as in `write_u8`.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack)) }
    value
}

/// Writes a doubleword.
pub fn write_u32(port: u16, value: u32) {
    // SAFETY: as in `write_u8`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack)) }
}

/// Reads a doubleword.
pub fn read_u32(port: u16) -> u32 {
    let value;
    // SAFETY: as in `write_u8`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack)) }
    value
}

/// The first serial port.
pub struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while read_u8(COM1_STATUS) & 0x20 == 0 {}
            write_u8(COM1, byte);
        }
        Ok(())
    }
}

/// Prints a line on the serial console.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {{
        let _always_ok = core::fmt::Write::write_fmt(
            &mut $crate::port::Serial,
            format_args!("{}\n", format_args!($($text)*)),
        );
    }};
}

/// Powers the machine off.
pub fn power_off() -> ! {
    // SAFETY: as in `write_u8`.
    unsafe { asm!("out dx, ax", in("dx") POWER, in("ax") POWER_OFF, options(nomem, nostack)) }
    loop {
        // SAFETY: halts; interrupts are off.
        unsafe { asm!("hlt", options(nomem, nostack)) }
    }
}
