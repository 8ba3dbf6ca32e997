//! Transports: how a driver finds a device and reaches its registers and queues (virtio 1.2 §4).
//! They see a [`VirtioDevice`] and know no chip.

mod isr;
pub mod mmio;
pub mod pci;

use kasane_cpu::AccessSize;

use super::queue::QueuePlace;
use super::socket::VirtioDevice;

/// The low or the high half of 64 feature bits, as the selector says; there are no others (§2.2).
const fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => features as u32,
        1 => (features >> 32) as u32,
        2.. => 0,
    }
}

/// Features with one half replaced.
const fn with_half(features: u64, select: u32, value: u32) -> u64 {
    match select {
        0 => (features & !0xFFFF_FFFF) | value as u64,
        1 => (features & 0xFFFF_FFFF) | (value as u64) << 32,
        2.. => features,
    }
}

/// Half of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Low,
    High,
}

impl Half {
    const fn put(self, address: &mut u64, value: u32) {
        *address = with_half(*address, self as u32, value);
    }
}

/// An area of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Area {
    Descriptors,
    Driver,
    Device,
}

impl Area {
    const fn of(self, place: &mut QueuePlace) -> &mut u64 {
        match self {
            Self::Descriptors => &mut place.descriptors,
            Self::Driver => &mut place.driver,
            Self::Device => &mut place.device,
        }
    }
}

/// The driver reads the device's configuration.
fn config_read(device: &dyn VirtioDevice, offset: u32, size: AccessSize) -> u64 {
    let mut bytes = [0; 8];
    if let Some(wanted) = bytes.get_mut(..usize::from(size.bytes())) {
        device.config_read(offset, wanted);
    }
    u64::from_le_bytes(bytes)
}

/// The driver writes it.
fn config_write(device: &dyn VirtioDevice, offset: u32, size: AccessSize, value: u64) {
    let bytes = value.to_le_bytes();
    device.config_write(offset, bytes.get(..usize::from(size.bytes())).unwrap_or_default());
}
