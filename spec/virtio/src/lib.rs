//! What "Virtual I/O Device (VIRTIO) version 1.2" says: device types (§5), feature bits (§6), the
//! status byte (§2.1), rings (§2.7, §2.8), the PCI (§4.1) and MMIO (§4.2) transports, and a module
//! for each device's layouts. Names for numbers, no logic. Everything is little-endian.
#![no_std]

pub mod balloon;
pub mod blk;
pub mod console;
pub mod device_type;
pub mod feature;
pub mod fs;
pub mod mmio;
pub mod net;
pub mod pci;
pub mod ring;
pub mod status;
pub mod vsock;
