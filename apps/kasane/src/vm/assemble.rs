//! Building a machine: memory, board, engine, images.

use std::sync::{Arc, Weak};

use kasane_cpu::apic::ApicBus;
use kasane_cpu::cpuid::CpuModel;
use kasane_cpu::{Partition, StateSet, Vcpu};
use kasane_host_memory::HostRam;
use kasane_host_runtime::{HostClock, Parker};
use kasane_interp::{InterpConfig, InterpPartition};
use kasane_machine::boot::{self, BootImages};
use kasane_machine::{DeviceKind, Machine, MachineConfig, MachineDevice, MachinePorts, layout};
use kasane_memory::{Ram, RamSlot};
use kasane_passthrough::Passthrough;
use kasane_ports::BlockBackend;

use super::devices::Connections;
use super::engine::EngineKind;
use super::reclaim::Reclaim;
use super::{
    Battery, Confinement, HostedMachine, Image, Lent, Specification, StartError, features,
};

/// Guest TSC ticks per second: one per nanosecond of guest time.
const TSC_HZ: u64 = 1_000_000_000;

/// A machine that has not begun to live.
pub(super) struct Parts {
    pub(super) machine: Arc<HostedMachine>,
    pub(super) apics: Arc<ApicBus>,
    pub(super) ram: Arc<Ram>,
    pub(super) clock: Arc<HostClock>,
    pub(super) battery: Battery,
    pub(super) timer_parker: Arc<Parker>,
    pub(super) vcpus: Vec<VcpuParts>,
}

/// One vCPU on its way to a thread.
pub(super) struct VcpuParts {
    pub(super) index: u32,
    pub(super) vcpu: Box<dyn Vcpu>,
    /// What its thread is confined by.
    pub(super) confinement: Option<Confinement>,
    /// Where its thread waits while it is halted; its mailbox wakes it there.
    pub(super) parker: Arc<Parker>,
}

/// A machine at its kernel's entry.
pub(super) fn parts(specification: &Specification, lent: &Lent) -> Result<Parts, StartError> {
    let mut parts = hardware(specification, lent)?;
    let kernel = specification.kernel.read().map_err(StartError::Image)?;
    let initrd = specification.initrd.as_ref().map(Image::read).transpose();
    let initrd = initrd.map_err(StartError::Image)?;
    let images = BootImages {
        kernel: &kernel,
        initrd: initrd.as_deref(),
        cmdline: &specification.append,
        modules: &[],
    };
    let bootstrap = boot::load(&*parts.ram, parts.machine.config(), &images)?;
    for one in &mut parts.vcpus {
        let state = if one.index == 0 { &bootstrap } else { &boot::application_processor() };
        one.vcpu.write(StateSet::ALL, state);
    }
    Ok(parts)
}

/// A machine with empty memory.
pub(super) fn hardware(specification: &Specification, lent: &Lent) -> Result<Parts, StartError> {
    if specification.cpus > 1 && !lent.barrier.reaches_every_thread() {
        return Err(StartError::Barrier);
    }
    let model = features::cpu_model(specification.model, lent.runner.features())?;
    let (ram, slots) = guest_ram(specification)?;
    let apics = Arc::new(ApicBus::new(specification.cpus));
    let clock = Arc::new(HostClock::slowed(specification.engine.slowness()));
    let timer_parker = Arc::new(Parker::new());
    let config = MachineConfig {
        cpus: specification.cpus,
        memory_bytes: specification.memory_bytes,
        tsc_hz: TSC_HZ,
        cpu_model: model.clone(),
        ..MachineConfig::default()
    };
    let connections = Connections {
        ram: &ram,
        reclaim: Arc::new(Reclaim { ram: Arc::clone(&ram), slots }),
        console: lent.virtio_console.clone(),
        console_room: lent.virtio_console_room.clone(),
        cpus: specification.cpus,
        notices: lent.notices.clone(),
    };
    let devices = specification.devices.open(&connections)?;
    let disks = disks_of(&devices);
    let ports = MachinePorts {
        clock: clock.clone(),
        entropy: Arc::new(lent.entropy),
        console: lent.console.clone(),
        console_room: lent.console_room.clone(),
        debug_console: lent.debug_console.clone(),
        trace: lent.trace.clone(),
        memory: ram.clone(),
        apics: apics.clone(),
        deadline_changed: timer_parker.clone(),
        devices,
    };
    let machine = Machine::new(&config, ports)?;
    let battery = lent.battery.clone();
    if let Some(section) = &*battery.0.lock() {
        // A section of this very program can't be refused.
        let _own = machine.take_over_battery(section);
    }
    let partition = partition((model, specification.engine), lent, &ram, &apics, &clock);
    let mut vcpus = Vec::new();
    for (index, mailbox) in (0..).zip(apics.mailboxes()) {
        let vcpu = partition.new_vcpu(index)?;
        let disks = disks.clone();
        let parker = Arc::new(Parker::polling(move || poll(&disks)));
        mailbox.set_waker(parker.clone());
        let confinement = lent.confinement.clone();
        vcpus.push(VcpuParts { index, vcpu, confinement, parker });
    }
    Ok(Parts { machine, apics, ram, clock, battery, timer_parker, vcpus })
}

/// What is behind the disks, as long as they are there.
fn disks_of(devices: &[MachineDevice]) -> Arc<[Weak<dyn BlockBackend>]> {
    let backends = devices.iter().filter_map(|device| match &device.kind {
        DeviceKind::Disk { backend, .. } => Some(Arc::downgrade(backend)),
        _ => None,
    });
    backends.collect()
}

fn poll(disks: &[Weak<dyn BlockBackend>]) {
    disks.iter().filter_map(Weak::upgrade).for_each(|disk| disk.poll());
}

/// The guest's RAM, and the mappings that it is made of by their guest-physical address.
type GuestRam = (Arc<Ram>, Vec<(u64, Arc<HostRam>)>);

fn guest_ram(specification: &Specification) -> Result<GuestRam, StartError> {
    let (mut slots, mut mappings) = (Vec::new(), Vec::new());
    for (base, len) in layout::ram_ranges(specification.memory_bytes) {
        let name = format!("kasane {} {base:#x}", specification.name);
        let mapping = Arc::new(HostRam::new(&name, len)?);
        slots.push(RamSlot::from_backing(base, Box::new(Arc::clone(&mapping))));
        mappings.push((base, mapping));
    }
    Ok((Arc::new(Ram::new(slots)), mappings))
}

fn partition(
    (model, engine): (CpuModel, EngineKind),
    lent: &Lent,
    ram: &Arc<Ram>,
    apics: &Arc<ApicBus>,
    clock: &Arc<HostClock>,
) -> InterpPartition {
    let runner = Arc::clone(&lent.runner);

    InterpPartition::new(InterpConfig {
        ram: Arc::clone(ram),
        apics: Arc::clone(apics),
        clock: clock.clone(),
        entropy: Arc::new(lent.entropy),
        barrier: Arc::new(lent.barrier),
        model,
        tsc_hz: TSC_HZ,
        passthrough: Arc::new(move || Passthrough::new(&runner).ok()),
        accelerator: engine.accelerators(&lent.runner, apics.cpus(), lent.code_observer.clone()),
    })
}
