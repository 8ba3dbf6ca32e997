//! The devices of a machine, and opening what is behind them.

use std::path::PathBuf;
use std::sync::Arc;

use kasane_definition::{
    DeviceName, DiskSerial, Forward, MacAddress, NetChoice, PciSlot, VirtioTransport,
};
use kasane_devices::virtio::Offer;
use kasane_devices::virtio::blk::DiskShape;
use kasane_devices::virtio::net::NetShape;
use kasane_host_disks::{Disk, DiskError, DiskOptions, Trouble};
use kasane_host_net::nat::NatConfig;
use kasane_host_net::{NetError, Network};
use kasane_machine::{DeviceKind, MachineDevice, Place};
use kasane_memory::Ram;
use kasane_ports::{Console, Kick, PageReclaim};

/// All of them, with names.
#[derive(Clone, Debug, Default)]
pub struct Devices {
    /// How the guest reaches them.
    pub transport: VirtioTransport,
    /// Disks, in their order.
    pub disks: Vec<DiskDevice>,
    /// Network cards, in their order.
    pub nets: Vec<NetDevice>,
    /// Shared folders.
    pub shares: Vec<ShareDevice>,
    /// A source of random numbers.
    pub rng: Presence,
    /// A balloon.
    pub balloon: Presence,
    /// A virtio console.
    pub console: Presence,
    /// Sockets between guest and host.
    pub sockets: Option<SocketsDevice>,
}

/// Whether a device is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// It is not.
    #[default]
    Absent,
    /// It is.
    Present,
}

impl Presence {
    /// Present if `is_there`.
    #[must_use]
    pub const fn of(is_there: bool) -> Self {
        if is_there { Self::Present } else { Self::Absent }
    }
}

/// A disk.
#[derive(Clone, Debug)]
pub struct DiskDevice {
    /// Its name.
    pub name: String,
    /// Its slot, if it has one of its own.
    pub slot: Option<PciSlot>,
    /// Its serial number.
    pub serial: Option<DiskSerial>,
    /// The image.
    pub options: DiskOptions,
}

/// A network card.
#[derive(Clone, Debug)]
pub struct NetDevice {
    /// Its name.
    pub name: String,
    /// Its slot, if it has one of its own.
    pub slot: Option<PciSlot>,
    /// Its address.
    pub mac: MacAddress,
    /// The network.
    pub choice: NetChoice,
    /// The NAT, if it is one.
    pub nat: NatConfig,
    /// Where frames are written to as well.
    pub capture: Option<PathBuf>,
}

/// A shared folder.
#[derive(Clone, Debug)]
pub struct ShareDevice {
    /// What the guest mounts.
    pub tag: DeviceName,
    /// Its slot, if it has one of its own.
    pub slot: Option<PciSlot>,
    /// The folder.
    pub directory: PathBuf,
    /// What the guest may do with it.
    pub access: FolderAccess,
}

/// What the guest may do with a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FolderAccess {
    /// Everything that the user of this process may.
    ReadWrite,
    /// Look.
    ReadOnly,
}

/// Sockets between guest and host.
#[derive(Clone, Debug)]
pub struct SocketsDevice {
    /// The guest's context id.
    pub guest_cid: u32,
    /// The Unix socket of the host's side.
    pub path: PathBuf,
}

/// What is behind a device can't be had.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A disk.
    #[error("the disk `{name}` can't be used")]
    Disk {
        /// Which.
        name: String,
        /// Why.
        source: DiskError,
    },
    /// A network.
    #[error("the network of `{name}` can't be used")]
    Net {
        /// Which card's.
        name: String,
        /// Why.
        source: NetError,
    },
    /// A shared folder.
    #[error("the folder `{tag}` can't be shared")]
    Share {
        /// Which.
        tag: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The sockets.
    #[error("there are no sockets for the guest")]
    Sockets(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl DeviceError {
    /// One action that may help.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Disk { source, .. } => source.remedy(),
            Self::Net { source, .. } => {
                source.help().unwrap_or_else(|| "choose another network with `--net`".to_owned())
            }
            Self::Share { .. } => "name a folder that can be read: `--share DIR`".to_owned(),
            Self::Sockets(_) => "end the other program, or leave out `--vsock`".to_owned(),
        }
    }
}

/// What a person should hear of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The host chose the port of a forward.
    Forward {
        /// The card's name.
        net: String,
        /// The forward as it is.
        forward: Forward,
    },
    /// A disk's storage failed; the guest only hears of an I/O error.
    DiskTrouble {
        /// The disk's name.
        disk: String,
        /// What happened.
        trouble: Trouble,
    },
}

/// What devices are connected to.
pub(super) struct Connections<'a> {
    pub(super) ram: &'a Arc<Ram>,
    pub(super) reclaim: Arc<dyn PageReclaim>,
    pub(super) console: Arc<dyn Console>,
    pub(super) console_room: Option<Arc<dyn Kick>>,
    pub(super) cpus: u32,
    pub(super) notices: Arc<dyn Fn(Notice) + Send + Sync>,
}

