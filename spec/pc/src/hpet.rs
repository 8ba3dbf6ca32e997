//! What the HPET's description table and its driver have to know (IA-PC HPET 1.0a §2.3, §3.2).

/// Timers.
pub const TIMERS: u32 = 3;
/// Length of a tick in femtoseconds: 10 ns.
pub const PERIOD_FS: u32 = 10_000_000;
/// Length of a tick in nanoseconds.
pub const PERIOD_NS: u64 = 10;
/// The general capabilities register's low half, which is also the table's "event timer block
/// id": revision 1, three timers, 64-bit counter, legacy replacement, vendor 0x8086.
pub const BLOCK_ID: u32 = 0x8086_0000 | 1 << 15 | 1 << 13 | (TIMERS - 1) << 8 | 1;
/// The I/O APIC pins that each timer can be routed to.
pub const ROUTES: u32 = 0x00F0_0000;
