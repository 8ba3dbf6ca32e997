//! Feature bits that no device type owns (virtio 1.2 §6), as masks of the 64 bits.

/// A buffer may be described by a table of its own (§2.7.5.3, §2.8.8).
pub const INDIRECT_DESC: u64 = 1 << 28;
/// Each side says at which event it wants to be told (§2.7.7, §2.7.10, §2.8.10).
pub const EVENT_IDX: u64 = 1 << 29;
/// Not a legacy driver or device.
pub const VERSION_1: u64 = 1 << 32;
/// Device accesses go by the platform's rules for DMA.
pub const ACCESS_PLATFORM: u64 = 1 << 33;
/// The rings have the packed form (§2.8).
pub const RING_PACKED: u64 = 1 << 34;
/// Buffers are used in the order in which they were made available.
pub const IN_ORDER: u64 = 1 << 35;
/// Memory is ordered as for a device of the platform.
pub const ORDER_PLATFORM: u64 = 1 << 36;
/// Notifications carry data (§2.9).
pub const NOTIFICATION_DATA: u64 = 1 << 38;
/// One queue can be reset (§2.6.1).
pub const RING_RESET: u64 = 1 << 40;

/// Legacy interface only: the device interrupts when a queue runs empty (§6.3).
pub const LEGACY_NOTIFY_ON_EMPTY: u64 = 1 << 24;
/// Legacy interface only: the device makes no assumption about a message's framing (§6.3).
pub const LEGACY_ANY_LAYOUT: u64 = 1 << 27;

/// Bits that belong to the device type (§2.2): 0 to 23 and 50 to 127, of which we have 64.
pub const DEVICE_TYPE: u64 = 0xFFFC_0000_00FF_FFFF;
