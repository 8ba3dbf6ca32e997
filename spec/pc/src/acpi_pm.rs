//! The PIIX4's power management block: offsets from its base, and the bits of the registers that
//! ACPI defines (PIIX4 §7.2; ACPI 6.5 §4.8.3). What the FADT has to say of it.

/// Bytes of the block.
pub const LEN: u16 = 0x40;
/// PM1 status, 16 bits.
pub const PM1_STATUS: u16 = 0x00;
/// PM1 enable, 16 bits.
pub const PM1_ENABLE: u16 = 0x02;
/// PM1 control, 16 bits.
pub const PM1_CONTROL: u16 = 0x04;
/// Timer, 32 bits.
pub const TIMER: u16 = 0x08;
/// General purpose event status, 16 bits: the first half of GPE0_BLK.
pub const GPE0_STATUS: u16 = 0x0C;
/// General purpose event enable, 16 bits: the second half.
pub const GPE0_ENABLE: u16 = 0x0E;
/// Length of GPE0_BLK in bytes.
pub const GPE0_LEN: u8 = 4;

/// Frequency of the timer in Hz.
pub const TIMER_HZ: u64 = 3_579_545;

/// PM1: the timer's highest bit changed.
pub const TIMER_BIT: u16 = 1 << 0;
/// PM1 status: a bus master asked.
pub const BUS_MASTER: u16 = 1 << 4;
/// PM1: the firmware released the global lock.
pub const GLOBAL: u16 = 1 << 5;
/// PM1: the power button.
pub const POWER_BUTTON: u16 = 1 << 8;
/// PM1: the clock's alarm.
pub const RTC: u16 = 1 << 10;
/// PM1 status: awake again.
pub const WAKE: u16 = 1 << 15;

/// PM1 control: events are SCIs.
pub const SCI_ENABLE: u16 = 1 << 0;
/// PM1 control: bus masters wake from C3.
pub const BUS_MASTER_RELOAD: u16 = 1 << 1;
/// PM1 control: releases the global lock; write only.
pub const GLOBAL_RELEASE: u16 = 1 << 2;
/// PM1 control: where the type of sleep starts, three bits.
pub const SLEEP_TYPE_SHIFT: u32 = 10;
/// PM1 control: the type of sleep.
pub const SLEEP_TYPE: u16 = 7 << SLEEP_TYPE_SHIFT;
/// PM1 control: sleep; write only.
pub const SLEEP_ENABLE: u16 = 1 << 13;

/// The type of sleep that is S5, soft off (PIIX4 §7.2.3).
pub const SLEEP_TYPE_S5: u8 = 0;

/// Value for the SMI command port that hands the events to the system.
pub const ACPI_ENABLE: u8 = 0xF1;
/// Value for the SMI command port that takes them back.
pub const ACPI_DISABLE: u8 = 0xF0;
