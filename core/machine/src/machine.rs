//! A machine: the board, and what a home does with it.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use kasane_cpu::apic::{ApicBus, ApicObserver};
use kasane_devices::pci::PciError;
use kasane_devices::{MapError, RestoreError, Saved, Section};
use kasane_memory::GuestMemory;
use kasane_ports::{Clock, Console, Entropy, Kick, Trace, TraceKind};
use lock_api::RawMutex;

use crate::config::MachineConfig;
use crate::devices::{self, MachineDevice};
use crate::firmware;
use crate::hold::Gate;
use crate::power::{PowerLatch, PowerRequest};
use crate::state::{self, SavedStateError};
use crate::statistics::{Counters, Statistics};
use crate::tracing::{Happening, NO_VCPU, Tracer};
use crate::wiring::{Board, Supplies};

/// What a machine needs of its home.
pub struct MachinePorts {
    /// Guest time.
    pub clock: Arc<dyn Clock>,
    /// Random bytes, for devices that give them to the guest.
    pub entropy: Arc<dyn Entropy>,
    /// Where the first serial port's output goes.
    pub console: Arc<dyn Console>,
    /// Told when the serial port has room for input again.
    pub console_room: Option<Arc<dyn Kick>>,
    /// Where the debug ports' output goes; without it there are none.
    pub debug_console: Option<Arc<dyn Console>>,
    /// Where trace events go.
    pub trace: Arc<dyn Trace>,
    /// Guest memory, for devices that do DMA.
    pub memory: Arc<dyn GuestMemory>,
    /// The local APICs.
    pub apics: Arc<ApicBus>,
    /// Told when [`Machine::next_deadline_ns`] became earlier.
    pub deadline_changed: Arc<dyn Kick>,
    /// Devices beyond the board's own.
    pub devices: Vec<MachineDevice>,
}

/// A machine that can't be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineError {
    /// A number of processors that the board can't have.
    Cpus {
        /// What was asked.
        asked: u32,
        /// What the local APICs are made for.
        apics: u32,
    },
    /// Two chips at one address.
    Map(MapError),
    /// A PCI function that can't be.
    Pci(PciError),
    /// Two devices of one name.
    DeviceName {
        /// The name.
        name: String,
    },
    /// A device for which there is no slot, or none like the one it asks for.
    NoSlot {
        /// Its name.
        name: String,
    },
    /// A device for which there is no more place in memory.
    NoRegisters {
        /// Its name.
        name: String,
    },
}

impl From<MapError> for MachineError {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}

impl From<PciError> for MachineError {
    fn from(error: PciError) -> Self {
        Self::Pci(error)
    }
}

impl fmt::Display for MachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpus { asked, apics } => {
                write!(f, "{asked} processors asked, 1 to 64 possible, {apics} local APICs made")
            }
            Self::Map(_) => write!(f, "two devices at one address"),
            Self::Pci(_) => write!(f, "impossible PCI function"),
            Self::DeviceName { name } => write!(f, "two devices are called `{name}`"),
            Self::NoSlot { name } => write!(f, "no PCI slot for device `{name}`"),
            Self::NoRegisters { name } => {
                write!(f, "no place in memory for device `{name}`: there are 32")
            }
        }
    }
}

impl core::error::Error for MachineError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Cpus { .. }
            | Self::DeviceName { .. }
            | Self::NoSlot { .. }
            | Self::NoRegisters { .. } => None,
            Self::Map(error) => Some(error),
            Self::Pci(error) => Some(error),
        }
    }
}

/// The most processors that the board has APIC ids and tables for.
const CPUS_MAX: u32 = 64;

/// A machine's hardware. All methods may be called from any thread.
///
/// Lock order: each chip's lock is a leaf (see `kasane_devices`); before it comes the gate that the
/// home comes in by.
pub struct Machine<R: RawMutex> {
    pub(crate) config: MachineConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) board: Board<R>,
    pub(crate) power: Arc<PowerLatch>,
    apics: Arc<ApicBus>,
    pub(crate) counters: Counters,
    pub(crate) tracer: Arc<Tracer>,
    /// All chips as firmware leaves them.
    power_on: Vec<Section>,
    pub(crate) gate: Gate<R>,
    pub(crate) console_room: Option<Arc<dyn Kick>>,
}

impl<R: RawMutex> Drop for Machine<R> {
    /// The PCI bus is on the address spaces, and holds them. The processor's error pin leads to a
    /// chip that leads back to the processor.
    fn drop(&mut self) {
        self.apics.set_ferr_line(None);
        self.board.ports.clear();
        self.board.memory.clear();
    }
}

