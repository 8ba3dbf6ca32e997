//! Building a machine: memory, board, engine, images, tasks.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kasane_cpu::apic::ApicBus;
use kasane_cpu::cpuid::{CpuModel, CpuModelName, FeatureSet};
use kasane_cpu::{Entry, Partition, StateSet, Vcpu};
use kasane_definition::{CpuModel as ModelChoice, DevicesDefinition, MetalEngine, VmDefinition};
use kasane_interp::{InterpConfig, InterpPartition};
use kasane_machine::boot::{self, BootImages};
use kasane_machine::{Machine, MachineConfig, MachinePorts, layout};
use kasane_memory::{Ram, RamSlot};
use kasane_metal_memory::SpinLock;
use kasane_metal_sched::{NewTask, Task, Waker};
use kasane_passthrough::Passthrough;
use kasane_ports::{Clock, Kick, NullTrace};

use crate::console::VmConsole;
use crate::control::Control;
use crate::files::Files;
use crate::home::{Engine, Home};
use crate::processor::Processor;
use crate::start_error::StartError;
use crate::timer::Timer;

/// A machine that runs.
pub(crate) struct Running {
    pub(crate) machine: Arc<Machine<SpinLock>>,
    pub(crate) control: Arc<Control>,
    pub(crate) engine: &'static str,
}

/// Everything of a machine before its tasks.
struct Parts {
    machine: Arc<Machine<SpinLock>>,
    apics: Arc<ApicBus>,
    clock: Arc<dyn Clock>,
    ram: Arc<Ram>,
    timer: Arc<Waker>,
    vcpus: Vec<Box<dyn Vcpu>>,
}

/// Builds the machine of a definition and lets it run.
pub(crate) fn start(
    home: &Home,
    files: &Files,
    definition: &VmDefinition,
    console: &Arc<VmConsole>,
) -> Result<Running, StartError> {
    refuse_what_is_not_here(&definition.devices)?;
    let images = Images::find(files, definition)?;
    let engine = engine(home, definition.home.metal.engine)?;
    let mut parts = hardware(home, &engine, definition, console)?;
    images.load(&mut parts)?;
    let timer: Arc<dyn Kick> = parts.timer.clone();
    let control = Arc::new(Control::new(parts.apics.clone(), timer, home.news.clone()));
    let running =
        Running { machine: parts.machine.clone(), control: control.clone(), engine: engine.name() };
    spawn(home, definition, parts, &control);
    Ok(running)
}

fn refuse_what_is_not_here(devices: &DevicesDefinition) -> Result<(), StartError> {
    if *devices == DevicesDefinition::default() {
        return Ok(());
    }
    Err(StartError::NotHere("devices besides the board's"))
}

struct Images {
    kernel: &'static [u8],
    initrd: Option<&'static [u8]>,
    append: String,
}

impl Images {
    fn find(files: &Files, definition: &VmDefinition) -> Result<Self, StartError> {
        let file = |name: &String| files.find(name).ok_or_else(|| StartError::NoFile(name.clone()));
        let boot = &definition.boot;
        let kernel = boot.kernel.as_ref().ok_or(StartError::NoKernel)?;
        Ok(Self {
            kernel: file(kernel)?,
            initrd: boot.initrd.as_ref().map(file).transpose()?,
            append: boot.append.clone(),
        })
    }

    fn load(&self, parts: &mut Parts) -> Result<(), StartError> {
        let images = BootImages {
            kernel: self.kernel,
            initrd: self.initrd,
            cmdline: &self.append,
            modules: &[],
        };
        let bootstrap = boot::load(&*parts.ram, parts.machine.config(), &images)?;
        for (index, vcpu) in parts.vcpus.iter_mut().enumerate() {
            let state = if index == 0 { &bootstrap } else { &boot::application_processor() };
            vcpu.write(StateSet::ALL, state);
        }
        Ok(())
    }
}

fn engine(home: &Home, wanted: MetalEngine) -> Result<Engine, StartError> {
    let name = match wanted {
        MetalEngine::Auto => return Ok(home.best.clone()),
        MetalEngine::Interp => return Ok(Engine::Interp),
        MetalEngine::Svm => "svm",
        MetalEngine::Vmx => "vmx",
    };
    if home.best.name() == name { Ok(home.best.clone()) } else { Err(StartError::NoEngine(name)) }
}

