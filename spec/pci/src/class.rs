//! Class codes (PCI Local Bus 3.0 appendix D): class, subclass, programming interface.

/// Host bridge.
pub const HOST_BRIDGE: [u8; 3] = [0x06, 0x00, 0x00];
/// ISA bridge.
pub const ISA_BRIDGE: [u8; 3] = [0x06, 0x01, 0x00];
/// Other bridge.
pub const OTHER_BRIDGE: [u8; 3] = [0x06, 0x80, 0x00];
/// NVM Express controller.
pub const NVME: [u8; 3] = [0x01, 0x08, 0x02];
/// Ethernet controller.
pub const ETHERNET: [u8; 3] = [0x02, 0x00, 0x00];
/// SCSI storage controller: what virtio block devices say they are.
pub const SCSI_STORAGE: [u8; 3] = [0x01, 0x00, 0x00];
/// Other communication controller.
pub const OTHER_COMMUNICATION: [u8; 3] = [0x07, 0x80, 0x00];
/// A device that is of no class.
pub const UNCLASSIFIED: [u8; 3] = [0x00, 0xFF, 0x00];