impl<R: RawMutex + Send + Sync + 'static> Machine<R> {
    /// Makes a machine as firmware leaves it.
    ///
    /// # Errors
    /// When `config` asks for what the board can't be.
    pub fn new(config: &MachineConfig, ports: MachinePorts) -> Result<Arc<Self>, MachineError> {
        let apics = ports.apics.cpus();
        if config.cpus == 0 || config.cpus > CPUS_MAX || config.cpus != apics {
            return Err(MachineError::Cpus { asked: config.cpus, apics });
        }
        let mmio_devices = devices::count_in_memory(&ports.devices);
        let config = &MachineConfig { mmio_devices, ..config.clone() };
        let tracer = Tracer::new(ports.trace.clone(), ports.clock.clone());
        let observer: Arc<dyn ApicObserver> = tracer.clone();
        ports.apics.observe(&observer);
        let power = PowerLatch::new(ports.apics.clone());
        let supplies =
            Supplies { config, home: &ports, tracer: tracer.clone(), power: power.clone() };
        let board = Board::new(&supplies)?;
        firmware::run(config, &board);
        let power_on = board.saved.iter().map(|device| device.save()).collect();
        Ok(Arc::new(Self {
            config: config.clone(),
            clock: ports.clock,
            apics: ports.apics,
            counters: Counters::new(board.device_names()),
            board,
            power,
            tracer,
            power_on,
            gate: Gate::default(),
            console_room: ports.console_room,
        }))
    }

    /// What the machine was made from.
    #[must_use]
    pub fn config(&self) -> &MachineConfig {
        &self.config
    }

    /// The guest time at which [`advance`](Self::advance) has to be called next.
    #[must_use]
    pub fn next_deadline_ns(&self) -> Option<u64> {
        self.board.timed.iter().filter_map(|device| device.next_deadline_ns()).min()
    }

    /// Brings the devices whose deadlines have passed to the present.
    pub fn advance(&self) {
        let now_ns = self.clock.now_ns();
        for device in &self.board.timed {
            let Some(deadline_ns) = device.next_deadline_ns().filter(|ns| *ns <= now_ns) else {
                continue;
            };
            if self.tracer.enabled() {
                self.tracer.begin(Happening {
                    vcpu: NO_VCPU,
                    kind: TraceKind::Deadline,
                    subject: "device",
                    a: deadline_ns,
                    b: now_ns,
                    size: 0,
                });
            }
            device.advance(now_ns);
        }
    }

    /// Input for the virtio console; gives the number of bytes that it took. The console's room is
    /// kicked when it takes more. Without such a device all is taken and lost.
    pub fn virtio_console_input(&self, bytes: &[u8]) -> usize {
        match &self.board.controls.console {
            Some(console) => console.receive(0, bytes),
            None => bytes.len(),
        }
    }

    /// Asks the guest by its balloon to give back so many bytes of its memory; less than before
    /// returns the rest to it. False if there is no balloon.
    pub fn set_balloon(&self, bytes: u64) -> bool {
        let balloon = self.board.controls.balloon.as_ref();
        balloon.is_some_and(|balloon| {
            balloon.set_wanted_bytes(bytes);
            true
        })
    }

    /// What a chip has asked of the whole machine; it stands until [`reset`](Self::reset).
    #[must_use]
    pub fn power_request(&self) -> Option<PowerRequest> {
        self.power.pending()
    }

    /// Takes all chips back to where firmware leaves them, but the clock with its battery. No
    /// vCPU may be running. The home then resets the vCPUs and loads its images again.
    ///
    /// # Errors
    /// None that is known: the state was the machine's own.
    pub fn reset(&self) -> Result<(), RestoreError> {
        self.board.pci.reset();
        self.board.controls.mmio.iter().for_each(|registers| registers.reset());
        let battery_backed = self.board.clock.section_name();
        for (device, section) in self.board.saved.iter().zip(&self.power_on) {
            if section.name != battery_backed {
                device.restore(section)?;
            }
        }
        self.board.clock.with(|chip, _| chip.reset());
        self.power.clear();
        Ok(())
    }

    /// What lives on while there is no power: the real-time clock and its memory.
    #[must_use]
    pub fn battery(&self) -> Section {
        self.board.clock.save()
    }

    /// Goes on with the battery of a machine that is gone, so that a machine which a home builds
    /// anew for a guest's reset has its clock and memory. No vCPU may have run.
    ///
    /// # Errors
    /// When the section is no battery of this version.
    pub fn take_over_battery(&self, battery: &Section) -> Result<(), RestoreError> {
        let (wall_clock_ns, now_ns) = (self.clock.wall_clock_ns(), self.clock.now_ns());
        self.board.clock.with(|chip, _| chip.take_over(battery, wall_clock_ns, now_ns))
    }

    /// Guest time stood still, or begins elsewhere: the real-time clock makes up what has passed
    /// on the home's wall clock. For a home to call after a pause and after a restore.
    pub fn follow_wall_clock(&self) {
        let (wall_clock_ns, now_ns) = (self.clock.wall_clock_ns(), self.clock.now_ns());
        self.board.clock.with(|chip, _| chip.follow(wall_clock_ns, now_ns));
    }

    /// All devices' state, with a header in front. No vCPU may be running. What is under way in
    /// backends is waited for. A home that saves more than this [holds](Self::hold) the machine
    /// meanwhile.
    #[must_use]
    pub fn save(&self) -> Vec<Section> {
        let _hold = self.hold();
        let header = state::header(&self.config, &self.board.devices, self.clock.now_ns());
        let devices = self.board.saved.iter().map(|device| device.save());
        core::iter::once(header).chain(devices).collect()
    }

    /// Takes over a saved state. Sections that no device here has are left to others (the
    /// vCPUs'). No vCPU may be running, and the clock has to stand where the header says. A home
    /// that restores more than this [holds](Self::hold) the machine meanwhile.
    ///
    /// # Errors
    /// When the state is of another machine, or damaged; then this machine is as it was.
    pub fn restore(&self, sections: &[Section]) -> Result<(), SavedStateError> {
        state::check(&self.config, &self.board.devices, sections)?;
        let _hold = self.hold();
        let before: Vec<Section> = self.board.saved.iter().map(|device| device.save()).collect();
        let result = self.restore_devices(sections);
        if result.is_err() {
            // The devices' own states: they can't be refused.
            let _ = self.restore_devices(&before);
        }
        Ok(result?)
    }

    fn restore_devices(&self, sections: &[Section]) -> Result<(), RestoreError> {
        for device in &self.board.saved {
            let name = device.section_name();
            let section = sections.iter().find(|section| section.name == name);
            let missing = || RestoreError::Missing { name: name.into() };
            device.restore(section.ok_or_else(missing)?)?;
        }
        Ok(())
    }

    /// What has been counted so far.
    #[must_use]
    pub fn stats(&self) -> Statistics {
        self.counters.get()
    }
}
