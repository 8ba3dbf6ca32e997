//! Guest-physical addresses of memory-mapped chips.

/// I/O APIC.
pub const IOAPIC: u64 = 0xFEC0_0000;
/// Length of the I/O APIC's window in bytes.
pub const IOAPIC_LEN: u64 = 0x1000;
/// HPET.
pub const HPET: u64 = 0xFED0_0000;
/// Length of the HPET's window in bytes (IA-PC HPET 1.0a §2.3).
pub const HPET_LEN: u64 = 0x400;
/// Local APICs.
pub const LOCAL_APIC: u64 = 0xFEE0_0000;
/// Length of a local APIC's window in bytes.
pub const LOCAL_APIC_LEN: u64 = 0x1000;