fn model(home: &Home, engine: &Engine, choice: ModelChoice) -> Result<CpuModel, StartError> {
    let name = match choice {
        ModelChoice::V2 => CpuModelName::X86_64V2,
        ModelChoice::V3 => CpuModelName::X86_64V3,
        ModelChoice::Max => CpuModelName::Max,
    };
    let model = CpuModel::new(name, home.runner.features().shown()).hiding(engine.hidden());
    if name == CpuModelName::Max || model.missing() == FeatureSet::EMPTY {
        return Ok(model);
    }
    Err(StartError::Model(name.as_str()))
}

fn hardware(
    home: &Home,
    engine: &Engine,
    definition: &VmDefinition,
    console: &Arc<VmConsole>,
) -> Result<Parts, StartError> {
    let model = model(home, engine, definition.cpu)?;
    let memory_bytes = definition.memory.bytes();
    let mut slots = Vec::new();
    for (base, len) in layout::ram_ranges(memory_bytes) {
        slots.push(RamSlot::from_backing(base, (home.ram)(len)?));
    }
    let ram = Arc::new(Ram::new(slots));
    let cpus = definition.cpus.get();
    let apics = Arc::new(ApicBus::new(cpus));
    let clock = (home.clock)();
    let timer = Waker::new(home.spawner.clone());
    let config = MachineConfig {
        cpus,
        memory_bytes,
        tsc_hz: home.tsc_hz,
        cpu_model: model.clone(),
        ..MachineConfig::default()
    };
    let ports = MachinePorts {
        clock: clock.clone(),
        entropy: home.entropy.clone(),
        console: console.clone(),
        console_room: Some(home.news.clone()),
        debug_console: None,
        trace: Arc::new(NullTrace),
        memory: ram.clone(),
        apics: apics.clone(),
        deadline_changed: timer.clone(),
        devices: Vec::new(),
    };
    let machine = Machine::new(&config, ports)?;
    let runner = home.runner.clone();
    let partition = InterpPartition::new(InterpConfig {
        accelerator: match engine {
            Engine::Interp => Arc::new(|_| None),
            Engine::Assisted { accelerators, .. } => accelerators(&ram),
        },
        ram: ram.clone(),
        apics: apics.clone(),
        clock: clock.clone(),
        entropy: home.entropy.clone(),
        barrier: home.barrier.clone(),
        model,
        tsc_hz: home.tsc_hz,
        passthrough: Arc::new(move || Passthrough::new(&runner).ok()),
    });
    let vcpus = (0..cpus).map(|index| partition.new_vcpu(index)).collect::<Result<_, _>>()?;
    Ok(Parts { machine, apics, clock, ram, timer, vcpus })
}

fn spawn(home: &Home, definition: &VmDefinition, parts: Parts, control: &Arc<Control>) {
    let Parts { machine, apics, clock, ram: _, timer, vcpus } = parts;
    let began_ns = (home.now_ns)().wrapping_sub(clock.now_ns());
    let weight = definition.home.metal.weight.get();
    let new = |name: String, preempt, task: Box<dyn Task>| {
        home.spawner.spawn(NewTask { name, weight, pinned: None, preempt, task })
    };
    let name = &definition.name;
    for ((index, vcpu), mailbox) in (0..).zip(vcpus).zip(apics.mailboxes()) {
        let waker = Waker::new(home.spawner.clone());
        mailbox.set_waker(waker.clone());
        let preempt: Arc<dyn Kick> = vcpu.kicker();
        let (machine, control, clock) = (machine.clone(), control.clone(), clock.clone());
        let entry = Entry::Resume;
        let task = Processor { index, vcpu, machine, control, clock, began_ns, entry };
        waker.set(new(format!("{name} vcpu {index}"), Some(preempt), Box::new(task)));
    }
    let task = Timer { machine, control: control.clone(), clock, began_ns };
    timer.set(new(format!("{name} timer"), None, Box::new(task)));
}
