//! The PCI devices of a machine, beyond those that its board always has: a typed list that the home
//! fills. Each builds itself into a function at its slot.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kasane_devices::Saved;
use kasane_devices::pci::{PciAddress, PciBus};
use kasane_devices::virtio::balloon::{self, Balloon, BalloonConnections};
use kasane_devices::virtio::blk::{self, Blk, BlkConnections, DiskShape};
use kasane_devices::virtio::console::{
    self, ConsoleConnections, ConsoleSize, PortConnections, VirtioConsole,
};
use kasane_devices::virtio::fs::{self, Fs, FsConnections};
use kasane_devices::virtio::net::{self, Net, NetConnections, NetShape};
use kasane_devices::virtio::rng::{self, Rng, RngConnections};
use kasane_devices::virtio::transport::pci::{PciShape, attach};
use kasane_devices::virtio::vsock::{self, Vsock, VsockConnections};
use kasane_devices::virtio::{Offer, VirtioChip, VirtioDevice, VirtioInterrupts, VirtioSocket};
use kasane_memory::GuestMemory;
use kasane_ports::{
    BlockBackend, Console, Kick, NetBackend, PageReclaim, ShareBackend, VsockBackend,
};
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
    /// A virtio network card.
    Net {
        /// The network.
        backend: Arc<dyn NetBackend>,
        /// What its driver sees.
        shape: NetShape,
    },
    /// A virtio console with one port. A machine has one.
    Console {
        /// Takes what the guest says.
        output: Arc<dyn Console>,
        /// Told when it takes input again.
        room: Option<Arc<dyn Kick>>,
    },
    /// A virtio entropy source, of the home's entropy.
    Entropy,
    /// A virtio balloon. A machine has one.
    Balloon {
        /// Takes pages back.
        reclaim: Arc<dyn PageReclaim>,
    },
    /// Virtio sockets.
    Sockets {
        /// The host's side.
        backend: Arc<dyn VsockBackend>,
        /// The guest's context id, 3 to 2^32 - 2.
        guest_cid: u32,
    },
    /// A folder, by virtio-fs.
    Share {
        /// The server.
        backend: Arc<dyn ShareBackend>,
        /// What the guest mounts it by.
        tag: String,
    },
}

impl DeviceKind {
    /// What it is called in messages.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Disk { .. } => "virtio-blk",
            Self::Net { .. } => "virtio-net",
            Self::Console { .. } => "virtio-console",
            Self::Entropy => "virtio-rng",
            Self::Balloon { .. } => "virtio-balloon",
            Self::Sockets { .. } => "virtio-vsock",
            Self::Share { .. } => "virtio-fs",
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

/// Devices that the home turns to while the machine runs.
pub(crate) struct Controls<R: RawMutex> {
    pub(crate) console: Option<Arc<VirtioSocket<R, VirtioConsole>>>,
    pub(crate) balloon: Option<Arc<VirtioSocket<R, Balloon>>>,
}

impl<R: RawMutex> Default for Controls<R> {
    fn default() -> Self {
        Self { console: None, balloon: None }
    }
}

/// Puts the devices into their slots.
pub(crate) fn attach_all<R: RawMutex + Send + Sync + 'static>(
    bus: &Arc<PciBus<R>>,
    home: &MachinePorts,
) -> Result<(Vec<Seated>, Controls<R>), MachineError> {
    let slots = slots(&home.devices)?;
    let mut controls = Controls::default();
    let mut seated = Vec::new();
    for (device, slot) in home.devices.iter().zip(slots) {
        let address = PciAddress::new(slot, 0);
        let kind = device.kind.name();
        let description = alloc::format!("{kind}.{} at {address}", device.name);
        let saved = Seat { bus, home, device, address }.fill(&mut controls)?;
        seated.push(Seated { slot, description, kind, saved });
    }
    Ok((seated, controls))
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

/// A slot that is being filled.
struct Seat<'a, R: RawMutex> {
    bus: &'a Arc<PciBus<R>>,
    home: &'a MachinePorts,
    device: &'a PciDevice,
    address: PciAddress,
}

/// A device in its slot, and what of it has state.
type Filled<R, C> = (Arc<VirtioSocket<R, C>>, Vec<Arc<dyn Saved>>);

impl<R: RawMutex + Send + Sync + 'static> Seat<'_, R> {
    fn fill(&self, controls: &mut Controls<R>) -> Result<Vec<Arc<dyn Saved>>, MachineError> {
        match &self.device.kind {
            DeviceKind::Disk { backend, shape } => self.disk(backend, shape),
            DeviceKind::Net { backend, shape } => self.net(backend, *shape),
            DeviceKind::Console { output, room } => {
                let (device, saved) = self.console(output, room.as_ref())?;
                controls.console.get_or_insert(device);
                Ok(saved)
            }
            DeviceKind::Entropy => self.entropy(),
            DeviceKind::Balloon { reclaim } => {
                let (device, saved) = self.balloon(reclaim)?;
                controls.balloon.get_or_insert(device);
                Ok(saved)
            }
            DeviceKind::Sockets { backend, guest_cid } => self.sockets(backend, *guest_cid),
            DeviceKind::Share { backend, tag } => self.share(backend, tag),
        }
    }

