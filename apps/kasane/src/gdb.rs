//! The running machine as the debugger's stub wants to see it.
//!
//! A machine ends with each reset and another one follows; the debugger stays. So the stub holds a
//! [`Debuggee`], which knows the machine of the moment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kasane_cpu::apic::ApicBus;
use kasane_cpu::engine::DebugControl;
use kasane_cpu::{CpuState, StateSet};
use kasane_host_gdb::{DebugTarget, Ended, PhysicalView, Run, Stop, TargetGone, VcpuStop};
use kasane_memory::{GuestMemory, Ram};
use parking_lot::{Condvar, Mutex};

use crate::vm::{Control, DebugStop, End, VirtualMachine};

/// The wait for a stop has no end of its own; this is only how often it starts over.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// What the debugger debugs.
pub(crate) struct Debuggee {
    description: String,
    physical_bits: u8,
    seat: Mutex<Seat>,
    changed: Condvar,
}

/// The machine of the moment.
struct Seat {
    /// Counts machines.
    number: u64,
    /// Of which the debugger knows already.
    told: u64,
    machine: Seated,
    ended: Option<Ended>,
}

#[derive(Clone)]
struct Seated {
    control: Arc<Control>,
    ram: Arc<Ram>,
    apics: Arc<ApicBus>,
}

impl Seated {
    fn of(vm: &VirtualMachine) -> Self {
        let (control, ram, apics) = (vm.control(), vm.ram(), vm.apics());
        Self { control: Arc::clone(control), ram: Arc::clone(ram), apics: Arc::clone(apics) }
    }
}

impl Debuggee {
    /// The first machine, which is paused. `physical_bits` is MAXPHYADDR.
    pub(crate) fn new(vm: &VirtualMachine, description: String, physical_bits: u8) -> Self {
        let seat = Seat { number: 0, told: 0, machine: Seated::of(vm), ended: None };
        Self { description, physical_bits, seat: Mutex::new(seat), changed: Condvar::new() }
    }

    /// The machine was reset: this one, which is paused, is in its place.
    pub(crate) fn replace(&self, vm: &VirtualMachine) {
        let mut seat = self.seat.lock();
        seat.number += 1;
        seat.machine = Seated::of(vm);
        self.changed.notify_all();
    }

    /// There will be no other machine.
    pub(crate) fn end(&self, how: Ended) {
        self.seat.lock().ended = Some(how);
        self.changed.notify_all();
    }

    fn machine(&self) -> Seated {
        self.seat.lock().machine.clone()
    }

    /// News of the machine of the moment, if there is any; else the machine and its number.
    fn news(&self) -> Result<Stop, (Seated, u64)> {
        let mut seat = self.seat.lock();
        if seat.told != seat.number {
            seat.told = seat.number;
            return Ok(Stop::Restarted);
        }
        match seat.ended {
            Some(how) => Ok(Stop::Ended(how)),
            None => Err((seat.machine.clone(), seat.number)),
        }
    }

    /// Waits until machine `number` has a successor, or will have none.
    fn wait_for_another(&self, number: u64) {
        let mut seat = self.seat.lock();
        while seat.number == number && seat.ended.is_none() {
            self.changed.wait(&mut seat);
        }
    }
}

fn vcpu_stop(stop: DebugStop) -> VcpuStop {
    let DebugStop { vcpu, rip, dr6 } = stop;
    VcpuStop { vcpu, rip, dr6 }
}

impl DebugTarget for Debuggee {
    fn vcpus(&self) -> u32 {
        self.machine().apics.cpus()
    }

    fn memory(&self) -> Arc<dyn GuestMemory> {
        self.machine().ram
    }

    fn physical_view(&self) -> PhysicalView {
        let mailbox = self.machine().apics.mailbox(0);
        let a20_mask = mailbox.map_or(u64::MAX, |mailbox| mailbox.a20_mask());
        PhysicalView { bits: self.physical_bits, a20_mask }
    }

    fn description(&self) -> String {
        self.description.clone()
    }

    fn pause(&self) -> Result<(), TargetGone> {
        if self.machine().control.pause() { Ok(()) } else { Err(TargetGone) }
    }

    fn resume(&self, run: &Run) {
        match run {
            Run::All => self.machine().control.resume(),
            Run::Only(vcpus) => self.machine().control.resume_only(vcpus),
        }
    }

    fn read(&self, vcpu: u32, set: StateSet) -> Result<CpuState, TargetGone> {
        let read = move |vcpu: &mut dyn kasane_cpu::Vcpu| {
            let mut state = CpuState::reset(false);
            vcpu.read(set, &mut state);
            state
        };
        self.machine().control.with_vcpu(vcpu, read).map_err(|_| TargetGone)
    }

    fn write(&self, vcpu: u32, set: StateSet, state: CpuState) -> Result<(), TargetGone> {
        let write = move |vcpu: &mut dyn kasane_cpu::Vcpu| vcpu.write(set, &state);
        self.machine().control.with_vcpu(vcpu, write).map_err(|_| TargetGone)
    }

    fn set_debug(&self, vcpu: u32, control: DebugControl) -> Result<(), TargetGone> {
        let set = move |vcpu: &mut dyn kasane_cpu::Vcpu| vcpu.set_debug(&control);
        self.machine().control.with_vcpu(vcpu, set).map_err(|_| TargetGone)
    }

    fn reset(&self) {
        self.machine().control.end(End::Reset);
    }

    fn kill(&self) {
        self.machine().control.end(End::Stopped);
    }

    fn next_stop(&self) -> Stop {
        loop {
            let (machine, number) = match self.news() {
                Ok(stop) => return stop,
                Err(at) => at,
            };
            let Some(far) = Instant::now().checked_add(LONG) else { continue };
            if let Some(stop) = machine.control.wait_for_debug_stop(far) {
                return Stop::Vcpu(vcpu_stop(stop));
            }
            if machine.control.ended() {
                self.wait_for_another(number);
            }
        }
    }

    fn pending_stop(&self) -> Option<VcpuStop> {
        self.machine().control.wait_for_debug_stop(Instant::now()).map(vcpu_stop)
    }
}
