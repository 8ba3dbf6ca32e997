//! The task of one virtual processor.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::sync::Arc;

use kasane_cpu::{CpuState, Entry, Exit, StateSet, Vcpu};
use kasane_machine::{Action, Machine};
use kasane_metal_memory::SpinLock;
use kasane_metal_sched::{Next, Task};
use kasane_ports::Clock;

use crate::control::{Control, End};

/// A virtual processor with all it needs.
pub(crate) struct Processor {
    pub(crate) index: u32,
    pub(crate) vcpu: Box<dyn Vcpu>,
    pub(crate) machine: Arc<Machine<SpinLock>>,
    pub(crate) control: Arc<Control>,
    /// The machine's, and what its time is at the home's time 0 (wrapping).
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) began_ns: u64,
    pub(crate) entry: Entry,
}

impl Task for Processor {
    fn run(&mut self, until_ns: u64) -> Next {
        let until_ns = until_ns.saturating_sub(self.began_ns);
        while !self.control.ended() {
            let exit = match self.vcpu.run(self.entry) {
                Ok(exit) => exit,
                Err(fault) => {
                    self.control.end(End::Fault(fault.to_string()));
                    break;
                }
            };
            self.entry = Entry::Resume;
            if let Some(next) = self.answer(&exit) {
                return next;
            }
            if self.clock.now_ns() >= until_ns {
                return Next::Again;
            }
        }
        Next::Done
    }
}

impl Processor {
    /// Has the machine answer; something if the task returns.
    fn answer(&mut self, exit: &Exit) -> Option<Next> {
        match self.machine.handle(self.index, exit) {
            Action::Enter(entry) => self.entry = entry,
            Action::Wait => {
                if !self.vcpu.has_work() {
                    let deadline = self.vcpu.next_deadline_ns();
                    return Some(Next::Wait(deadline.map(|ns| ns.saturating_add(self.began_ns))));
                }
            }
            Action::PowerOff => self.control.end(End::PoweredOff),
            Action::Reset => self.control.end(End::Reset),
            Action::Crashed { vcpu } => {
                let mut state = CpuState::reset(false);
                self.vcpu.read(StateSet::GENERAL, &mut state);
                self.control.end(End::Crashed { vcpu, rip: state.rip });
            }
            // Nobody debugs here: no engine is asked to stop.
            Action::Debug { .. } => {}
        }
        None
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        self.control.gone();
    }
}