    /// Attaches the device that `make` makes of a chip.
    fn seat<C: VirtioChip>(
        &self,
        chip: C,
        make: impl FnOnce(C, Arc<dyn VirtioInterrupts>) -> Arc<VirtioSocket<R, C>>,
    ) -> Result<Filled<R, C>, MachineError>
    where
        VirtioSocket<R, C>: VirtioDevice + Saved + 'static,
    {
        let shape = PciShape::of(&chip, self.address, &self.device.name, self.device.offer);
        let attached = attach(self.bus, &shape, |interrupts| make(chip, interrupts))?;
        let saved = alloc::vec![attached.device.clone() as Arc<dyn Saved>, attached.function];
        Ok((attached.device, saved))
    }
    fn name(&self) -> &str {
        &self.device.name
    }
    fn memory(&self) -> Arc<dyn GuestMemory> {
        self.home.memory.clone()
    }

    fn disk(
        &self,
        backend: &Arc<dyn BlockBackend>,
        shape: &DiskShape,
    ) -> Result<Vec<Arc<dyn Saved>>, MachineError> {
        let chip = Blk::new(backend.info(), shape.clone());
        let (memory, backend) = (self.memory(), backend.clone());
        let (_, saved) = self.seat(chip, |chip, interrupts| {
            let connections = BlkConnections { memory, interrupts, backend };
            blk::connect(self.name(), chip, self.device.offer, connections)
        })?;
        Ok(saved)
    }
    fn net(
        &self,
        backend: &Arc<dyn NetBackend>,
        shape: NetShape,
    ) -> Result<Vec<Arc<dyn Saved>>, MachineError> {
        let chip = Net::new(backend.info(), shape);
        let (memory, backend) = (self.memory(), backend.clone());
        let (_, saved) = self.seat(chip, |chip, interrupts| {
            let connections = NetConnections { memory, interrupts, backend };
            net::connect(self.name(), chip, self.device.offer, connections)
        })?;
        Ok(saved)
    }
    fn console(
        &self,
        output: &Arc<dyn Console>,
        room: Option<&Arc<dyn Kick>>,
    ) -> Result<Filled<R, VirtioConsole>, MachineError> {
        let chip = VirtioConsole::new(Vec::new(), ConsoleSize::default());
        let port = PortConnections { console: output.clone(), room: room.cloned() };
        let (memory, ports) = (self.memory(), alloc::vec![port]);
        self.seat(chip, |chip, interrupts| {
            let connections = ConsoleConnections { memory, interrupts, ports };
            console::connect(self.name(), chip, self.device.offer, connections)
        })
    }
    fn entropy(&self) -> Result<Vec<Arc<dyn Saved>>, MachineError> {
        let (memory, entropy) = (self.memory(), self.home.entropy.clone());
        let (_, saved) = self.seat(Rng::default(), |_, interrupts| {
            let connections = RngConnections { memory, interrupts, entropy };
            rng::connect(self.name(), self.device.offer, connections)
        })?;
        Ok(saved)
    }
    fn balloon(&self, reclaim: &Arc<dyn PageReclaim>) -> Result<Filled<R, Balloon>, MachineError> {
        let (memory, reclaim) = (self.memory(), reclaim.clone());
        self.seat(Balloon::default(), |_, interrupts| {
            let connections = BalloonConnections { memory, interrupts, reclaim };
            balloon::connect(self.name(), self.device.offer, connections)
        })
    }
    fn sockets(
        &self,
        backend: &Arc<dyn VsockBackend>,
        guest_cid: u32,
    ) -> Result<Vec<Arc<dyn Saved>>, MachineError> {
        let (memory, backend) = (self.memory(), backend.clone());
        let (_, saved) = self.seat(Vsock::new(guest_cid.into()), |chip, interrupts| {
            let connections = VsockConnections { memory, interrupts, backend };
            vsock::connect(self.name(), chip, self.device.offer, connections)
        })?;
        Ok(saved)
    }
    fn share(
        &self,
        backend: &Arc<dyn ShareBackend>,
        tag: &str,
    ) -> Result<Vec<Arc<dyn Saved>>, MachineError> {
        let (memory, backend) = (self.memory(), backend.clone());
        let (_, saved) = self.seat(Fs::new(tag), |chip, interrupts| {
            let connections = FsConnections { memory, interrupts, backend };
            fs::connect(self.name(), chip, self.device.offer, connections)
        })?;
        Ok(saved)
    }
}