impl Devices {
    /// Opens everything that is behind the devices.
    pub(super) fn open(&self, to: &Connections<'_>) -> Result<Vec<MachineDevice>, DeviceError> {
        let device = |name: &str, slot: Option<PciSlot>, kind| {
            let place = match self.transport {
                VirtioTransport::Pci => {
                    Place::Pci(slot.and_then(|slot| u8::try_from(slot.get()).ok()))
                }
                VirtioTransport::Mmio => Place::Mmio,
            };
            MachineDevice { name: name.to_owned(), place, offer: Offer::default(), kind }
        };
        let mut list = Vec::new();
        for disk in &self.disks {
            list.push(device(&disk.name, disk.slot, disk.open(to)?));
        }
        for net in &self.nets {
            if let Some(kind) = net.open(to)? {
                list.push(device(&net.name, net.slot, kind));
            }
        }
        if self.console == Presence::Present {
            let (output, room) = (to.console.clone(), to.console_room.clone());
            list.push(device("hvc0", None, DeviceKind::Console { output, room }));
        }
        if self.rng == Presence::Present {
            list.push(device("rng0", None, DeviceKind::Entropy));
        }
        if self.balloon == Presence::Present {
            let reclaim = to.reclaim.clone();
            list.push(device("balloon0", None, DeviceKind::Balloon { reclaim }));
        }
        if let Some(sockets) = &self.sockets {
            list.push(device("vsock0", None, sockets.open()?));
        }
        for share in &self.shares {
            list.push(device(share.tag.as_str(), share.slot, share.open(to)?));
        }
        Ok(list)
    }
}

/// One queue for each processor.
fn queues(to: &Connections<'_>) -> u16 {
    u16::try_from(to.cpus).unwrap_or(1).max(1)
}

impl DiskDevice {
    fn open(&self, to: &Connections<'_>) -> Result<DeviceKind, DeviceError> {
        let failed = |source| DeviceError::Disk { name: self.name.clone(), source };
        let disk = Disk::open(&self.options, Arc::clone(to.ram)).map_err(failed)?;
        let (name, notices) = (self.name.clone(), to.notices.clone());
        disk.on_trouble(move |trouble| {
            notices(Notice::DiskTrouble { disk: name.clone(), trouble: trouble.clone() });
        });
        let serial = self.serial.as_ref().map_or([0; 20], DiskSerial::to_bytes);
        let shape = DiskShape { serial, queues: queues(to) };
        Ok(DeviceKind::Disk { backend: Arc::new(disk), shape })
    }
}

impl NetDevice {
    /// `None` if there is to be no card.
    fn open(&self, to: &Connections<'_>) -> Result<Option<DeviceKind>, DeviceError> {
        let failed = |source| DeviceError::Net { name: self.name.clone(), source };
        let capture = self.capture.as_deref();
        let network = kasane_host_net::open(&self.choice, &self.nat, capture).map_err(failed)?;
        let shape = NetShape { mac: self.mac.0, queue_pairs: queues(to) };
        let Some(Network { backend, forwards }) = network else { return Ok(None) };
        for (asked, forward) in self.nat.forwards.iter().zip(forwards) {
            if *asked != forward {
                (to.notices)(Notice::Forward { net: self.name.clone(), forward });
            }
        }
        Ok(Some(DeviceKind::Net { backend, shape }))
    }
}

impl ShareDevice {
    fn failed(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> DeviceError {
        DeviceError::Share { tag: self.tag.to_string(), source: source.into() }
    }
    #[cfg(target_os = "linux")]
    fn open(&self, to: &Connections<'_>) -> Result<DeviceKind, DeviceError> {
        use kasane_host_shares::{Share, ShareAccess};

        let access = match self.access {
            FolderAccess::ReadWrite => ShareAccess::ReadWrite,
            FolderAccess::ReadOnly => ShareAccess::ReadOnly,
        };
        let memory = Arc::clone(to.ram);
        let share = Share::start(&self.directory, access, memory).map_err(|e| self.failed(e))?;
        Ok(DeviceKind::Share { backend: Arc::new(share), tag: self.tag.to_string() })
    }
    #[cfg(not(target_os = "linux"))]
    fn open(&self, _to: &Connections<'_>) -> Result<DeviceKind, DeviceError> {
        Err(self.failed("this host has no shared folders yet"))
    }
}

impl SocketsDevice {
    #[cfg(unix)]
    fn open(&self) -> Result<DeviceKind, DeviceError> {
        let sockets = kasane_host_vsock::Vsock::start(&self.path);
        let sockets = sockets.map_err(|error| DeviceError::Sockets(error.into()))?;
        Ok(DeviceKind::Sockets { backend: Arc::new(sockets), guest_cid: self.guest_cid })
    }
    #[cfg(not(unix))]
    fn open(&self) -> Result<DeviceKind, DeviceError> {
        Err(DeviceError::Sockets("this host has no Unix sockets".into()))
    }
}
