//! Device types (virtio 1.2 §5).

/// Network card (§5.1).
pub const NET: u16 = 1;
/// Block device (§5.2).
pub const BLOCK: u16 = 2;
/// Console (§5.3).
pub const CONSOLE: u16 = 3;
/// Entropy source (§5.4).
pub const ENTROPY: u16 = 4;
/// Traditional memory balloon (§5.5).
pub const BALLOON: u16 = 5;
/// 9P transport (§5.14 names it, Linux' `virtio_9p` documents it).
pub const P9: u16 = 9;
/// Socket device (§5.10).
pub const SOCKET: u16 = 19;
/// File system device (§5.11).
pub const FILE_SYSTEM: u16 = 26;
