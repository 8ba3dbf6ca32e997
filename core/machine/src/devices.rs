//! The PCI devices of a machine, beyond those that its board always has: a typed list that the home
//! fills. Each builds itself into a function at its slot.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kasane_devices::Saved;
use kasane_devices::pci::{PciAddress, PciBus};
use kasane_devices::virtio::blk::{self, Blk, BlkConnections, DiskShape};
use kasane_devices::virtio::rng::{self, Rng, RngConnections};
use kasane_devices::virtio::transport::pci::{Attached, PciShape, attach};
use kasane_devices::virtio::{Offer, VirtioDevice};
use kasane_ports::BlockBackend;
use lock_api::RawMutex;

use crate::machine::{MachineError, MachinePorts};

/// The first slot that devices without one of their own get: 0 and 1 are the board's, 2 is for a
/// display.
const FIRST_SLOT: u8 = 3;
/// Slots of the bus.
const SLOTS: u8 = 32;

/// A device on the PCI bus.
#[derive(Clone)]
pub struct PciDevice {
    /// Its own name, unique in the machine and stable as long as its state is saved: `vda`.
    pub name: String,
    /// Its slot, 2 to 31; else the next that is free from 3 on, in the order of the list.
    pub slot: Option<u8>,
    /// For which drivers it is.
    pub offer: Offer,
    /// What it is.
    pub kind: DeviceKind,
}

/// What a device is, and what it is connected to.
#[derive(Clone)]
pub enum DeviceKind {
    /// A virtio disk.
    Disk {
        /// Where its data is.
        backend: Arc<dyn BlockBackend>,
        /// What its driver sees.
        shape: DiskShape,
    },
    /// A virtio entropy source, of the home's entropy.
    Entropy,
}

impl DeviceKind {
    /// What it is called in messages.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Disk { .. } => "virtio-blk",
            Self::Entropy => "virtio-rng",
        }
    }
}

/// A device that sits in its slot.
pub(crate) struct Seated {
    pub(crate) slot: u8,
    /// `virtio-blk.vda at 00:03.0`
    pub(crate) description: String,
    pub(crate) kind: &'static str,
    /// What has state, in the order of restoring.
    pub(crate) saved: Vec<Arc<dyn Saved>>,
}

/// Puts the devices into their slots.
pub(crate) fn attach_all<R: RawMutex + Send + Sync + 'static>(
    bus: &Arc<PciBus<R>>,
    home: &MachinePorts,
) -> Result<Vec<Seated>, MachineError> {
    let slots = slots(&home.devices)?;
    let seat = |(device, slot): (&PciDevice, u8)| {
        let address = PciAddress::new(slot, 0);
        let kind = device.kind.name();
        let description = alloc::format!("{kind}.{} at {address}", device.name);
        let saved = attach_one(bus, home, device, address)?;
        Ok(Seated { slot, description, kind, saved })
    };
    home.devices.iter().zip(slots).map(seat).collect()
}

/// The slot of each device.
fn slots(devices: &[PciDevice]) -> Result<Vec<u8>, MachineError> {
    let given: Vec<u8> = devices.iter().filter_map(|device| device.slot).collect();
    let mut free = (FIRST_SLOT..SLOTS).filter(|slot| !given.contains(slot));
    let mut seen: Vec<&str> = Vec::new();
    let mut slots = Vec::new();
    for device in devices {
        let name = device.name.as_str();
        if seen.contains(&name) {
            return Err(MachineError::DeviceName { name: name.into() });
        }
        seen.push(name);
        let slot = device.slot.or_else(|| free.next()).filter(|slot| (2..SLOTS).contains(slot));
        slots.push(slot.ok_or_else(|| MachineError::NoSlot { name: name.into() })?);
    }
    Ok(slots)
}

fn attach_one<R: RawMutex + Send + Sync + 'static>(
    bus: &Arc<PciBus<R>>,
    home: &MachinePorts,
    device: &PciDevice,
    address: PciAddress,
) -> Result<Vec<Arc<dyn Saved>>, MachineError> {
    let PciDevice { name, slot: _, offer, kind } = device;
    let memory = home.memory.clone();
    match kind {
        DeviceKind::Disk { backend, shape } => {
            let chip = Blk::new(backend.info(), shape.clone());
            let function = PciShape::of(&chip, address, name, *offer);
            let backend = backend.clone();
            let attached = attach(bus, &function, |interrupts| {
                blk::connect::<R>(
                    name,
                    chip,
                    *offer,
                    BlkConnections { memory, interrupts, backend },
                )
            })?;
            Ok(saved(attached))
        }
        DeviceKind::Entropy => {
            let function = PciShape::of(&Rng::default(), address, name, *offer);
            let entropy = home.entropy.clone();
            let attached = attach(bus, &function, |interrupts| {
                rng::connect::<R>(name, *offer, RngConnections { memory, interrupts, entropy })
            })?;
            Ok(saved(attached))
        }
    }
}

fn saved<R, D>(attached: Attached<R, D>) -> Vec<Arc<dyn Saved>>
where
    R: RawMutex + Send + Sync + 'static,
    D: VirtioDevice + Saved + 'static,
{
    alloc::vec![attached.device as Arc<dyn Saved>, attached.function]
}
