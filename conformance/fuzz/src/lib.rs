//! What the targets share: a home that does nothing, and machines and vCPUs in it.

pub mod backends;
pub mod net;
pub mod socket;
pub mod virtio;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arbitrary::Arbitrary;
use kasane_cpu::apic::ApicBus;
use kasane_cpu::cpuid::{CpuModel, CpuModelName, Feature, FeatureSet};
use kasane_cpu::{AccessSize, Entry, Exit, Partition, Vcpu};
use kasane_interp::{InterpConfig, InterpPartition};
use kasane_machine::{Action, Machine, MachineConfig, MachineDevice, MachinePorts};
use kasane_memory::{Ram, RamSlot};
use kasane_ports::{Clock, Console, Entropy, HeavyBarrier, Kick, Trace, TraceEvent};
use parking_lot::RawMutex;

/// A home whose clock goes on by a microsecond at each look, and that kicks all vCPUs when it was
/// looked at too often: a guest that loops is interrupted so.
pub struct Home {
    now_ns: AtomicU64,
    looks: AtomicU64,
    apics: Arc<ApicBus>,
}

/// Looks at the clock (every 2048 instructions or more often) after which a vCPU is kicked.
const LOOKS_MAX: u64 = 4;

impl Home {
    /// A home for these processors.
    #[must_use]
    pub fn new(apics: Arc<ApicBus>) -> Arc<Self> {
        Arc::new(Self { now_ns: AtomicU64::new(0), looks: AtomicU64::new(0), apics })
    }

    /// Lets time pass.
    pub fn pass(&self, ns: u64) {
        self.now_ns.fetch_add(ns, Ordering::Relaxed);
    }
}

impl Clock for Home {
    fn now_ns(&self) -> u64 {
        if self.looks.fetch_add(1, Ordering::Relaxed) >= LOOKS_MAX {
            self.looks.store(0, Ordering::Relaxed);
            self.apics.kick_all();
        }
        self.now_ns.fetch_add(1000, Ordering::Relaxed)
    }
    fn wall_clock_s(&self) -> u64 {
        1_700_000_000
    }
}

impl Console for Home {
    fn output(&self, _: &[u8]) {}
}

impl Entropy for Home {
    fn fill(&self, buf: &mut [u8]) {
        buf.fill(4);
    }
}

impl Kick for Home {
    fn kick(&self) {}
}

impl Trace for Home {
    fn enabled(&self) -> bool {
        true
    }
    fn emit(&self, _: &TraceEvent) {}
}

impl HeavyBarrier for Home {
    fn synchronize(&self) {}
}

/// A machine with 2 processors.
#[must_use]
pub fn machine() -> (Arc<Machine<RawMutex>>, Arc<Home>) {
    let (machine, home, _) = machine_with(Vec::new());
    (machine, home)
}

/// A machine with 2 processors and these devices, and its memory: 64 KiB.
#[must_use]
pub fn machine_with(devices: Vec<MachineDevice>) -> (Arc<Machine<RawMutex>>, Arc<Home>, Arc<Ram>) {
    let apics = Arc::new(ApicBus::new(2));
    let home = Home::new(apics.clone());
    let ram = Arc::new(Ram::new(vec![RamSlot::allocated(0, 1 << 16)]));
    let ports = MachinePorts {
        clock: home.clone(),
        entropy: home.clone(),
        console: home.clone(),
        console_room: None,
        debug_console: Some(home.clone()),
        trace: home.clone(),
        memory: ram.clone(),
        apics,
        deadline_changed: home.clone(),
        devices,
    };
    let config = MachineConfig { cpus: 2, memory_bytes: 32 << 20, ..MachineConfig::default() };
    (Machine::new(&config, ports).expect("the board is sound"), home, ram)
}

/// A vCPU with all features, and its memory: `bytes` from address 0 on.
#[must_use]
pub fn vcpu(bytes: usize) -> (Box<dyn Vcpu>, Arc<Ram>) {
    let ram = Arc::new(Ram::new(vec![RamSlot::allocated(0, bytes)]));
    let apics = Arc::new(ApicBus::new(1));
    let home = Home::new(apics.clone());
    let all = FeatureSet::of(Feature::ALL);
    let partition = InterpPartition::new(InterpConfig {
        ram: ram.clone(),
        apics,
        clock: home.clone(),
        entropy: home.clone(),
        barrier: home,
        model: CpuModel::new(CpuModelName::Max, all),
        tsc_hz: 1_000_000_000,
        passthrough: Arc::new(|| None),
        accelerator: Arc::new(|_| None),
    });
    (partition.new_vcpu(0).expect("there is a vCPU 0"), ram)
}

