//! Layouts of the rings (virtio 1.2 §2.7, §2.8).

/// The largest queue (§2.7, §2.8.10.1).
pub const SIZE_MAX: u16 = 32768;
/// Bytes of a descriptor, in either form of ring and in indirect tables.
pub const DESCRIPTOR_LEN: u64 = 16;

/// Descriptor flags of both forms (§2.7.5, §2.8.13).
pub mod flag {
    /// Another descriptor follows.
    pub const NEXT: u16 = 1;
    /// The device writes, else it reads.
    pub const WRITE: u16 = 2;
    /// The buffer is a table of descriptors.
    pub const INDIRECT: u16 = 4;
    /// Packed: compared with the driver's wrap counter.
    pub const AVAIL: u16 = 1 << 7;
    /// Packed: compared with the device's wrap counter.
    pub const USED: u16 = 1 << 15;
}

/// The split ring (§2.7.5 to §2.7.8). Its three parts are wherever the driver put them.
pub mod split {
    /// Alignment of the descriptor table.
    pub const DESCRIPTOR_ALIGN: u64 = 16;
    /// Alignment of the available ring.
    pub const AVAIL_ALIGN: u64 = 2;
    /// Alignment of the used ring.
    pub const USED_ALIGN: u64 = 4;
    /// Offset of the flags in the available and the used ring.
    pub const FLAGS: u64 = 0;
    /// Offset of the index in both.
    pub const INDEX: u64 = 2;
    /// Offset of the entries in both.
    pub const ENTRIES: u64 = 4;
    /// Bytes of an available entry: a descriptor's number.
    pub const AVAIL_ENTRY_LEN: u64 = 2;
    /// Bytes of a used entry: a descriptor's number and a length, 32 bits each.
    pub const USED_ENTRY_LEN: u64 = 8;
    /// Available ring's flag: no interrupt, please.
    pub const NO_INTERRUPT: u16 = 1;
    /// Used ring's flag: no notification, please.
    pub const NO_NOTIFY: u16 = 1;
    /// Where a legacy driver's used ring begins: the next multiple behind the available ring
    /// (§2.7.2).
    pub const LEGACY_ALIGN: u64 = 4096;
}

/// The packed ring (§2.8.13, §2.8.14).
pub mod packed {
    /// Alignment of the ring.
    pub const RING_ALIGN: u64 = 16;
    /// Alignment of the two event suppression structures.
    pub const EVENT_ALIGN: u64 = 4;
    /// Offset in an event suppression structure: descriptor offset (bits 0 to 14) and wrap
    /// counter (bit 15).
    pub const EVENT_OFFSET: u64 = 0;
    /// Offset in it: flags.
    pub const EVENT_FLAGS: u64 = 2;
    /// Bytes of it.
    pub const EVENT_LEN: u64 = 4;
    /// Events on.
    pub const EVENTS_ENABLE: u16 = 0;
    /// Events off.
    pub const EVENTS_DISABLE: u16 = 1;
    /// One event, at a descriptor (needs `EVENT_IDX`).
    pub const EVENTS_DESCRIPTOR: u16 = 2;
    /// Mask of those.
    pub const EVENTS: u16 = 3;
    /// The wrap counter in `EVENT_OFFSET`.
    pub const EVENT_WRAP: u16 = 1 << 15;
}
