//! The ports of a PC that the hypervisor uses itself.

use core::arch::asm;

use crate::calendar::ClockRegisters;

unsafe fn out8(port: u16, value: u8) {
    // SAFETY: by the caller.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack)) }
}

unsafe fn out16(port: u16, value: u16) {
    // SAFETY: by the caller.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack)) }
}

unsafe fn out32(port: u16, value: u32) {
    // SAFETY: by the caller.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack)) }
}

unsafe fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: by the caller.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nostack)) }
    value
}

unsafe fn in32(port: u16) -> u32 {
    let value;
    // SAFETY: by the caller.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack)) }
    value
}

/// The registers of a serial port.
#[derive(Clone, Copy, Debug)]
pub struct SerialPort(u16);

impl SerialPort {
    /// The first one, at the port where every PC has it.
    pub const FIRST: Self = Self(0x3F8);

    /// Reads register 0 to 7.
    #[must_use]
    pub fn read(self, register: u8) -> u8 {
        // SAFETY: the UART's registers change nothing but its lines.
        unsafe { in8(self.0 + u16::from(register & 7)) }
    }

    /// Writes register 0 to 7.
    pub fn write(self, register: u8, value: u8) {
        // SAFETY: as above.
        unsafe { out8(self.0 + u16::from(register & 7), value) }
    }
}

/// Masks all lines of the two 8259A: interrupts come through the I/O APIC. They get vectors where
/// a spurious one does no harm.
pub fn mask_pics() {
    const WRITES: [(u16, u8); 10] = [
        (0x20, 0x11),
        (0xA0, 0x11),
        (0x21, 0xE0),
        (0xA1, 0xE8),
        (0x21, 4),
        (0xA1, 2),
        (0x21, 1),
        (0xA1, 1),
        (0x21, 0xFF),
        (0xA1, 0xFF),
    ];
    for (port, value) in WRITES {
        // SAFETY: the 8259A's sequence of initialization words; interrupts are off.
        unsafe { out8(port, value) }
    }
}

/// The ACPI timer at its port.
pub(crate) fn pm_timer_ticks(port: u16) -> u32 {
    // SAFETY: reading the timer changes nothing.
    unsafe { in32(port) }
}

/// Waits so many milliseconds (up to 50) by channel 2 of the 8254, whose output can be read.
pub(crate) fn pit_ms(ms: u16) {
    let [low, high] = ms.min(50).saturating_mul(1193).to_le_bytes();
    // SAFETY: channel 2 drives nothing but the speaker, which is kept off.
    unsafe {
        let gate = in8(0x61) & !3;
        out8(0x61, gate);
        out8(0x43, 0xB0);
        out8(0x42, low);
        out8(0x42, high);
        out8(0x61, gate | 1);
        while in8(0x61) & 0x20 == 0 {
            core::hint::spin_loop();
        }
    }
}

/// Seconds since 1970 by the real-time clock.
#[must_use]
pub fn wall_clock() -> u64 {
    let read = |register: u8| {
        // SAFETY: reading the clock changes nothing. NMI stays as the firmware has it (bit 7 clear).
        unsafe {
            out8(0x70, register);
            in8(0x71)
        }
    };
    let all = || ClockRegisters {
        second: read(0),
        minute: read(2),
        hour: read(4),
        day: read(7),
        month: read(8),
        year: read(9),
        status_b: read(11),
    };
    // The same twice is not in the middle of an update.
    let mut last = all();
    for _ in 0..100 {
        let now = all();
        if now == last {
            break;
        }
        last = now;
    }
    last.unix_seconds()
}

/// Switches the machine off: `sleep_type` is what the firmware's `_S5_` says, `port` the fixed
/// hardware's PM1a control register (ACPI 6.5 §4.8.4.2.1). Returns if that didn't work.
pub fn power_off(port: u16, sleep_type: u8) {
    const SLEEP_ENABLE: u16 = 1 << 13;
    // SAFETY: nothing runs any more that would miss the machine.
    unsafe {
        out16(port, u16::from(sleep_type & 7) << 10 | SLEEP_ENABLE);
        // Bochs has a port of its own for that.
        b"Shutdown".iter().for_each(|byte| out8(0x8900, *byte));
    }
}

/// Resets the machine: by the chip set, then by the keyboard controller.
pub fn reset() -> ! {
    // SAFETY: nothing runs any more that would miss the machine.
    unsafe {
        out8(0xCF9, 6);
        crate::time::delay_us(1000);
        out8(0x64, 0xFE);
    }
    crate::registers::halt_for_ever()
}

/// PCI configuration by ports (PCI Local Bus 3.0 §3.2.2.3.2).
#[derive(Clone, Copy, Debug)]
pub struct Pci;

impl Pci {
    /// The dword at `offset` of a function's configuration space; all ones where nothing is.
    #[must_use]
    pub fn read(self, bus: u8, device: u8, function: u8, offset: u8) -> u32 {
        let address = 1 << 31
            | u32::from(bus) << 16
            | u32::from(device & 31) << 11
            | u32::from(function & 7) << 8
            | u32::from(offset & 0xFC);
        crate::interrupts::with_interrupts_off(|| {
            // SAFETY: reading configuration space has no side effects. One processor scans.
            unsafe {
                out32(0xCF8, address);
                in32(0xCFC)
            }
        })
    }
}
