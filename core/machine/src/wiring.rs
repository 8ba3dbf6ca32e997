//! The `pc` board: which chips there are, where they answer and what their wires lead to.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kasane_cpu::apic::ApicBus;
use kasane_devices::acpi_pm::{self, AcpiPm};
use kasane_devices::bus::Mapping;
use kasane_devices::hpet::{self, Delivery};
use kasane_devices::i8042::OutputPortWires;
use kasane_devices::interrupts::InterruptRouter;
use kasane_devices::numeric_error::NumericError;
use kasane_devices::pci::{self, ConfigPorts, EcamWindow, PciBus, PciOutputs};
use kasane_devices::rtc::{CmosConfig, Extent, Rtc};
use kasane_devices::system::{self, A20Gate};
use kasane_devices::uart::{SerialLine, SerialPort, Uart};
use kasane_devices::{AddressSpace, Saved, Socket, Timed};
use kasane_devices::{debug_port, dma, i8042, numeric_error, pit, rtc, uart};
use kasane_ports::{A20Line, IrqLine, Level, MsiSink};
use kasane_spec_pc::port;
use lock_api::RawMutex;

use crate::config::MachineConfig;
use crate::devices::{self, Buses, Controls};
use crate::layout;
use crate::machine::{MachineError, MachinePorts};
use crate::power::PowerLatch;
use crate::tracing::{TracedMessages, Tracer};

/// The wired board.
pub(crate) struct Board<R: RawMutex> {
    pub(crate) ports: Arc<AddressSpace<R>>,
    pub(crate) memory: Arc<AddressSpace<R>>,
    pub(crate) interrupts: Arc<InterruptRouter<R>>,
    pub(crate) pci: Arc<PciBus<R>>,
    pub(crate) clock: Arc<Socket<R, Rtc>>,
    pub(crate) serial: Arc<Socket<R, Uart>>,
    pub(crate) power_management: Arc<Socket<R, AcpiPm>>,
    /// Devices beyond the board's own, in words.
    pub(crate) devices: String,
    /// Slots and kinds of those on the PCI bus.
    pub(crate) slots: Vec<(u8, &'static str)>,
    /// Devices that the home turns to.
    pub(crate) controls: Controls<R>,
    /// Chips that have deadlines.
    pub(crate) timed: Vec<Arc<dyn Timed>>,
    /// Everything with state. The interrupt router comes first: with the wires' levels back in
    /// place, a device that drives its wires to their saved levels makes no edge.
    pub(crate) saved: Vec<Arc<dyn Saved>>,
}

/// The PIC's INTR wire to the bootstrap processor.
struct Intr(Arc<ApicBus>);

impl IrqLine for Intr {
    fn set(&self, level: Level) {
        self.0.set_extint(level);
    }
}

/// The bootstrap processor's IGNNE# pin.
struct Ignne(Arc<ApicBus>);

impl IrqLine for Ignne {
    fn set(&self, level: Level) {
        self.0.set_ignne(level);
    }
}

/// The bootstrap processor's FERR# pin.
struct Ferr<R: RawMutex>(Arc<Socket<R, NumericError>>);

impl<R: RawMutex + Send + Sync> IrqLine for Ferr<R> {
    fn set(&self, level: Level) {
        self.0.with(|chip, _| chip.set_ferr(level));
    }
}

/// The processors' A20M# pins.
struct A20(Arc<ApicBus>);

impl A20Line for A20 {
    fn set(&self, level: Level) {
        self.0.set_a20(level.is_high());
    }
}

/// The real-time clock's alarm to the power management's wake-up event (PIIX4 §7.2, RTC_STS).
struct AlarmEvent<R: RawMutex>(Arc<Socket<R, AcpiPm>>);

impl<R: RawMutex + Send + Sync> IrqLine for AlarmEvent<R> {
    fn set(&self, level: Level) {
        if level.is_high() {
            self.0.with(|chip, _| chip.rtc_alarm());
        }
    }
}

/// What the wiring of every chip needs.
pub(crate) struct Supplies<'a> {
    pub(crate) config: &'a MachineConfig,
    pub(crate) home: &'a MachinePorts,
    pub(crate) tracer: Arc<Tracer>,
    pub(crate) power: Arc<PowerLatch>,
}

/// Collects what every chip has to be asked for.
struct Chips {
    timed: Vec<Arc<dyn Timed>>,
    saved: Vec<Arc<dyn Saved>>,
}

impl Chips {
    fn add<C: Timed + Saved + 'static>(&mut self, chip: &Arc<C>) {
        self.timed.push(chip.clone());
        self.saved.push(chip.clone());
    }
}

