//! The traditional memory balloon (virtio 1.2 §5.5).

/// Feature bits (§5.5.3), as masks.
pub mod feature {
    /// The driver tells before it uses pages of the balloon again.
    pub const MUST_TELL_HOST: u64 = 1 << 0;
    /// The driver gives statistics.
    pub const STATS_VQ: u64 = 1 << 1;
    /// The driver takes pages back when it runs out of memory.
    pub const DEFLATE_ON_OOM: u64 = 1 << 2;
    /// The driver hints at free pages.
    pub const FREE_PAGE_HINT: u64 = 1 << 3;
    /// The driver tells what it filled pages with that it doesn't use.
    pub const PAGE_POISON: u64 = 1 << 4;
    /// The driver reports free pages.
    pub const REPORTING: u64 = 1 << 5;
}

/// `virtio_balloon_config` (§5.5.4): offsets.
pub mod config {
    /// Pages that the device wants, 32 bits.
    pub const NUM_PAGES: usize = 0;
    /// Pages that the driver has given, 32 bits.
    pub const ACTUAL: usize = 4;
    /// Command of free page hinting, 32 bits.
    pub const FREE_PAGE_HINT_CMD_ID: usize = 8;
    /// What unused pages are filled with, 32 bits.
    pub const POISON_VAL: usize = 12;
    /// Bytes.
    pub const LEN: usize = 16;
}

/// A page of the balloon, whatever the guest's pages are: log2 of its bytes.
pub const PAGE_SHIFT: u32 = 12;

/// Statistics (§5.5.6.4): tag (16 bits), value (64 bits), not aligned.
pub mod stat {
    /// Bytes of one.
    pub const LEN: usize = 10;
    /// Bytes swapped in.
    pub const SWAP_IN: u16 = 0;
    /// Bytes swapped out.
    pub const SWAP_OUT: u16 = 1;
    /// Major page faults.
    pub const MAJFLT: u16 = 2;
    /// Minor page faults.
    pub const MINFLT: u16 = 3;
    /// Bytes that are not used for anything.
    pub const MEMFREE: u16 = 4;
    /// Bytes there are.
    pub const MEMTOT: u16 = 5;
    /// Bytes that new programs could use.
    pub const AVAIL: u16 = 6;
    /// Bytes of caches that can be dropped.
    pub const CACHES: u16 = 7;
    /// Huge pages that were given.
    pub const HTLB_PGALLOC: u16 = 8;
    /// Huge pages that could not be given.
    pub const HTLB_PGFAIL: u16 = 9;
}