/// Runs a vCPU until something ends it, with these answers.
pub fn run(vcpu: &mut dyn Vcpu, answers: &[u64]) {
    let mut answers = answers.iter().copied().cycle();
    let mut entry = Entry::Resume;
    for _ in 0..64 {
        let exit = vcpu.run(entry).expect("a guest is no fault of the engine");
        let value = answers.next().unwrap_or(u64::MAX);
        entry = match exit {
            Exit::PortRead { size, .. } | Exit::MmioRead { size, .. } => {
                Entry::Value(value & size.mask())
            }
            Exit::MsrRead { .. } if value & 1 == 0 => Entry::Value(value),
            Exit::MsrRead { .. } | Exit::MsrWrite { .. } => Entry::Fault,
            Exit::Hypercall => Entry::Value(value),
            Exit::InterruptWindow => Entry::ExternalInterrupt { vector: value as u8 },
            Exit::PortWrite { .. }
            | Exit::PortWriteString { .. }
            | Exit::MmioWrite { .. }
            | Exit::Eoi { .. }
            | Exit::Smi => Entry::Resume,
            Exit::Halt
            | Exit::TripleFault
            | Exit::BudgetUsed
            | Exit::Kicked
            | Exit::Debug { .. } => return,
        };
    }
}

/// The size of an access.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Size {
    Byte,
    Word,
    Dword,
    Qword,
}

impl From<Size> for AccessSize {
    fn from(size: Size) -> Self {
        match size {
            Size::Byte => Self::Byte,
            Size::Word => Self::Word,
            Size::Dword => Self::Dword,
            Size::Qword => Self::Qword,
        }
    }
}

/// A port's access has no more than 4 bytes.
fn port_size(size: Size) -> AccessSize {
    match size {
        Size::Qword => AccessSize::Dword,
        other => other.into(),
    }
}

/// What may happen to a machine.
#[derive(Arbitrary, Debug)]
pub enum Step {
    Read { port: Port, size: Size },
    Write { port: Port, size: Size, value: u32 },
    String { port: Port, size: Size, count: u8, data: [u8; 32] },
    MmioRead { at: Mmio, size: Size },
    MmioWrite { at: Mmio, size: Size, value: u64 },
    Msr { index: u32, value: Option<u64> },
    Window,
    Eoi(u8),
    Other(u8),
    Pass { ns: u32 },
    Leap { ns: u64 },
    Input(Vec<u8>),
    PowerButton,
    Reset,
    SaveAndRestore,
}

/// A port; those with something behind them more often than others.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Port {
    Old(u8),
    Serial(u8),
    PowerManagement(u8),
    Pci(u8),
    Any(u16),
}

impl Port {
    fn number(self) -> u16 {
        match self {
            Self::Old(n) => n.into(),
            Self::Serial(n) => 0x3F8 + u16::from(n & 15),
            Self::PowerManagement(n) => 0x600 + u16::from(n & 63),
            Self::Pci(n) => 0xCF8 + u16::from(n & 7),
            Self::Any(n) => n,
        }
    }
}

/// An address outside of memory.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Mmio {
    Ioapic(u8),
    Hpet(u16),
    Any(u64),
}

impl Mmio {
    fn address(self) -> u64 {
        match self {
            Self::Ioapic(n) => 0xFEC0_0000 + u64::from(n),
            Self::Hpet(n) => 0xFED0_0000 + u64::from(n & 0x3FF),
            Self::Any(n) => n,
        }
    }
}

/// Does one step. A machine that was switched off answers nothing else until it is reset.
pub fn step(machine: &Machine<RawMutex>, home: &Home, step: &Step) {
    let exit = match step {
        Step::Read { port, size } => Exit::PortRead { port: port.number(), size: port_size(*size) },
        Step::Write { port, size, value } => {
            let size = port_size(*size);
            let value = value & size.mask() as u32;
            Exit::PortWrite { port: port.number(), size, value }
        }
        Step::String { port, size, count, data } => {
            let (port, size) = (port.number(), port_size(*size));
            Exit::PortWriteString { port, size, count: count % 33, data: *data }
        }
        Step::MmioRead { at, size } => Exit::MmioRead { gpa: at.address(), size: (*size).into() },
        Step::MmioWrite { at, size, value } => {
            let size = AccessSize::from(*size);
            Exit::MmioWrite { gpa: at.address(), size, value: value & size.mask() }
        }
        Step::Msr { index, value: None } => Exit::MsrRead { index: *index },
        Step::Msr { index, value: Some(value) } => Exit::MsrWrite { index: *index, value: *value },
        Step::Window => Exit::InterruptWindow,
        Step::Eoi(vector) => Exit::Eoi { vector: *vector },
        Step::Other(n) => match n % 4 {
            0 => Exit::Hypercall,
            1 => Exit::Smi,
            2 => Exit::Halt,
            _ => Exit::Kicked,
        },
        Step::Pass { ns } => return pass(machine, home, (*ns).into()),
        // Up to about 300 years.
        Step::Leap { ns } => return pass(machine, home, ns >> 1),
        Step::Input(bytes) => {
            machine.console_input(bytes);
            return;
        }
        Step::PowerButton => return machine.power_button(),
        Step::Reset => return machine.reset().expect("the machine's own state"),
        Step::SaveAndRestore => {
            return machine.restore(&machine.save()).expect("the machine's own state");
        }
    };
    let action = machine.handle(0, &exit);
    if matches!(action, Action::Reset | Action::PowerOff) {
        machine.reset().expect("the machine's own state");
    }
}

fn pass(machine: &Machine<RawMutex>, home: &Home, ns: u64) {
    let left = (u64::MAX >> 1).saturating_sub(home.now_ns.load(Ordering::Relaxed));
    home.pass(ns.min(left));
    machine.advance();
}
