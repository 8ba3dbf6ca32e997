//! Tests of the whole machine, through exits.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use kasane_cpu::AccessSize::{self, Byte, Dword, Word};
use kasane_cpu::apic::{ApicBus, LocalApic, registers};
use kasane_cpu::cpuid::{CpuModel, CpuModelName, FeatureSet};
use kasane_cpu::{Entry, Exit};
use kasane_memory::{Ram, RamSlot};
use kasane_ports::{Clock, Console, Entropy, Kick, Trace, TraceEvent, TraceKind};
use parking_lot::{Mutex, RawMutex};

use crate::{Action, Count, CrashPolicy, Machine, MachineConfig, MachineError, MachinePorts};
use crate::{SavedHeader, SavedStateError};

const SECOND: u64 = 1_000_000_000;

/// A home whose clock stands still until it is moved.
#[derive(Default)]
pub(crate) struct Home {
    pub(crate) now_ns: AtomicU64,
    /// What the wall clock has gone on since the home was made.
    wall_ns: AtomicU64,
    output: Mutex<Vec<u8>>,
    events: Mutex<Vec<TraceEvent>>,
    lane: AtomicUsize,
    pub(crate) kicks: AtomicUsize,
}

impl Clock for Home {
    fn now_ns(&self) -> u64 {
        self.now_ns.load(Ordering::Relaxed)
    }
    fn wall_clock_s(&self) -> u64 {
        self.wall_clock_ns() / SECOND
    }
    fn wall_clock_ns(&self) -> u64 {
        1_700_000_000 * SECOND + self.wall_ns.load(Ordering::Relaxed)
    }
}

impl Console for Home {
    fn output(&self, bytes: &[u8]) {
        self.output.lock().extend_from_slice(bytes);
    }
}

impl Entropy for Home {
    fn fill(&self, buf: &mut [u8]) {
        buf.fill(4);
    }
}

impl Kick for Home {
    fn kick(&self) {
        self.kicks.fetch_add(1, Ordering::Relaxed);
    }
}

impl Trace for Home {
    fn enabled(&self) -> bool {
        true
    }
    fn emit(&self, event: &TraceEvent) {
        self.events.lock().push(*event);
    }
    fn lane(&self) -> usize {
        self.lane.load(Ordering::Relaxed)
    }
}

fn config() -> MachineConfig {
    MachineConfig { cpus: 2, memory_bytes: 32 << 20, ..MachineConfig::default() }
}

fn machine_of(config: &MachineConfig) -> (Arc<Machine<RawMutex>>, Arc<Home>) {
    machine_with(config, Arc::new(ApicBus::new(2)))
}

fn machine_with(
    config: &MachineConfig,
    apics: Arc<ApicBus>,
) -> (Arc<Machine<RawMutex>>, Arc<Home>) {
    let home = Arc::new(Home::default());
    let ports = MachinePorts {
        clock: home.clone(),
        entropy: home.clone(),
        console: home.clone(),
        console_room: Some(home.clone()),
        debug_console: Some(home.clone()),
        trace: home.clone(),
        memory: Arc::new(Ram::new(alloc::vec![RamSlot::allocated(0, 1 << 20)])),
        apics,
        deadline_changed: home.clone(),
        devices: Vec::new(),
    };
    (Machine::new(config, ports).unwrap(), home)
}

pub(crate) fn machine() -> (Arc<Machine<RawMutex>>, Arc<Home>) {
    machine_of(&config())
}

fn read(machine: &Machine<RawMutex>, port: u16, size: AccessSize) -> Action {
    machine.handle(0, &Exit::PortRead { port, size })
}

fn write(machine: &Machine<RawMutex>, port: u16, size: AccessSize, value: u32) -> Action {
    machine.handle(0, &Exit::PortWrite { port, size, value })
}

fn value(value: u64) -> Action {
    Action::Enter(Entry::Value(value))
}

const RESUME: Action = Action::Enter(Entry::Resume);

#[test]
fn a_machine_that_is_dropped_leaves_nothing_behind() {
    let (machine, home) = machine();
    let home = {
        let weak = Arc::downgrade(&home);
        drop(home);
        weak
    };
    let lived = home.upgrade().is_some();

    drop(machine);

    assert!(lived);
    assert!(home.upgrade().is_none());
}

