//! The devices of a machine, beyond those that its board always has: a typed list that the home
//! fills. Each builds itself into a function at its slot of the PCI bus, or into registers in
//! memory.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kasane_devices::bus::Mapping;
use kasane_devices::interrupts::InterruptRouter;
use kasane_devices::pci::{PciAddress, PciBus};
use kasane_devices::virtio::balloon::{self, Balloon, BalloonConnections};
use kasane_devices::virtio::blk::{self, Blk, BlkConnections, DiskShape};
use kasane_devices::virtio::console::{
    self, ConsoleConnections, ConsoleSize, PortConnections, VirtioConsole,
};
use kasane_devices::virtio::fs::{self, Fs, FsConnections};
use kasane_devices::virtio::net::{self, Net, NetConnections, NetShape};
use kasane_devices::virtio::rng::{self, Rng, RngConnections};
use kasane_devices::virtio::transport::mmio::VirtioMmio;
use kasane_devices::virtio::transport::pci::{PciShape, attach};
use kasane_devices::virtio::vsock::{self, Vsock, VsockConnections};
use kasane_devices::virtio::{Offer, VirtioChip, VirtioDevice, VirtioInterrupts, VirtioSocket};
use kasane_devices::{AddressSpace, Saved};
use kasane_memory::GuestMemory;
use kasane_ports::{
    BlockBackend, Console, Kick, NetBackend, PageReclaim, ShareBackend, VsockBackend,
};
use kasane_spec_virtio::mmio;
use lock_api::RawMutex;

use crate::layout;
use crate::machine::{MachineError, MachinePorts};

/// The first slot that devices without one of their own get: 0 and 1 are the board's, 2 is for a
/// display.
const FIRST_SLOT: u8 = 3;
/// Slots of the bus.
const SLOTS: u8 = 32;

/// A device of a machine.
#[derive(Clone)]
pub struct MachineDevice {
    /// Its own name, unique in the machine and stable as long as its state is saved: `vda`.
    pub name: String,
    /// Where it is.
    pub place: Place,
    /// For which drivers it is.
    pub offer: Offer,
    /// What it is.
    pub kind: DeviceKind,
}

/// Where a device is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the PCI bus: in this slot, 2 to 31; else in the next that is free from 3 on, in the order
    /// of the list.
    Pci(Option<u8>),
    /// As registers in memory, the next that are free from [`layout::MMIO_DEVICES`] on: for guests
    /// without a driver for PCI. Its interrupt is a wire ([`layout::mmio_gsi`]).
    Mmio,
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

/// Where a device is.
#[derive(Clone, Copy, Debug)]
enum Address {
    Pci(PciAddress),
    /// Which of the registers in memory.
    Mmio(u8),
}

impl core::fmt::Display for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Pci(address) => write!(f, "{address}"),
            Self::Mmio(index) => write!(f, "{:#x}", layout::mmio_device(*index)),
        }
    }
}

/// A device that sits in its place.
pub(crate) struct Seated {
    /// Its slot, if it is on the PCI bus.
    pub(crate) slot: Option<u8>,
    /// `virtio-blk.vda at 00:03.0`
    pub(crate) description: String,
    pub(crate) kind: &'static str,
    /// What has state, in the order of restoring.
    pub(crate) saved: [Arc<dyn Saved>; 2],
}

/// Devices that the home, or the machine itself, turns to while it runs.
pub(crate) struct Controls<R: RawMutex> {
    pub(crate) console: Option<Arc<VirtioSocket<R, VirtioConsole>>>,
    pub(crate) balloon: Option<Arc<VirtioSocket<R, Balloon>>>,
    /// Those in memory, which no bus resets.
    pub(crate) mmio: Vec<Arc<VirtioMmio<R>>>,
}

impl<R: RawMutex> Default for Controls<R> {
    fn default() -> Self {
        Self { console: None, balloon: None, mmio: Vec::new() }
    }
}

/// What devices are attached to.
pub(crate) struct Buses<'a, R: RawMutex> {
    pub(crate) pci: &'a Arc<PciBus<R>>,
    pub(crate) memory: &'a Arc<AddressSpace<R>>,
    pub(crate) interrupts: &'a Arc<InterruptRouter<R>>,
}

/// Puts the devices into their places.
pub(crate) fn attach_all<R: RawMutex + Send + Sync + 'static>(
    buses: &Buses<'_, R>,
    home: &MachinePorts,
) -> Result<(Vec<Seated>, Controls<R>), MachineError> {
    let addresses = addresses(&home.devices)?;
    let mut controls = Controls::default();
    let mut seated = Vec::new();
    for (device, address) in home.devices.iter().zip(addresses) {
        let kind = device.kind.name();
        let description = alloc::format!("{kind}.{} at {address}", device.name);
        let parts = Seat { buses, home, device, address }.fill(&mut controls)?;
        controls.mmio.extend(parts.registers);
        let slot = match address {
            Address::Pci(address) => Some(address.slot()),
            Address::Mmio(_) => None,
        };
        seated.push(Seated { slot, description, kind, saved: parts.saved });
    }
    Ok((seated, controls))
}

/// How many of them have registers in memory.
pub(crate) fn count_in_memory(devices: &[MachineDevice]) -> u8 {
    let count = devices.iter().filter(|device| device.place == Place::Mmio).count();
    u8::try_from(count).unwrap_or(u8::MAX)
}

