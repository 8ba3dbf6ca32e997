//! A running virtual machine: the core's machine and an engine's vCPUs on threads of this process.
//!
//! ```text
//! vCPU thread ── vcpu.run(entry) ──> exit ── machine.handle ──> entry      (one thread each)
//! timer thread ── machine.next_deadline_ns / advance                       (device deadlines)
//! who started it ── wait, stop, pause, input                               (this module's API)
//! ```
//! Nothing polls: a halted vCPU and the timer thread park until a kick or their next deadline.
//! A machine lives from start to its end; a reset by the guest ends it, and who started it starts
//! another one.

mod assemble;
mod control;
mod devices;
mod dump;
mod engine;
mod features;
mod image;
mod processor;
mod reclaim;
mod saved;
mod self_test;
mod timer;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use kasane_cpu::CpuState;
use kasane_cpu::apic::ApicBus;
use kasane_cpu::cpuid::CpuModelName;
use kasane_devices::Section;
use kasane_host_runtime::{Barrier, HostClock, HostEntropy, Parker, RawMutex};
use kasane_host_sandbox::{Provocation, VcpuFilter};
use kasane_machine::Machine;
use kasane_machine::boot::BootError;
use kasane_memory::Ram;
use kasane_passthrough::{CodeObserver, CodeRunner};
use kasane_ports::{Console, Kick, Trace};
use parking_lot::Mutex;

use control::Begin;
pub use control::{Control, DebugStop, NotPaused};
pub use devices::{
    DeviceError, Devices, DiskDevice, FolderAccess, NetDevice, Notice, Presence, ShareDevice,
    SocketsDevice,
};
pub use dump::Registers;
pub use engine::{EngineKind, translator_works};
pub use features::{MissingFeatures, cpu_model};
pub use image::Image;
pub use processor::ProcessorReport;
pub use saved::{LoadError, SaveError};
pub use self_test::self_test;

/// The machine with this home's mutex.
pub type HostedMachine = Machine<RawMutex>;

/// What to build: everything that the guest can see.
#[derive(Clone, Debug)]
pub struct Specification {
    /// Name, for the host's tools.
    pub name: String,
    /// Processors, 1 to 8.
    pub cpus: u32,
    /// RAM in bytes, a multiple of 1 MiB.
    pub memory_bytes: u64,
    /// What CPUID shows.
    pub model: CpuModelName,
    /// What runs them.
    pub engine: EngineKind,
    /// Kernel image.
    pub kernel: Image,
    /// Initial RAM disk.
    pub initrd: Option<Image>,
    /// Kernel command line.
    pub append: String,
    /// Devices besides the board's.
    pub devices: Devices,
}

/// The battery of a machine's real-time clock: what the clock and its memory hold outlives the
/// machine, so that one which is built anew for a guest's reset goes on with it.
#[derive(Clone, Default)]
pub struct Battery(Arc<Mutex<Option<Section>>>);

/// What the host lends to the machine.
#[derive(Clone)]
pub struct Lent {
    /// The first serial port's output.
    pub console: Arc<dyn Console>,
    /// Told when the first serial port takes input again.
    pub console_room: Option<Arc<dyn Kick>>,
    /// The virtio console's output.
    pub virtio_console: Arc<dyn Console>,
    /// Told when it takes input again.
    pub virtio_console_room: Option<Arc<dyn Kick>>,
    /// The debug ports' output.
    pub debug_console: Option<Arc<dyn Console>>,
    /// Trace events.
    pub trace: Arc<dyn Trace>,
    /// Random bytes.
    pub entropy: HostEntropy,
    /// The barrier over all threads.
    pub barrier: Barrier,
    /// Runs vector and x87 instructions.
    pub runner: Arc<dyn CodeRunner>,
    /// Told of the code that the translator makes.
    pub code_observer: Option<Arc<dyn CodeObserver>>,
    /// The real-time clock of the machines that are started with it, one after the other.
    pub battery: Battery,
    /// What the vCPUs' threads are confined by.
    pub confinement: Option<Confinement>,
    /// Told what a person should hear of the devices. Called by any thread, and returns soon.
    pub notices: Arc<dyn Fn(Notice) + Send + Sync>,
}

/// What the vCPUs' threads are confined by.
#[derive(Clone, Debug)]
pub struct Confinement {
    /// The calls that they may make.
    pub filter: VcpuFilter,
    /// A call that they may not, for vCPU 0 to make.
    pub provoke: Option<Provocation>,
}

