//! Numbers of frames and packets.

/// Protocol number of TCP.
pub(crate) const TCP: u8 = 6;
/// Protocol number of UDP.
pub(crate) const UDP: u8 = 17;
/// Ethernet type of IPv4.
pub(crate) const IPV4: [u8; 2] = [0x08, 0x00];
/// Ethernet type of IPv6.
pub(crate) const IPV6: [u8; 2] = [0x86, 0xDD];
