//! The file system device (virtio 1.2 §5.11). What its queues carry are messages of FUSE.

/// `virtio_fs_config` (§5.11.4): offsets.
pub mod config {
    /// Name of the file system: UTF-8, filled up with zeros.
    pub const TAG: usize = 0;
    /// Bytes of it.
    pub const TAG_LEN: usize = 36;
    /// Request queues, 32 bits.
    pub const NUM_REQUEST_QUEUES: usize = 36;
    /// Bytes.
    pub const LEN: usize = 40;
}

/// Queues without the notification feature (§5.11.2).
pub mod queue {
    /// Messages that may not wait behind others.
    pub const HIPRIO: u16 = 0;
    /// The first request queue.
    pub const REQUEST: u16 = 1;
}