/// Why a machine can't be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel, the initial RAM disk or the command line can't be booted.
    #[error("the kernel can't be booted")]
    Boot(#[from] BootError),
    /// The kernel or the initial RAM disk can't be read any more.
    #[error("the kernel or its initial RAM disk can't be read")]
    Image(#[source] std::io::Error),
    /// The model promises what this host can't do.
    #[error(transparent)]
    Model(#[from] MissingFeatures),
    /// Guest RAM.
    #[error("there is no RAM for the guest")]
    Ram(#[from] kasane_host_memory::RamError),
    /// What is behind a device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The machine's wiring.
    #[error("the machine can't be built")]
    Machine(#[from] kasane_machine::MachineError),
    /// The engine.
    #[error("the engine gives no processor")]
    Engine(#[from] kasane_cpu::EngineFault),
    /// A thread.
    #[error("the host gives no thread")]
    Thread(#[source] std::io::Error),
    /// More than one vCPU on a host without a barrier over all threads.
    #[error("this host has no memory barrier over all threads, so only one processor can run")]
    Barrier,
}

/// How a machine's life ended.
#[derive(Debug)]
pub enum End {
    /// The guest powered off.
    PoweredOff,
    /// The guest asked for a reset.
    Reset,
    /// A processor shut down by a triple fault.
    Crashed {
        /// Which.
        vcpu: u32,
        /// As it was then.
        state: Box<CpuState>,
    },
    /// Somebody asked for it, by [`Control::end`].
    Stopped,
    /// The engine or the program is wrong.
    Fault(String),
}

/// A running machine.
pub struct VirtualMachine {
    machine: Arc<HostedMachine>,
    apics: Arc<ApicBus>,
    ram: Arc<Ram>,
    clock: Arc<HostClock>,
    control: Arc<Control>,
    battery: Battery,
    timer_parker: Arc<Parker>,
    processors: Vec<JoinHandle<ProcessorReport>>,
    timer: Option<JoinHandle<()>>,
}

/// What is left of a machine.
#[derive(Debug)]
pub struct Remains {
    /// How it ended.
    pub end: End,
    /// Guest time at the end, in nanoseconds.
    pub guest_ns: u64,
    /// What each processor did.
    pub processors: Vec<ProcessorReport>,
    /// What the machine counted.
    pub stats: kasane_machine::Statistics,
}

impl VirtualMachine {
    /// Builds the machine and lets it run.
    ///
    /// # Errors
    /// What is wrong with the images, or what the host refused.
    pub fn start(specification: &Specification, lent: &Lent) -> Result<Self, StartError> {
        Self::launch(assemble::parts(specification, lent)?, Begin::Running)
    }

    /// Builds the machine; it stands before its first instruction until [`Control::resume`].
    ///
    /// # Errors
    /// As for `start`.
    pub fn start_paused(specification: &Specification, lent: &Lent) -> Result<Self, StartError> {
        Self::launch(assemble::parts(specification, lent)?, Begin::Paused)
    }

    fn launch(parts: assemble::Parts, begin: Begin) -> Result<Self, StartError> {
        let control = Arc::new(Control::new(&parts, begin));
        let mut vm = Self {
            machine: Arc::clone(&parts.machine),
            apics: Arc::clone(&parts.apics),
            ram: parts.ram,
            clock: parts.clock,
            control,
            battery: parts.battery,
            timer_parker: parts.timer_parker,
            processors: Vec::new(),
            timer: None,
        };
        let spawned = vm.spawn(parts.vcpus);
        if spawned.is_err() {
            vm.control.end(End::Stopped);
        }
        spawned.map_err(StartError::Thread).map(|()| vm)
    }

    fn spawn(&mut self, vcpus: Vec<assemble::VcpuParts>) -> std::io::Result<()> {
        for parts in vcpus {
            let processor = processor::Processor::new(
                parts,
                Arc::clone(&self.machine),
                Arc::clone(&self.clock),
                Arc::clone(&self.control),
            );
            let thread = std::thread::Builder::new().name(format!("vcpu {}", processor.index()));
            self.processors.push(thread.spawn(move || processor.live())?);
        }
        let timer = timer::Timer {
            machine: Arc::clone(&self.machine),
            clock: Arc::clone(&self.clock),
            parker: Arc::clone(&self.timer_parker),
            control: Arc::clone(&self.control),
        };
        let thread = std::thread::Builder::new().name("timer".to_owned());
        self.timer = Some(thread.spawn(move || timer.live())?);
        Ok(())
    }

    /// Pausing, ending, and asking vCPUs.
    #[must_use]
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// The machine, for console input and the power button.
    #[must_use]
    pub fn machine(&self) -> &Arc<HostedMachine> {
        &self.machine
    }

    /// Guest memory.
    #[must_use]
    pub fn ram(&self) -> &Arc<Ram> {
        &self.ram
    }

    /// The local APICs.
    #[must_use]
    pub fn apics(&self) -> &Arc<ApicBus> {
        &self.apics
    }

    /// The number of vCPUs.
    #[must_use]
    pub fn cpus(&self) -> u32 {
        self.apics.cpus()
    }

    /// Waits for the machine's end, or until `deadline`. True if it ended.
    #[must_use]
    pub fn wait(&self, deadline: Option<Instant>) -> bool {
        self.control.wait_for_end(deadline)
    }

    /// Ends the machine, unless it ended already, and gives what is left of it.
    #[must_use]
    pub fn finish(mut self) -> Remains {
        self.control.end(End::Stopped);
        let guest_ns = kasane_ports::Clock::now_ns(&*self.clock);
        let mut processors = Vec::new();
        for thread in self.processors.drain(..) {
            // A panicked vCPU has set the end before its thread ended.
            processors.extend(thread.join().ok());
        }
        if let Some(timer) = self.timer.take() {
            let _panicked = timer.join();
        }
        *self.battery.0.lock() = Some(self.machine.battery());
        let end = self.control.take_end().unwrap_or(End::Stopped);
        Remains { end, guest_ns, processors, stats: self.machine.stats() }
    }
}
