//! The block device (virtio 1.2 §5.2).

/// Feature bits (§5.2.3), as masks.
pub mod feature {
    /// `size_max` is valid.
    pub const SIZE_MAX: u64 = 1 << 1;
    /// `seg_max` is valid.
    pub const SEG_MAX: u64 = 1 << 2;
    /// `geometry` is valid.
    pub const GEOMETRY: u64 = 1 << 4;
    /// Read-only.
    pub const RO: u64 = 1 << 5;
    /// `blk_size` is valid.
    pub const BLK_SIZE: u64 = 1 << 6;
    /// Flushes.
    pub const FLUSH: u64 = 1 << 9;
    /// `topology` is valid.
    pub const TOPOLOGY: u64 = 1 << 10;
    /// The driver can switch the write cache.
    pub const CONFIG_WCE: u64 = 1 << 11;
    /// Several queues.
    pub const MQ: u64 = 1 << 12;
    /// Discards.
    pub const DISCARD: u64 = 1 << 13;
    /// Writes zeros.
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// `virtio_blk_config` (§5.2.4): offsets.
pub mod config {
    /// Capacity in sectors, 64 bits.
    pub const CAPACITY: usize = 0;
    /// Largest segment, 32 bits.
    pub const SIZE_MAX: usize = 8;
    /// Most segments of a request, 32 bits.
    pub const SEG_MAX: usize = 12;
    /// Cylinders (16 bits), heads, sectors (8 bits each).
    pub const GEOMETRY: usize = 16;
    /// Block size in bytes, 32 bits.
    pub const BLK_SIZE: usize = 20;
    /// log2 of the logical blocks in a physical one, 8 bits.
    pub const PHYSICAL_BLOCK_EXP: usize = 24;
    /// First aligned logical block, 8 bits.
    pub const ALIGNMENT_OFFSET: usize = 25;
    /// Suggested least I/O in logical blocks, 16 bits.
    pub const MIN_IO_SIZE: usize = 26;
    /// Suggested most I/O in logical blocks, 32 bits.
    pub const OPT_IO_SIZE: usize = 28;
    /// Write cache, 8 bits: 1 is write-back.
    pub const WRITEBACK: usize = 32;
    /// Queues, 16 bits.
    pub const NUM_QUEUES: usize = 34;
    /// Most sectors of a discard segment, 32 bits.
    pub const MAX_DISCARD_SECTORS: usize = 36;
    /// Most discard segments of a request, 32 bits.
    pub const MAX_DISCARD_SEG: usize = 40;
    /// Alignment of discards in sectors, 32 bits.
    pub const DISCARD_SECTOR_ALIGNMENT: usize = 44;
    /// Most sectors of a write-zeroes segment, 32 bits.
    pub const MAX_WRITE_ZEROES_SECTORS: usize = 48;
    /// Most write-zeroes segments of a request, 32 bits.
    pub const MAX_WRITE_ZEROES_SEG: usize = 52;
    /// Whether zeros may give space back, 8 bits.
    pub const WRITE_ZEROES_MAY_UNMAP: usize = 56;
    /// Bytes.
    pub const LEN: usize = 60;
}

/// Request types (§5.2.6).
pub mod request {
    /// Disk to memory.
    pub const IN: u32 = 0;
    /// Memory to disk.
    pub const OUT: u32 = 1;
    /// Make durable.
    pub const FLUSH: u32 = 4;
    /// Tell the serial number.
    pub const GET_ID: u32 = 8;
    /// Discard segments.
    pub const DISCARD: u32 = 11;
    /// Write zeros to segments.
    pub const WRITE_ZEROES: u32 = 13;
    /// Bytes of the header: type (32 bits), reserved (32), sector (64).
    pub const HEADER_LEN: usize = 16;
    /// Bytes of a serial number, filled with zeros.
    pub const ID_LEN: usize = 20;
    /// Bytes of a discard or write-zeroes segment: sector (64 bits), sectors (32), flags (32).
    pub const SEGMENT_LEN: usize = 16;
    /// Segment flag: the space may be given back.
    pub const SEGMENT_UNMAP: u32 = 1;
}

/// Status byte at a request's end (§5.2.6).
pub mod status {
    /// Done.
    pub const OK: u8 = 0;
    /// Failed.
    pub const IOERR: u8 = 1;
    /// Not supported.
    pub const UNSUPP: u8 = 2;
}

/// Bytes of a sector, the unit of all addresses.
pub const SECTOR_LEN: u64 = 512;
