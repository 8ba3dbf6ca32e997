//! The socket device (virtio 1.2 §5.10).

/// Feature bits (§5.10.3), as masks.
pub mod feature {
    /// Stream sockets.
    pub const STREAM: u64 = 1 << 0;
}

/// `virtio_vsock_config` (§5.10.4).
pub mod config {
    /// Bytes: the guest's context id, 64 bits.
    pub const LEN: usize = 8;
}

/// Queues (§5.10.2).
pub mod queue {
    /// To the driver.
    pub const RX: u16 = 0;
    /// From the driver.
    pub const TX: u16 = 1;
    /// What happened to the device.
    pub const EVENT: u16 = 2;
}

/// Context ids (§5.10.4).
pub mod cid {
    /// The host.
    pub const HOST: u64 = 2;
    /// The first that a guest can have.
    pub const FIRST_GUEST: u64 = 3;
    /// The last that a guest can have: upper half 0, and all ones is reserved.
    pub const LAST_GUEST: u64 = 0xFFFF_FFFE;
}

/// `virtio_vsock_hdr` (§5.10.6): offsets.
pub mod header {
    /// Sender's context, 64 bits.
    pub const SRC_CID: usize = 0;
    /// Receiver's context, 64 bits.
    pub const DST_CID: usize = 8;
    /// Sender's port, 32 bits.
    pub const SRC_PORT: usize = 16;
    /// Receiver's port, 32 bits.
    pub const DST_PORT: usize = 20;
    /// Bytes that follow, 32 bits.
    pub const SIZE: usize = 24;
    /// Socket type, 16 bits.
    pub const TYPE: usize = 28;
    /// Operation, 16 bits.
    pub const OP: usize = 30;
    /// Flags, 32 bits.
    pub const FLAGS: usize = 32;
    /// Buffer space of the sender, 32 bits.
    pub const BUF_ALLOC: usize = 36;
    /// Bytes that the sender has taken out of it, wrapping, 32 bits.
    pub const FWD_CNT: usize = 40;
    /// Bytes.
    pub const LEN: usize = 44;
}

/// Socket type (§5.10.6): stream.
pub const TYPE_STREAM: u16 = 1;

/// Operations (§5.10.6).
pub mod op {
    /// Connect.
    pub const REQUEST: u16 = 1;
    /// Connected.
    pub const RESPONSE: u16 = 2;
    /// There is no connection.
    pub const RST: u16 = 3;
    /// No more in one or both directions.
    pub const SHUTDOWN: u16 = 4;
    /// Data.
    pub const RW: u16 = 5;
    /// Tells of buffer space.
    pub const CREDIT_UPDATE: u16 = 6;
    /// Asks for that.
    pub const CREDIT_REQUEST: u16 = 7;
}

/// Flags of a shutdown (§5.10.6.5).
pub mod shutdown {
    /// The sender will receive no more.
    pub const RECEIVE: u32 = 1;
    /// The sender will send no more.
    pub const SEND: u32 = 2;
}

/// Events (§5.10.6.7), 32 bits.
pub mod event {
    /// All connections are gone.
    pub const TRANSPORT_RESET: u32 = 0;
}