#[test]
fn a_guest_finds_the_host_bridge() {
    let (machine, _) = machine();

    write(&machine, 0xCF8, Dword, 0x8000_0000);

    assert_eq!(read(&machine, 0xCFC, Dword), value(0x1237_8086));
}

#[test]
fn firmware_has_routed_the_pirqs_as_the_mp_table_says() {
    let (machine, _) = machine();

    write(&machine, 0xCF8, Dword, 0x8000_0860);

    assert_eq!(read(&machine, 0xCFC, Dword), value(0x0B0B_0A0A));
    assert_eq!(read(&machine, 0x4D1, Byte), value(0x0E));
}

#[test]
fn serial_output_reaches_the_console_one_by_one_and_in_strings() {
    let (machine, home) = machine();
    let mut data = [0; 32];
    data[..4].copy_from_slice(b"i hm");

    write(&machine, 0x3F8, Byte, b'h'.into());
    machine.handle(0, &Exit::PortWriteString { port: 0x3F8, size: Byte, count: 1, data });

    assert_eq!(*home.output.lock(), b"hi");
}

#[test]
fn where_nothing_is_reads_are_ones_and_writes_vanish() {
    let (machine, _) = machine();

    assert_eq!(read(&machine, 0x1234, Word), value(0xFFFF));
    let gpa = 0xFD00_0000;
    assert_eq!(machine.handle(0, &Exit::MmioWrite { gpa, size: Dword, value: 1 }), RESUME);
    let found = machine.handle(0, &Exit::MmioRead { gpa, size: Dword });
    assert_eq!(found, value(0xFFFF_FFFF));
}

#[test]
fn the_io_apic_answers_at_its_address() {
    let (machine, _) = machine();
    let select = Exit::MmioWrite { gpa: 0xFEC0_0000, size: Dword, value: 1 };

    machine.handle(0, &select);

    let version = machine.handle(0, &Exit::MmioRead { gpa: 0xFEC0_0010, size: Dword });
    let Action::Enter(Entry::Value(version)) = version else { panic!("{version:?}") };
    assert_eq!(version >> 16 & 0xFF, 23);
    machine.handle(0, &Exit::MmioWrite { gpa: 0xFEC0_0000, size: Dword, value: 0 });
    let id = machine.handle(0, &Exit::MmioRead { gpa: 0xFEC0_0010, size: Dword });
    assert_eq!(id, value(0x0200_0000), "the id that the tables tell");
}

#[test]
fn known_msrs_of_the_family_are_silent_and_others_fault() {
    let (machine, _) = machine();

    let found = [
        machine.handle(0, &Exit::MsrRead { index: 0xC001_0010 }),
        machine.handle(0, &Exit::MsrWrite { index: 0xC001_0015, value: 1 }),
        machine.handle(0, &Exit::MsrRead { index: 0xDEAD }),
        machine.handle(0, &Exit::MsrWrite { index: 0xDEAD, value: 1 }),
    ];

    assert_eq!(found, [value(0), RESUME, Action::Enter(Entry::Fault), Action::Enter(Entry::Fault)]);
}

#[test]
fn the_supervisor_state_mask_is_there_with_xsaves_and_holds_only_zero() {
    let model = CpuModel::new(CpuModelName::Max, kasane_cpu::cpuid::VECTOR_FEATURES);
    let (with, _) = machine_of(&MachineConfig { cpu_model: model, ..config() });
    let (without, _) = machine();
    let write = |machine: &Machine<RawMutex>, value| {
        machine.handle(0, &Exit::MsrWrite { index: 0xDA0, value })
    };

    let found = [write(&with, 0), write(&with, 1), write(&without, 0)];

    assert_eq!(found, [RESUME, Action::Enter(Entry::Fault), Action::Enter(Entry::Fault)]);
}

