//! The task that keeps the devices' deadlines.

use alloc::sync::Arc;

use kasane_machine::Machine;
use kasane_metal_memory::SpinLock;
use kasane_metal_sched::{Next, Task};
use kasane_ports::Clock;

use crate::control::Control;

pub(crate) struct Timer {
    pub(crate) machine: Arc<Machine<SpinLock>>,
    pub(crate) control: Arc<Control>,
    pub(crate) clock: Arc<dyn Clock>,
    /// The machine's time is the home's minus this.
    pub(crate) began_ns: u64,
}

impl Task for Timer {
    fn run(&mut self, _until_ns: u64) -> Next {
        if self.control.ended() {
            return Next::Done;
        }
        match self.machine.next_deadline_ns() {
            Some(deadline) if deadline <= self.clock.now_ns() => {
                self.machine.advance();
                Next::Again
            }
            deadline => Next::Wait(deadline.map(|ns| ns.saturating_add(self.began_ns))),
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.control.gone();
    }
}