impl<R: RawMutex + Send + Sync + 'static> Board<R> {
    /// Makes the chips and wires them. The order in which interrupt wires are made is a part of
    /// the saved state: new chips go to the end.
    pub(crate) fn new(supplies: &Supplies<'_>) -> Result<Self, MachineError> {
        let Supplies { config, home, tracer, power } = supplies;
        let ports = Arc::new(AddressSpace::ports());
        let memory = Arc::new(AddressSpace::memory());
        let messages: Arc<dyn MsiSink> =
            Arc::new(TracedMessages { to: home.apics.clone(), tracer: tracer.clone() });
        let intr = Arc::new(Intr(home.apics.clone()));
        let interrupts = InterruptRouter::new(intr, messages.clone());
        interrupts.attach(&ports, &memory)?;

        let isa = (0..16).map(|number| Some(interrupts.isa_line(number))).collect();
        let outputs = PciOutputs {
            ports: ports.clone(),
            memory: memory.clone(),
            messages: messages.clone(),
            isa,
        };
        let pci = PciBus::new(outputs);
        let mut chips =
            Chips { timed: Vec::new(), saved: alloc::vec![interrupts.clone(), pci.clone()] };

        let kick = || home.deadline_changed.clone();
        chips.add(&pit::attach(&ports, &interrupts, kick())?);
        let connections = acpi_pm::Connections { system: power.clone(), base: None };
        let (power_management, _) = acpi_pm::attach(&ports, &interrupts, kick(), connections)?;
        let alarm = Some(Arc::new(AlarmEvent(power_management.clone())) as Arc<dyn IrqLine>);
        let clock = rtc::attach(&ports, &interrupts, kick(), alarm, &cmos(config, home))?;
        // Before the power management: its wake-up event is restored after the alarm's wire.
        chips.add(&clock);
        let (console, room) = (home.console.clone(), home.console_room.clone());
        let line = SerialLine { place: SerialPort::Com1, console, room };
        let serial = uart::attach(&ports, &interrupts, kick(), line)?;
        chips.add(&serial);
        let a20 = A20Gate::new(Arc::new(A20(home.apics.clone())));
        chips.add(&system::attach_system_control(&ports, a20.wire(0), power.clone())?);
        chips.add(&system::attach_reset_control(&ports, power.clone())?);
        let outputs = OutputPortWires { a20: a20.wire(1), system: power.clone() };
        chips.add(&i8042::attach(&ports, &interrupts, kick(), outputs)?);
        chips.add(&power_management);
        let outputs = hpet::Outputs { delivery: Delivery::Wires, messages };
        chips.add(&hpet::attach(&memory, &interrupts, kick(), outputs)?);
        chips.add(&dma::attach(&ports)?);
        let ignne = Arc::new(Ignne(home.apics.clone()));
        let numeric_error = numeric_error::attach(&ports, &interrupts, ignne)?;
        chips.add(&numeric_error);
        home.apics.set_ferr_line(Some(Arc::new(Ferr(numeric_error))));
        if let Some(console) = &home.debug_console {
            debug_port::attach(&ports, console.clone())?;
        }
        attach_pci(config, &ports, &memory, &pci)?;
        pci::attach_piix4_pm(&pci, power_management.clone())?;

        let buses = Buses { pci: &pci, memory: &memory, interrupts: &interrupts };
        let (seated, controls) = devices::attach_all(&buses, home)?;
        let words: Vec<&str> = seated.iter().map(|device| device.description.as_str()).collect();
        let words = if words.is_empty() { "none".into() } else { words.join(", ") };
        let slots = seated.iter().filter_map(|device| Some((device.slot?, device.kind)));
        let slots = slots.collect();

        let Chips { timed, mut saved } = chips;
        saved.extend(seated.into_iter().flat_map(|device| device.saved));
        Ok(Self {
            ports,
            memory,
            interrupts,
            pci,
            clock,
            serial,
            power_management,
            devices: words,
            slots,
            controls,
            timed,
            saved,
        })
    }

    /// The names of all devices that are mapped, for counting.
    pub(crate) fn device_names(&self) -> impl Iterator<Item = &'static str> {
        let all = self.ports.layout().into_iter().chain(self.memory.layout());
        all.map(|(_, _, name)| name).chain(self.slots.iter().map(|(_, kind)| *kind))
    }
}

fn attach_pci<R: RawMutex + Send + Sync + 'static>(
    config: &MachineConfig,
    ports: &AddressSpace<R>,
    memory: &AddressSpace<R>,
    bus: &Arc<PciBus<R>>,
) -> Result<(), MachineError> {
    let config_ports = Arc::new(ConfigPorts(bus.clone()));
    ports.map(Mapping::new(port::PCI_CONFIG_ADDRESS.into(), 8, config_ports))?;
    if config.ecam {
        let window = Arc::new(EcamWindow(bus.clone()));
        memory.map(Mapping::new(layout::ECAM, layout::ECAM_LEN, window))?;
    }
    pci::attach_i440fx(bus)?;
    pci::attach_piix3(bus)?;
    Ok(())
}

fn cmos(config: &MachineConfig, home: &MachinePorts) -> CmosConfig {
    let below_4g = config.memory_bytes.min(layout::LOW_RAM_MAX);
    let above_4g = config.memory_bytes.saturating_sub(below_4g);
    CmosConfig {
        wall_clock_ns: home.clock.wall_clock_ns().saturating_sub(home.clock.now_ns()),
        memory: Extent { below_4g, above_4g },
        cpus: config.cpus,
    }
}