/// The place of each device.
fn addresses(devices: &[MachineDevice]) -> Result<Vec<Address>, MachineError> {
    let given = |slot: &u8| devices.iter().any(|device| device.place == Place::Pci(Some(*slot)));
    let mut free = (FIRST_SLOT..SLOTS).filter(|slot| !given(slot));
    let mut registers = 0..layout::MMIO_DEVICES_MAX;
    let mut seen: Vec<&str> = Vec::new();
    let mut addresses = Vec::new();
    for device in devices {
        let name = device.name.as_str();
        if seen.contains(&name) {
            return Err(MachineError::DeviceName { name: name.into() });
        }
        seen.push(name);
        let address = match device.place {
            Place::Pci(slot) => slot
                .or_else(|| free.next())
                .filter(|slot| (2..SLOTS).contains(slot))
                .map(|slot| Address::Pci(PciAddress::new(slot, 0)))
                .ok_or_else(|| MachineError::NoSlot { name: name.into() }),
            Place::Mmio => registers
                .next()
                .map(Address::Mmio)
                .ok_or_else(|| MachineError::NoRegisters { name: name.into() }),
        };
        addresses.push(address?);
    }
    Ok(addresses)
}

/// A place that is being filled.
struct Seat<'a, R: RawMutex> {
    buses: &'a Buses<'a, R>,
    home: &'a MachinePorts,
    device: &'a MachineDevice,
    address: Address,
}

/// What of a device the machine turns to.
struct Parts<R: RawMutex> {
    /// What has state, in the order of restoring.
    saved: [Arc<dyn Saved>; 2],
    /// Its registers, if they are in memory.
    registers: Option<Arc<VirtioMmio<R>>>,
}

/// A device in its place.
type Filled<R, C> = (Arc<VirtioSocket<R, C>>, Parts<R>);

impl<R: RawMutex + Send + Sync + 'static> Seat<'_, R> {
    fn fill(&self, controls: &mut Controls<R>) -> Result<Parts<R>, MachineError> {
        match &self.device.kind {
            DeviceKind::Disk { backend, shape } => self.disk(backend, shape),
            DeviceKind::Net { backend, shape } => self.net(backend, *shape),
            DeviceKind::Console { output, room } => {
                let (device, parts) = self.console(output, room.as_ref())?;
                controls.console.get_or_insert(device);
                Ok(parts)
            }
            DeviceKind::Entropy => self.entropy(),
            DeviceKind::Balloon { reclaim } => {
                let (device, parts) = self.balloon(reclaim)?;
                controls.balloon.get_or_insert(device);
                Ok(parts)
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
        match self.address {
            Address::Pci(address) => {
                let shape = PciShape::of(&chip, address, self.name(), self.device.offer);
                let attached = attach(self.buses.pci, &shape, |to| make(chip, to))?;
                let saved: [Arc<dyn Saved>; 2] = [attached.device.clone(), attached.function];
                Ok((attached.device, Parts { saved, registers: None }))
            }
            Address::Mmio(index) => {
                let wire = self.buses.interrupts.gsi_line(layout::mmio_gsi(index));
                let (registers, device) = VirtioMmio::new(self.name(), wire, |to| make(chip, to));
                let at = layout::mmio_device(index);
                self.buses.memory.map(Mapping::new(at, mmio::LEN, registers.clone()))?;
                let saved: [Arc<dyn Saved>; 2] = [device.clone(), registers.clone()];
                Ok((device, Parts { saved, registers: Some(registers) }))
            }
        }
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
    ) -> Result<Parts<R>, MachineError> {
        let chip = Blk::new(backend.info(), shape.clone());
        let (memory, backend) = (self.memory(), backend.clone());
        let (_, parts) = self.seat(chip, |chip, interrupts| {
            let connections = BlkConnections { memory, interrupts, backend };
            blk::connect(self.name(), chip, self.device.offer, connections)
        })?;
        Ok(parts)
    }
    fn net(
        &self,
        backend: &Arc<dyn NetBackend>,
        shape: NetShape,
    ) -> Result<Parts<R>, MachineError> {
        let chip = Net::new(backend.info(), shape);
        let (memory, backend) = (self.memory(), backend.clone());
        let (_, parts) = self.seat(chip, |chip, interrupts| {
            let connections = NetConnections { memory, interrupts, backend };
            net::connect(self.name(), chip, self.device.offer, connections)
        })?;
        Ok(parts)
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
    fn entropy(&self) -> Result<Parts<R>, MachineError> {
        let (memory, entropy) = (self.memory(), self.home.entropy.clone());
        let (_, parts) = self.seat(Rng::default(), |_, interrupts| {
            let connections = RngConnections { memory, interrupts, entropy };
            rng::connect(self.name(), self.device.offer, connections)
        })?;
        Ok(parts)
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
    ) -> Result<Parts<R>, MachineError> {
        let (memory, backend) = (self.memory(), backend.clone());
        let (_, parts) = self.seat(Vsock::new(guest_cid.into()), |chip, interrupts| {
            let connections = VsockConnections { memory, interrupts, backend };
            vsock::connect(self.name(), chip, self.device.offer, connections)
        })?;
        Ok(parts)
    }
    fn share(&self, backend: &Arc<dyn ShareBackend>, tag: &str) -> Result<Parts<R>, MachineError> {
        let (memory, backend) = (self.memory(), backend.clone());
        let (_, parts) = self.seat(Fs::new(tag), |chip, interrupts| {
            let connections = FsConnections { memory, interrupts, backend };
            fs::connect(self.name(), chip, self.device.offer, connections)
        })?;
        Ok(parts)
    }
}
