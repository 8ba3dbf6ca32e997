//! The thread that keeps the devices' deadlines.

use std::sync::Arc;

use kasane_host_runtime::{HostClock, Parker};
use kasane_ports::Clock;

use super::{Control, HostedMachine};

/// Waits for the earliest deadline of any device, and for an earlier one.
pub(super) struct Timer {
    pub(super) machine: Arc<HostedMachine>,
    pub(super) clock: Arc<HostClock>,
    pub(super) parker: Arc<Parker>,
    pub(super) control: Arc<Control>,
}

impl Timer {
    /// The thread's body: until the machine ends.
    pub(super) fn live(&self) {
        while !self.control.ended() {
            match self.machine.next_deadline_ns() {
                Some(deadline) if deadline <= self.clock.now_ns() => {
                    if !self.control.serve_deadlines(|| self.machine.advance()) {
                        self.parker.park(None);
                    }
                }
                // No moment: guest time stands, and who lets it go on unparks.
                deadline => {
                    self.parker.park(deadline.and_then(|ns| self.clock.instant_of(ns)));
                }
            }
        }
    }
}
