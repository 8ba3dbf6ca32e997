//! The network card (virtio 1.2 §5.1).

/// Feature bits (§5.1.3), as masks.
pub mod feature {
    /// The device completes checksums.
    pub const CSUM: u64 = 1 << 0;
    /// The driver takes frames whose checksum is not complete, or was checked.
    pub const GUEST_CSUM: u64 = 1 << 1;
    /// Offloads of received frames can be switched.
    pub const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
    /// `mtu` is valid.
    pub const MTU: u64 = 1 << 3;
    /// `mac` is valid.
    pub const MAC: u64 = 1 << 5;
    /// The driver takes long TCP frames over IPv4.
    pub const GUEST_TSO4: u64 = 1 << 7;
    /// The driver takes long TCP frames over IPv6.
    pub const GUEST_TSO6: u64 = 1 << 8;
    /// The driver takes long TCP frames with congestion notification.
    pub const GUEST_ECN: u64 = 1 << 9;
    /// The device takes long TCP frames over IPv4.
    pub const HOST_TSO4: u64 = 1 << 11;
    /// The device takes long TCP frames over IPv6.
    pub const HOST_TSO6: u64 = 1 << 12;
    /// The device takes long TCP frames with congestion notification.
    pub const HOST_ECN: u64 = 1 << 13;
    /// A received frame may span buffers.
    pub const MRG_RXBUF: u64 = 1 << 15;
    /// `status` is valid.
    pub const STATUS: u64 = 1 << 16;
    /// There is a control queue.
    pub const CTRL_VQ: u64 = 1 << 17;
    /// The control queue knows receive modes.
    pub const CTRL_RX: u64 = 1 << 18;
    /// The control queue knows VLAN filters.
    pub const CTRL_VLAN: u64 = 1 << 19;
    /// The control queue knows more receive modes.
    pub const CTRL_RX_EXTRA: u64 = 1 << 20;
    /// The device can ask the driver to announce itself.
    pub const GUEST_ANNOUNCE: u64 = 1 << 21;
    /// Several queue pairs.
    pub const MQ: u64 = 1 << 22;
    /// The control queue can set the MAC address.
    pub const CTRL_MAC_ADDR: u64 = 1 << 23;
}

/// `virtio_net_config` (§5.1.4): offsets.
pub mod config {
    /// MAC address, 6 bytes.
    pub const MAC: usize = 0;
    /// Status, 16 bits.
    pub const STATUS: usize = 6;
    /// Most queue pairs, 16 bits.
    pub const MAX_VIRTQUEUE_PAIRS: usize = 8;
    /// Largest payload, 16 bits.
    pub const MTU: usize = 10;
    /// Bytes.
    pub const LEN: usize = 12;
}

/// Bits of the configuration's status (§5.1.4).
pub mod status {
    /// The link is up.
    pub const LINK_UP: u16 = 1;
    /// The driver should announce itself.
    pub const ANNOUNCE: u16 = 2;
}

/// `virtio_net_hdr` (§5.1.6): flags (8 bits), gso_type (8), hdr_len, gso_size, csum_start,
/// csum_offset, num_buffers (16 each).
pub mod header {
    /// Bytes since virtio 1, or with mergeable buffers.
    pub const LEN: usize = 12;
    /// Bytes for a legacy driver without mergeable buffers: no `num_buffers`.
    pub const LEGACY_LEN: usize = 10;
    /// Offset of `num_buffers`.
    pub const NUM_BUFFERS: u64 = 10;
    /// Flag: the checksum is to be completed.
    pub const NEEDS_CSUM: u8 = 1;
    /// Flag: the checksum was found right.
    pub const DATA_VALID: u8 = 2;
    /// Segmentation: none.
    pub const GSO_NONE: u8 = 0;
    /// Segmentation: TCP over IPv4.
    pub const GSO_TCPV4: u8 = 1;
    /// Segmentation: TCP over IPv6.
    pub const GSO_TCPV6: u8 = 4;
    /// Segmentation, added to another: with congestion notification.
    pub const GSO_ECN: u8 = 0x80;
}

/// Control commands (§5.1.6.5): class (8 bits), command (8 bits), data; then the device's
/// acknowledgement (8 bits).
pub mod control {
    /// Done.
    pub const OK: u8 = 0;
    /// Not done.
    pub const ERR: u8 = 1;
    /// Class: receive modes, one byte each (§5.1.6.5.1).
    pub const RX: u8 = 0;
    /// Takes everything.
    pub const RX_PROMISC: u8 = 0;
    /// Takes all multicast.
    pub const RX_ALLMULTI: u8 = 1;
    /// Takes all unicast.
    pub const RX_ALLUNI: u8 = 2;
    /// Takes no multicast.
    pub const RX_NOMULTI: u8 = 3;
    /// Takes no unicast.
    pub const RX_NOUNI: u8 = 4;
    /// Takes no broadcast.
    pub const RX_NOBCAST: u8 = 5;
    /// Class: addresses (§5.1.6.5.2).
    pub const MAC: u8 = 1;
    /// Two tables, unicast and multicast: entries (32 bits), addresses.
    pub const MAC_TABLE_SET: u8 = 0;
    /// The address: 6 bytes.
    pub const MAC_ADDR_SET: u8 = 1;
    /// Class: VLAN filter (§5.1.6.5.3), 16 bits each.
    pub const VLAN: u8 = 2;
    /// One more.
    pub const VLAN_ADD: u8 = 0;
    /// One less.
    pub const VLAN_DEL: u8 = 1;
    /// Class: announcing (§5.1.6.5.4).
    pub const ANNOUNCE: u8 = 3;
    /// The driver has seen the wish.
    pub const ANNOUNCE_ACK: u8 = 0;
    /// Class: queue pairs (§5.1.6.5.5).
    pub const MQ: u8 = 4;
    /// How many are used, 16 bits.
    pub const MQ_VQ_PAIRS_SET: u8 = 0;
    /// Class: offloads of received frames (§5.1.6.5.6).
    pub const GUEST_OFFLOADS: u8 = 5;
    /// The features of them that are on, 64 bits.
    pub const GUEST_OFFLOADS_SET: u8 = 0;
}
