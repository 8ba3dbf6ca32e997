//! `run` comes to an end whatever the guest does, and a debugger's step goes where it should.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use kasane_cpu::apic::{ApicBus, events};
use kasane_cpu::cpuid::{CpuModel, CpuModelName, FeatureSet};
use kasane_cpu::engine::DebugControl;
use kasane_cpu::{Activity, CpuState, Entry, Exit, Partition, SegmentRegister, StateSet, Vcpu};
use kasane_interp::{InterpConfig, InterpPartition};
use kasane_memory::{GuestMemory, Ram, RamSlot};
use kasane_ports::{Clock, Entropy, HeavyBarrier, Level};
use kasane_spec_x86::flags;

struct Quiet;
impl Clock for Quiet {
    fn now_ns(&self) -> u64 {
        0
    }
    fn wall_clock_s(&self) -> u64 {
        0
    }
}
impl Entropy for Quiet {
    fn fill(&self, buf: &mut [u8]) {
        buf.fill(0);
    }
}
impl HeavyBarrier for Quiet {
    fn synchronize(&self) {}
}

/// A vCPU in real mode at 0000:1000 with this code.
fn real_mode(code: &[u8]) -> (Box<dyn Vcpu>, Arc<ApicBus>) {
    let ram = Arc::new(Ram::new(vec![RamSlot::allocated(0, 1 << 16)]));
    ram.write(0x1000, code).unwrap();
    let apics = Arc::new(ApicBus::new(1));
    let partition = InterpPartition::new(InterpConfig {
        ram,
        apics: apics.clone(),
        clock: Arc::new(Quiet),
        entropy: Arc::new(Quiet),
        barrier: Arc::new(Quiet),
        model: CpuModel::new(CpuModelName::X86_64V2, FeatureSet::EMPTY),
        tsc_hz: 1_000_000_000,
        passthrough: Arc::new(|| None),
        accelerator: Arc::new(|_| None),
    });
    let mut vcpu = partition.new_vcpu(0).unwrap();
    let mut state = CpuState::reset(true);
    state.cs = SegmentRegister::real_mode(0);
    state.cs.access = 0x9B;
    state.rip = 0x1000;
    state.gpr[4] = 0x8000;
    state.rflags |= flags::IF;
    vcpu.write(StateSet::ALL, &state);
    (vcpu, apics)
}

#[test]
fn a_handler_that_only_faults_uses_the_budget_up() {
    // All vectors lead to 0000:0000, where the bytes of the first one are: ADD [BX+SI], AL, and
    // DS's limit of 0 lets each of them fault.
    let (mut vcpu, _) = real_mode(&[0x0F, 0x0B]);
    let mut state = CpuState::reset(true);
    vcpu.read(StateSet::ALL, &mut state);
    state.ds.limit = 0;
    state.gpr[3] = 0x10;
    vcpu.write(StateSet::ALL, &state);
    vcpu.set_budget(Some(1000));

    let exit = vcpu.run(Entry::Resume).unwrap();

    assert_eq!((exit, vcpu.instructions()), (Exit::BudgetUsed, 0));
}

#[test]
fn a_step_does_not_go_into_an_interrupt() {
    let (mut vcpu, apics) = real_mode(&[0x90, 0x90]);
    apics.set_extint(Level::High);
    vcpu.set_debug(&DebugControl { single_step: true, ..DebugControl::default() });

    let exit = vcpu.run(Entry::Resume).unwrap();
    let exit = if exit == Exit::Kicked { vcpu.run(Entry::Resume).unwrap() } else { exit };

    assert_eq!(exit, Exit::Debug { rip: 0x1001, dr6: 1 << 14 });
}

#[test]
fn a_step_on_a_halt_waits_for_the_interrupt() {
    let (mut vcpu, apics) = real_mode(&[0xF4, 0x90]);
    vcpu.set_debug(&DebugControl { single_step: true, ..DebugControl::default() });

    let stepped = vcpu.run(Entry::Resume).unwrap();
    apics.set_extint(Level::High);
    let interrupted = vcpu.run(Entry::Resume).unwrap();

    assert_eq!(stepped, Exit::Debug { rip: 0x1001, dr6: 1 << 14 });
    assert_eq!(interrupted, Exit::InterruptWindow);
}

#[test]
fn two_watchpoints_are_told_apart() {
    // mov [0x2000], al; mov [0x2010], al
    let (mut vcpu, _) = real_mode(&[0xA2, 0x00, 0x20, 0xA2, 0x10, 0x20]);
    let watch = |address| kasane_cpu::engine::Watchpoint {
        address,
        len: 1,
        on_read: false,
        on_write: true,
    };
    let watchpoints = vec![watch(0x2010), watch(0x2000)];
    vcpu.set_debug(&DebugControl { watchpoints, ..DebugControl::default() });

    let first = vcpu.run(Entry::Resume).unwrap();
    let second = vcpu.run(Entry::Resume).unwrap();

    assert_eq!(first, Exit::Debug { rip: 0x1003, dr6: 2 });
    assert_eq!(second, Exit::Debug { rip: 0x1006, dr6: 1 });
}

#[test]
fn an_nmi_waits_for_the_start_up_ipi_without_work() {
    let (mut vcpu, apics) = real_mode(&[0xF4]);
    let mut state = CpuState::reset(true);
    state.activity = Activity::WaitForSipi;
    vcpu.write(StateSet::PLATFORM, &state);
    let mailbox = apics.mailbox(0).unwrap();

    mailbox.post(events::NMI);
    let halted = vcpu.run(Entry::Resume).unwrap();
    let work = vcpu.has_work();
    mailbox.post_sipi(1);
    let started = vcpu.has_work();
    vcpu.run(Entry::Resume).unwrap();
    vcpu.read(StateSet::PLATFORM, &mut state);

    assert_eq!((halted, work, started), (Exit::Halt, false, true));
    assert_ne!(state.activity, Activity::WaitForSipi);
    assert!(!state.nmi_pending);
}
