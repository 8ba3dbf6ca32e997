//! Registers of the MC146818 (Motorola datasheet ADI-1025, pages 10 to 16).

use bitflags::bitflags;

/// Seconds.
pub const SECONDS: u8 = 0x00;
/// Seconds of the alarm; 0xC0 and above: every one.
pub const SECONDS_ALARM: u8 = 0x01;
/// Minutes.
pub const MINUTES: u8 = 0x02;
/// Minutes of the alarm.
pub const MINUTES_ALARM: u8 = 0x03;
/// Hours; in 12-hour form bit 7 is "p.m.".
pub const HOURS: u8 = 0x04;
/// Hours of the alarm.
pub const HOURS_ALARM: u8 = 0x05;
/// Day of the week, 1 is Sunday.
pub const WEEKDAY: u8 = 0x06;
/// Day of the month.
pub const DAY: u8 = 0x07;
/// Month.
pub const MONTH: u8 = 0x08;
/// Year of the century.
pub const YEAR: u8 = 0x09;
/// Register A.
pub const A: u8 = 0x0A;
/// Register B.
pub const B: u8 = 0x0B;
/// Register C.
pub const C: u8 = 0x0C;
/// Register D.
pub const D: u8 = 0x0D;
/// Century, by convention of the PC (the FADT's CENTURY field names it).
pub const CENTURY: u8 = 0x32;

bitflags! {
    /// Register A.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RegisterA: u8 {
        /// Rate of the periodic interrupt.
        const RATE = 0x0F;
        /// Divider; 0b11x holds it in reset.
        const DIVIDER = 0x70;
        /// The two bits that hold the divider in reset.
        const DIVIDER_RESET = 0x60;
        /// An update is going on or will begin within 244 µs.
        const UPDATE_IN_PROGRESS = 1 << 7;
    }

    /// Register B.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RegisterB: u8 {
        /// Daylight saving; not done, as on most chips since.
        const DAYLIGHT_SAVING = 1 << 0;
        /// Hours from 0 to 23.
        const HOURS_24 = 1 << 1;
        /// Binary, not BCD.
        const BINARY = 1 << 2;
        /// Square wave output, not connected in a PC.
        const SQUARE_WAVE = 1 << 3;
        /// Update-ended interrupt enabled.
        const UPDATE_INTERRUPT = 1 << 4;
        /// Alarm interrupt enabled.
        const ALARM_INTERRUPT = 1 << 5;
        /// Periodic interrupt enabled.
        const PERIODIC_INTERRUPT = 1 << 6;
        /// No updates, so that the time can be set.
        const SET = 1 << 7;
    }

    /// Register C: cleared by reading it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RegisterC: u8 {
        /// Update ended.
        const UPDATE = 1 << 4;
        /// Alarm.
        const ALARM = 1 << 5;
        /// Periodic.
        const PERIODIC = 1 << 6;
        /// Any of them, where enabled.
        const REQUEST = 1 << 7;
    }
}

/// Register D: the battery is good.
pub const VALID_RAM_AND_TIME: u8 = 0x80;
/// Update-in-progress leads the update by so much (datasheet figure 14, 32.768 kHz).
pub const UPDATE_LEAD_NS: u64 = 244_000;
/// The home's wall clock and guest time, read one after the other, may seem to have moved apart by
/// this much without anything having happened.
pub const APART_NS: u64 = 50_000_000;
/// The first update comes so long after the divider leaves reset (datasheet page 13).
pub const FIRST_UPDATE_NS: u64 = 500_000_000;
