//! Registers of the HPET (IA-PC HPET 1.0a §2.3).

use bitflags::bitflags;

/// Offset: capabilities and identification.
pub const CAPABILITIES: u32 = 0x000;
/// Offset: general configuration.
pub const CONFIGURATION: u32 = 0x010;
/// Offset: general interrupt status.
pub const STATUS: u32 = 0x020;
/// Offset: main counter.
pub const COUNTER: u32 = 0x0F0;
/// Offset of the first timer's registers.
pub const TIMERS: u32 = 0x100;
/// Bytes from one timer to the next.
pub const TIMER_STRIDE: u32 = 0x20;
/// Offset in a timer: configuration and capabilities.
pub const TIMER_CONFIGURATION: u32 = 0x00;
/// Offset in a timer: comparator.
pub const TIMER_COMPARATOR: u32 = 0x08;
/// Offset in a timer: message route.
pub const TIMER_MESSAGE: u32 = 0x10;

/// Deadlines of timers with short periods fall on multiples of this guest time: one such moment
/// serves all of them, and the matches up to it are one. A period may be 10 ns, which a host would
/// need a whole core to follow.
pub const DEADLINE_GRID_NS: u64 = 50_000;
/// A period below this is short: three timers together then have at most some 30,000 deadlines
/// a second.
pub const SHORT_PERIOD_NS: u64 = 3 * DEADLINE_GRID_NS;

bitflags! {
    /// General configuration (§2.3.5).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Configuration: u64 {
        /// The counter runs and interrupts are let through.
        const ENABLE = 1 << 0;
        /// Timers 0 and 1 replace IRQ 0 and IRQ 8.
        const LEGACY_REPLACEMENT = 1 << 1;
    }

    /// A timer's configuration (§2.3.8).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct TimerConfiguration: u64 {
        /// Level-triggered.
        const LEVEL = 1 << 1;
        /// Interrupts on.
        const ENABLE = 1 << 2;
        /// Periodic.
        const PERIODIC = 1 << 3;
        /// It can be periodic.
        const PERIODIC_CAPABLE = 1 << 4;
        /// It has 64 bits.
        const SIZE_64 = 1 << 5;
        /// The next write of a periodic timer's comparator sets the comparator too.
        const SET_VALUE = 1 << 6;
        /// It compares 32 bits.
        const MODE_32 = 1 << 8;
        /// The I/O APIC pin.
        const ROUTE = 0x1F << 9;
        /// It sends messages.
        const MESSAGES = 1 << 14;
        /// It can send messages.
        const MESSAGES_CAPABLE = 1 << 15;
        /// What software sets.
        const WRITABLE = 0x7F4E;
    }
}
