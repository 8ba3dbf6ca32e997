//! Where devices are: functions of the PCI bus, which get addresses here as no firmware has given
//! them any, and registers in memory at the places where Kasane's board has them.

use core::ptr::NonNull;

use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::transport::pci::bus::{
    BarInfo, Command, ConfigurationAccess, DeviceFunction, PciRoot,
};
use virtio_drivers::transport::pci::{PciTransport, virtio_device_type};

use crate::memory::Bare;
use crate::port;

/// The window of the configuration space (PCI 3.0 §3.2.2.3.2).
const CONFIG_ADDRESS: u16 = 0xCF8;
const CONFIG_DATA: u16 = 0xCFC;
/// From here on BARs are placed: the board's memory window.
const BARS: u64 = 0xC000_0000;
/// Registers of the devices that are not on the bus: as many as the board can have.
const MMIO: usize = 0xFEC1_0000;
const MMIO_LEN: usize = 0x200;
const MMIO_DEVICES: usize = 32;
/// What is there begins with this: "virt".
const MAGIC: u32 = 0x7472_6976;

/// The configuration space by ports.
struct Ports;

impl Ports {
    fn select(function: DeviceFunction, register: u8) {
        let DeviceFunction { bus, device, function } = function;
        let place = u32::from(bus) << 16 | u32::from(device) << 11 | u32::from(function) << 8;
        port::write_u32(CONFIG_ADDRESS, 0x8000_0000 | place | u32::from(register));
    }
}

impl ConfigurationAccess for Ports {
    fn read_word(&self, function: DeviceFunction, register: u8) -> u32 {
        Self::select(function, register);
        port::read_u32(CONFIG_DATA)
    }
    fn write_word(&mut self, function: DeviceFunction, register: u8, value: u32) {
        Self::select(function, register);
        port::write_u32(CONFIG_DATA, value);
    }
    unsafe fn unsafe_clone(&self) -> Self {
        Self
    }
}

/// Gives every virtio function of the first bus its addresses, then to `found`, in the bus's order.
pub fn on_pci(mut found: impl FnMut(PciTransport)) {
    let mut root = PciRoot::new(Ports);
    let mut next = BARS;
    for (function, info) in PciRoot::new(Ports).enumerate_bus(0) {
        if virtio_device_type(&info).is_none() {
            continue;
        }
        let bars = root.bars(function).expect("BARs as PCI has them");
        for (index, bar) in (0..).zip(bars) {
            if let Some(BarInfo::Memory { size, .. }) = &bar {
                next = next.next_multiple_of(*size);
                root.set_bar_64(function, index, next);
                next += size;
            }
        }
        root.set_command(function, Command::MEMORY_SPACE | Command::BUS_MASTER);
        found(PciTransport::new::<Bare, _>(&mut root, function).expect("a virtio function"));
    }
}

/// Gives every device with registers in memory to `found`, in the order of their addresses.
pub fn in_memory(mut found: impl FnMut(MmioTransport<'static>)) {
    for place in 0..MMIO_DEVICES {
        let at = (MMIO + place * MMIO_LEN) as *mut u32;
        // SAFETY: no RAM is there; where no registers are, all-ones are read.
        if unsafe { at.read_volatile() } != MAGIC {
            continue;
        }
        let header = NonNull::new(at.cast::<VirtIOHeader>()).expect("not at 0");
        // SAFETY: registers, as the magic number says, of this length on this board.
        let transport = unsafe { MmioTransport::new(header, MMIO_LEN) };
        found(transport.expect("registers of virtio 1"));
    }
}
