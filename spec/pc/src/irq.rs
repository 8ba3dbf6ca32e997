//! Interrupt numbers: ISA IRQs, the same as 8259A inputs, and I/O APIC pins (GSIs).

/// 8254 channel 0.
pub const TIMER: u8 = 0;
/// i8042, keyboard port.
pub const KEYBOARD: u8 = 1;
/// The input of the first 8259A that the second one drives.
pub const CASCADE: u8 = 2;
/// 16550A at 0x2F8 and 0x2E8.
pub const SERIAL_2_4: u8 = 3;
/// 16550A at 0x3F8 and 0x3E8.
pub const SERIAL_1_3: u8 = 4;
/// Floppy controller.
pub const FLOPPY: u8 = 6;
/// Parallel port; also what a spurious request of the first 8259A looks like.
pub const PARALLEL: u8 = 7;
/// MC146818.
pub const RTC: u8 = 8;
/// ACPI's system control interrupt.
pub const SCI: u8 = 9;
/// i8042, auxiliary port.
pub const MOUSE: u8 = 12;
/// FERR#.
pub const FPU: u8 = 13;
/// First ATA channel in compatibility mode.
pub const ATA_PRIMARY: u8 = 14;
/// Second ATA channel in compatibility mode.
pub const ATA_SECONDARY: u8 = 15;

/// I/O APIC pin that ISA IRQ 0 is wired to (the MADT's interrupt source override).
pub const TIMER_GSI: u32 = 2;
/// Pins of the I/O APIC.
pub const IOAPIC_PINS: u32 = 24;