#[test]
fn exits_without_a_device_have_their_own_answers() {
    let (machine, _) = machine();

    let found = [
        machine.handle(0, &Exit::Hypercall),
        machine.handle(0, &Exit::Halt),
        machine.handle(0, &Exit::InterruptWindow),
        machine.handle(0, &Exit::Eoi { vector: 0x30 }),
        machine.handle(0, &Exit::Kicked),
        machine.handle(0, &Exit::Debug { rip: 5, dr6: 1 }),
    ];

    let expected = [
        value(-1000i64 as u64),
        Action::Wait,
        RESUME,
        RESUME,
        RESUME,
        Action::Debug { rip: 5, dr6: 1 },
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_triple_fault_stops_or_resets_as_configured() {
    let (stopping, _) = machine();
    let (resetting, _) = machine_of(&MachineConfig { on_crash: CrashPolicy::Reset, ..config() });

    let found = [&stopping, &resetting].map(|machine| machine.handle(1, &Exit::TripleFault));

    assert_eq!(found, [Action::Crashed { vcpu: 1 }, Action::Reset]);
    assert_eq!(resetting.handle(0, &Exit::Kicked), Action::Reset);
}

#[test]
fn the_pic_gives_the_vector_of_a_timer_interrupt() {
    let (machine, home) = machine();
    for (port, data) in [(0x21, 0xFA), (0x43, 0x34), (0x40, 0x00), (0x40, 0x10)] {
        write(&machine, port, Byte, data);
    }

    let deadline_ns = machine.next_deadline_ns().unwrap();
    home.now_ns.store(deadline_ns, Ordering::Relaxed);
    machine.advance();

    let taken = machine.handle(0, &Exit::InterruptWindow);
    assert_eq!(taken, Action::Enter(Entry::ExternalInterrupt { vector: 0x08 }));
}

#[test]
fn the_timer_reaches_the_io_apics_pin_2_and_the_local_apic() {
    let (machine, home) = machine();
    let redirect = [(0x14, 0x40), (0x15, 0x0100_0000)];
    for (register, data) in redirect {
        let select = Exit::MmioWrite { gpa: 0xFEC0_0000, size: Dword, value: register };
        machine.handle(0, &select);
        let window = Exit::MmioWrite { gpa: 0xFEC0_0010, size: Dword, value: data };
        machine.handle(0, &window);
    }
    for (port, data) in [(0x43, 0x34), (0x40, 0x00), (0x40, 0x10)] {
        write(&machine, port, Byte, data);
    }

    home.now_ns.store(machine.next_deadline_ns().unwrap(), Ordering::Relaxed);
    machine.advance();

    let events = home.events.lock();
    let message = events.iter().find(|event| event.subject == "message").unwrap();
    assert_eq!((message.a, message.b), (0x40, 0xFEE0_1000));
}

#[test]
fn console_input_arrives_at_the_serial_port() {
    let (machine, _) = machine();

    let early = machine.console_input(b"x");
    write(&machine, 0x3FC, Byte, 0x0B);
    write(&machine, 0x3F9, Byte, 0x01);
    let taken = machine.console_input(b"x");

    assert_eq!((early, taken), (0, 1));
    assert_eq!(read(&machine, 0x3F8, Byte), value(b'x'.into()));
}

#[test]
fn an_exit_and_its_access_are_one_chain() {
    let (machine, home) = machine();

    machine.handle(1, &Exit::PortWrite { port: 0x21, size: Byte, value: 0x55 });

    let events = home.events.lock();
    let [.., exit, access] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((exit.kind, exit.subject, exit.vcpu), (TraceKind::Exit, "port-write", 1));
    assert_eq!((access.kind, access.subject), (TraceKind::DeviceWrite, "pic"));
    assert_eq!((access.id, access.a, access.b, access.size), (exit.id, 0x21, 0x55, 1));
}

#[test]
fn what_local_apics_do_by_themselves_is_traced() {
    let bus = Arc::new(ApicBus::new(2));
    let (_machine, home) = machine_with(&config(), bus.clone());
    let mut apic = LocalApic::new(1, bus.clone(), bus.mailbox(1).unwrap());
    apic.write(registers::SVR, 0x1FF, 0);

    // INIT to APIC 0, a fixed interrupt to all but itself, and a one-shot of 500 counts by 2.
    apic.write(registers::ICR_LOW, 0x4500, 0);
    apic.write(registers::ICR_LOW, 0xC_4042, 0);
    apic.write(registers::LVT_TIMER, 0x50, 0);
    apic.write(registers::INITIAL_COUNT, 500, 0);
    apic.advance(2_000);

    let events = home.events.lock();
    let seen: Vec<_> = events.iter().map(|e| (e.kind, e.subject, e.vcpu, e.a, e.b)).collect();
    let expected = [
        (TraceKind::Interrupt, "ipi-init", 1, 0, 0),
        (TraceKind::Interrupt, "ipi", 1, 0x42, 4 << 32 | 1),
        (TraceKind::Deadline, "apic-timer", 1, 1_000, 0),
        (TraceKind::Interrupt, "apic-timer", 1, 0x50, 1),
    ];
    assert_eq!(seen, expected);
    let ids: Vec<u64> = events.iter().map(|event| event.id.0).collect();
    assert_eq!(ids, [1, 2, 3, 3]);
}

#[test]
fn an_interrupt_follows_its_own_threads_cause() {
    let (machine, home) = machine();
    let on = |lane: usize| home.lane.store(lane, Ordering::Relaxed);
    let mmio = |gpa: u64, data: u64| {
        machine.handle(0, &Exit::MmioWrite { gpa, size: Dword, value: data });
    };
    for (register, data) in [(0x18, 0x44), (0x19, 0)] {
        mmio(0xFEC0_0000, register);
        mmio(0xFEC0_0010, data);
    }
    write(&machine, 0x3FC, Byte, 0x0B);

    // Something else happens on another thread before the interrupt comes.
    write(&machine, 0x3F9, Byte, 0x01);
    on(1);
    machine.handle(1, &Exit::PortRead { port: 0x64, size: Byte });
    on(0);
    machine.console_input(b"x");

    let events = home.events.lock();
    let message = events.iter().find(|event| event.subject == "message").unwrap();
    let cause = events.iter().rfind(|event| event.subject == "port-write").unwrap();
    assert_eq!((message.a, message.id, cause.vcpu), (0x44, cause.id, 0));
}

#[test]
fn an_x87_error_is_interrupt_13_until_port_f0_takes_it_back() {
    let bus = Arc::new(ApicBus::new(2));
    let (machine, _) = machine_with(&config(), bus.clone());
    let processor = bus.mailbox(0).unwrap();
    // IRQ 13 is input 5 of the second 8259A.
    write(&machine, 0xA1, Byte, 0xDF);

    processor.set_ferr(true);
    let taken = machine.handle(0, &Exit::InterruptWindow);
    let before = processor.ignne();
    write(&machine, 0xF0, Byte, 0);
    let within = processor.ignne();
    processor.set_ferr(false);

    assert_eq!(taken, Action::Enter(Entry::ExternalInterrupt { vector: 0x75 }));
    assert_eq!((before, within, processor.ignne()), (false, true, false));
}

#[test]
fn exits_and_accesses_are_counted() {
    let (machine, _) = machine();

    write(&machine, 0x21, Byte, 0);
    read(&machine, 0x21, Byte);
    read(&machine, 0x1234, Byte);

    let stats = machine.stats();
    let reads = Count { name: "port-read", count: 2 };
    let writes = Count { name: "port-write", count: 1 };
    assert_eq!(stats.exits, [reads, writes]);
    let pic = Count { name: "pic", count: 2 };
    assert_eq!(stats.devices, [pic, Count { name: "nobody", count: 1 }]);
}

#[test]
fn a_reset_takes_the_chips_back_but_not_the_clocks_memory() {
    let (machine, _) = machine();
    let power_on = machine.save();
    for (port, data) in [(0x21, 0x12), (0x70, 0x40), (0x71, 0x99), (0x3FB, 0x80)] {
        write(&machine, port, Byte, data);
    }

    machine.reset().unwrap();

    let differs = |name: &str| {
        let find = |sections: &[kasane_devices::Section]| {
            sections.iter().find(|section| section.name == name).cloned()
        };
        find(&machine.save()) != find(&power_on)
    };
    let names: Vec<&str> = power_on.iter().map(|section| section.name.as_str()).collect();
    let different: Vec<&str> = names.into_iter().filter(|name| differs(name)).collect();
    assert_eq!(different, ["rtc"]);
    write(&machine, 0x70, Byte, 0x40);
    assert_eq!(read(&machine, 0x71, Byte), value(0x99));
}

#[test]
fn a_saved_machine_goes_on_in_a_new_one() {
    let (old, home) = machine();
    home.now_ns.store(5_000, Ordering::Relaxed);
    for (port, data) in [(0x21, 0x12), (0x43, 0x34), (0x40, 0x00), (0x40, 0x10)] {
        write(&old, port, Byte, data);
    }
    let sections = old.save();

    let (new, new_home) = machine();
    new_home.now_ns.store(SavedHeader::read(&sections).unwrap().time_ns, Ordering::Relaxed);
    new.restore(&sections).unwrap();

    assert_eq!(new.save(), sections);
    assert_eq!(new.next_deadline_ns(), old.next_deadline_ns());
    assert_eq!(read(&new, 0x21, Byte), value(0x12));
}

#[test]
fn a_state_of_another_machine_is_refused_with_the_difference() {
    let (old, _) = machine_of(&MachineConfig { memory_bytes: 64 << 20, ..config() });
    let (new, _) = machine();
    let before = new.save();

    let error = new.restore(&old.save()).unwrap_err();

    assert_eq!(
        alloc::string::ToString::to_string(&error),
        "the saved machine's memory size is 67108864, this one's is 33554432"
    );
    assert_eq!(new.save(), before);
}

#[test]
fn a_state_cut_anywhere_is_refused_and_changes_nothing() {
    let (new, _) = machine();
    let (old, _) = machine();
    write(&old, 0x21, Byte, 0x12);
    let before = new.save();
    let sections = old.save();
    let cut = |n: usize| {
        let mut cut = sections.clone();
        cut[n].bytes.pop();
        cut
    };

    let results: Vec<bool> = (0..sections.len())
        .flat_map(|n| [new.restore(&cut(n)).is_err(), new.restore(&sections[..n]).is_err()])
        .collect();

    assert!(results.iter().all(|refused| *refused), "{results:?}");
    assert_eq!(new.save(), before);
}

#[test]
fn features_that_a_guest_may_use_have_to_be_there() {
    let model = |features| CpuModel::new(CpuModelName::X86_64V3, features);
    let host = kasane_cpu::cpuid::VECTOR_FEATURES;
    let (old, _) = machine_of(&MachineConfig { cpu_model: model(host), ..config() });
    let (new, _) = machine_of(&MachineConfig { cpu_model: model(FeatureSet::EMPTY), ..config() });

    let error = new.restore(&old.save()).unwrap_err();

    assert!(matches!(error, SavedStateError::MissingFeatures { .. }), "{error}");
}

#[test]
fn impossible_numbers_of_processors_are_refused() {
    let home = Arc::new(Home::default());
    let ports = || MachinePorts {
        clock: home.clone(),
        entropy: home.clone(),
        console: home.clone(),
        console_room: None,
        debug_console: None,
        trace: home.clone(),
        memory: Arc::new(Ram::new(alloc::vec![])),
        apics: Arc::new(ApicBus::new(2)),
        deadline_changed: home.clone(),
        devices: Vec::new(),
    };
    let asked = |cpus| Machine::<RawMutex>::new(&MachineConfig { cpus, ..config() }, ports()).err();

    let error = |asked| Some(MachineError::Cpus { asked, apics: 2 });
    assert_eq!([asked(0), asked(3), asked(65)], [error(0), error(3), error(65)]);
}

#[test]
fn the_reset_control_register_resets_the_machine_once_its_bits_are_set() {
    let (machine, _) = machine();

    let found = [write(&machine, 0xCF9, Byte, 0x02), write(&machine, 0xCF9, Byte, 0x06)];

    assert_eq!(found, [RESUME, Action::Reset]);
    machine.reset().unwrap();
    assert_eq!(read(&machine, 0x21, Byte), value(0xFB));
}

#[test]
fn the_keyboard_controller_resets_the_machine() {
    let (machine, _) = machine();

    assert_eq!(write(&machine, 0x64, Byte, 0xFE), Action::Reset);
}

#[test]
fn acpi_switches_the_machine_off_where_the_tables_say() {
    let (machine, _) = machine();

    write(&machine, 0xB2, Byte, 0xF1);
    let control = read(&machine, 0x604, Word);

    assert_eq!(control, value(1));
    assert_eq!(write(&machine, 0x604, Word, 0x2001), Action::PowerOff);
    assert_eq!(machine.power_request(), Some(crate::PowerRequest::Off));
}

#[test]
fn the_power_button_raises_the_sci() {
    let (machine, _) = machine();
    write(&machine, 0xB2, Byte, 0xF1);
    write(&machine, 0x602, Word, 0x0100);
    // The SCI is input 1 of the second 8259A.
    write(&machine, 0xA1, Byte, 0xFD);

    machine.power_button();

    let taken = machine.handle(0, &Exit::InterruptWindow);
    assert_eq!(taken, Action::Enter(Entry::ExternalInterrupt { vector: 0x71 }));
}

#[test]
fn input_for_a_held_machine_waits_until_it_is_released() {
    let (machine, home) = machine();
    write(&machine, 0xB2, Byte, 0xF1);
    write(&machine, 0x602, Word, 0x0100);
    write(&machine, 0xA1, Byte, 0xFD);
    let (first, second) = (machine.hold(), machine.hold());
    let before = machine.save();

    let taken = machine.console_input(b"typed");
    machine.power_button();
    drop(first);

    assert_eq!(taken, 0);
    assert_eq!(machine.save(), before);
    let kicks = home.kicks.load(Ordering::Relaxed);
    drop(second);
    assert!(home.kicks.load(Ordering::Relaxed) > kicks, "there is room again");
    let taken = machine.handle(0, &Exit::InterruptWindow);
    assert_eq!(taken, Action::Enter(Entry::ExternalInterrupt { vector: 0x71 }));
}

/// A byte of the real-time clock or its memory.
fn cmos(machine: &Machine<RawMutex>, index: u32) -> Action {
    write(machine, 0x70, Byte, index);
    read(machine, 0x71, Byte)
}

#[test]
fn a_machine_built_anew_goes_on_with_the_battery_of_the_old() {
    let (old, home) = machine();
    for (index, data) in [(0x40, 0x99), (9, 0x44), (0x0B, 0x12)] {
        write(&old, 0x70, Byte, index);
        write(&old, 0x71, Byte, data);
    }
    home.now_ns.store(50 * SECOND, Ordering::Relaxed);
    let (new, home) = machine();
    home.wall_ns.store(60 * SECOND, Ordering::Relaxed);

    new.take_over_battery(&old.battery()).unwrap();

    // 2023-11-14 22:13:20, a minute later, and the year that the guest has set.
    let found = [0x40, 9, 4, 2, 0, 0x0B].map(|index| cmos(&new, index));
    assert_eq!(found, [0x99, 0x44, 0x22, 0x14, 0x20, 0x02].map(value));
}

#[test]
fn no_other_chips_section_is_a_battery() {
    let (machine, _) = machine();
    let before = machine.save();
    let other = before.iter().find(|section| section.name == "pit").unwrap();

    let result = machine.take_over_battery(other);

    assert!(result.is_err());
    assert_eq!(machine.save(), before);
}

#[test]
fn after_a_restore_the_clock_shows_the_wall_clock() {
    let (old, _) = machine();
    let (new, home) = machine();
    home.wall_ns.store(3 * 3600 * SECOND, Ordering::Relaxed);

    new.restore(&old.save()).unwrap();
    new.follow_wall_clock();

    assert_eq!([7, 4, 2, 0].map(|index| cmos(&new, index)), [0x15, 0x01, 0x13, 0x20].map(value));
}

#[test]
fn the_clocks_alarm_is_an_event_of_the_power_management() {
    let (machine, home) = machine();
    write(&machine, 0xB2, Byte, 0xF1);
    write(&machine, 0x602, Word, 0x0400);
    // The SCI is input 1 of the second 8259A; the clock's own interrupt stays masked.
    write(&machine, 0xA1, Byte, 0xFD);
    // Every hour at 14:20, which is an hour and a minute away.
    for (index, data) in [(1, 0x20), (3, 0x14), (5, 0xC0), (0x0B, 0x22)] {
        write(&machine, 0x70, Byte, index);
        write(&machine, 0x71, Byte, data);
    }

    let before = read(&machine, 0x601, Byte);
    home.now_ns.store(machine.next_deadline_ns().unwrap(), Ordering::Relaxed);
    machine.advance();

    assert_eq!([before, read(&machine, 0x601, Byte)], [0, 0x04].map(value));
    let taken = machine.handle(0, &Exit::InterruptWindow);
    assert_eq!(taken, Action::Enter(Entry::ExternalInterrupt { vector: 0x71 }));
}

#[test]
fn the_hpet_and_the_debug_console_are_there() {
    let (machine, home) = machine();

    let id = machine.handle(0, &Exit::MmioRead { gpa: 0xFED0_0000, size: Dword });
    write(&machine, 0x402, Byte, b'!'.into());

    assert_eq!(id, value(0x8086_A201));
    assert_eq!(*home.output.lock(), b"!");
}
