//! The thread of one vCPU.

use std::sync::Arc;

use kasane_cpu::engine::CriticalCount;
use kasane_cpu::{CpuState, Entry, Exit, StateSet, Vcpu};
use kasane_host_runtime::{HostClock, Parker};
use kasane_machine::Action;

use super::assemble::VcpuParts;
use super::control::{At, Control, DebugStop, Flow};
use super::{Confinement, End, HostedMachine};

/// What a vCPU did in its life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessorReport {
    /// Instructions retired.
    pub instructions: u64,
    /// Instructions that the engine lacks and the guest met, with counts.
    pub missing: Vec<(String, u64)>,
    /// What the engine counted, by name.
    pub counts: Vec<(String, u64)>,
    /// The critical instructions that came up.
    pub critical: Vec<CriticalCount>,
}

/// A vCPU with all it needs.
pub(super) struct Processor {
    index: u32,
    vcpu: Box<dyn Vcpu>,
    confinement: Option<Confinement>,
    parker: Arc<Parker>,
    machine: Arc<HostedMachine>,
    clock: Arc<HostClock>,
    control: Arc<Control>,
}

impl Processor {
    pub(super) fn new(
        parts: VcpuParts,
        machine: Arc<HostedMachine>,
        clock: Arc<HostClock>,
        control: Arc<Control>,
    ) -> Self {
        let VcpuParts { index, vcpu, confinement, parker } = parts;
        Self { index, vcpu, confinement, parker, machine, clock, control }
    }

    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// The thread's body: until the machine ends.
    pub(super) fn live(mut self) -> ProcessorReport {
        let obituary = Obituary { index: self.index, control: Arc::clone(&self.control) };
        self.confine();
        let mut entry = Entry::Resume;
        let mut at = At::Rest;
        loop {
            if self.control.wants_attention(self.index)
                && self.control.attend(self.index, at, &mut *self.vcpu) == Flow::End
            {
                break;
            }
            let exit = match self.vcpu.run(entry) {
                Ok(exit) => exit,
                Err(fault) => {
                    self.control.end(End::Fault(format!("vCPU {}: {fault}", self.index)));
                    break;
                }
            };
            self.control.count_exit();
            entry = self.answer(&exit);
            at = if is_consistent(&exit) { At::Rest } else { At::Instruction };
        }
        drop(obituary);
        ProcessorReport {
            instructions: self.vcpu.instructions(),
            missing: self.vcpu.missing_instructions(),
            counts: self.vcpu.counts(),
            critical: self.vcpu.critical_instructions(),
        }
    }

    /// From here on the thread makes only the calls that it needs.
    fn confine(&self) {
        let Some(Confinement { filter, provoke }) = &self.confinement else { return };
        if let Err(error) = filter.enter(self.index) {
            self.control.end(End::Fault(format!("vCPU {}: {error}", self.index)));
        }
        if let (0, Some(call)) = (self.index, provoke) {
            kasane_host_sandbox::provoke(*call);
        }
    }

    fn answer(&mut self, exit: &Exit) -> Entry {
        match self.machine.handle(self.index, exit) {
            Action::Enter(entry) => entry,
            Action::Wait => {
                self.wait();
                Entry::Resume
            }
            Action::PowerOff => self.end(End::PoweredOff),
            Action::Reset => self.end(End::Reset),
            Action::Crashed { vcpu } => {
                let mut state = CpuState::reset(false);
                self.vcpu.read(StateSet::ALL, &mut state);
                self.end(End::Crashed { vcpu, state: Box::new(state) })
            }
            Action::Debug { rip, dr6 } => {
                self.control.debug_stop(DebugStop { vcpu: self.index, rip, dr6 });
                Entry::Resume
            }
        }
    }

    fn end(&self, end: End) -> Entry {
        self.control.end(end);
        Entry::Resume
    }

    /// HLT: until something arrives, the APIC timer is due, or somebody wants the thread.
    fn wait(&mut self) {
        while !self.control.wants_attention(self.index) && !self.vcpu.has_work() {
            let deadline = self.vcpu.next_deadline_ns();
            self.parker.park(deadline.and_then(|ns| self.clock.instant_of(ns)));
        }
    }
}

/// Whether the vCPU's state is complete after the exit: no instruction waits for an answer.
fn is_consistent(exit: &Exit) -> bool {
    match exit {
        Exit::Halt | Exit::Kicked | Exit::BudgetUsed | Exit::Debug { .. } => true,
        Exit::PortRead { .. }
        | Exit::PortWrite { .. }
        | Exit::PortWriteString { .. }
        | Exit::MmioRead { .. }
        | Exit::MmioWrite { .. }
        | Exit::MsrRead { .. }
        | Exit::MsrWrite { .. }
        | Exit::Hypercall
        | Exit::InterruptWindow
        | Exit::Eoi { .. }
        | Exit::TripleFault
        | Exit::Smi => false,
    }
}

/// Tells the machine that a vCPU's thread has ended; by a panic: that the machine has.
struct Obituary {
    index: u32,
    control: Arc<Control>,
}

impl Drop for Obituary {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.control.end(End::Fault(format!("vCPU {} ended by a panic", self.index)));
        }
        self.control.gone(self.index);
    }
}
