//! What is done to frames: sums, headers of offloads, cutting.

pub(crate) mod checksum;
pub(crate) mod layout;
#[cfg(target_os = "linux")]
pub(crate) mod offload;
#[cfg(target_os = "linux")]
pub(crate) mod segment;
#[cfg(target_os = "linux")]
mod tcp;

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;

/// The longest frame that a guest may send or take: a 64 KiB IP packet in an Ethernet frame.
pub(crate) const FRAME_MAX: usize = ETHERNET + 65_535;

/// An Ethernet address.
pub(crate) type Mac = [u8; 6];
