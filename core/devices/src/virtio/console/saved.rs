//! Saved form, version 1. Output is taken before its doorbell is answered, so none is under way
//! while the machine is paused.

use alloc::vec::Vec;

use super::chip::{ConsoleSize, VirtioConsole};
use super::control::Owed;
use super::transfer::Sending;
use crate::virtio::ChipDoesNotFit;

#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct PortForm {
    open: bool,
    owed: Owed,
}

/// The state of a console device.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Form {
    ports: Vec<PortForm>,
    size: ConsoleSize,
}

impl Form {
    pub(super) fn of(console: &VirtioConsole) -> Self {
        let VirtioConsole { ports, size } = console;
        let ports = ports.iter().map(|port| PortForm { open: port.open, owed: port.owed });
        Self { ports: ports.collect(), size: *size }
    }

    pub(super) fn put(self, console: &mut VirtioConsole) -> Result<(), ChipDoesNotFit> {
        let Self { ports, size } = self;
        if ports.len() != console.ports.len() {
            return Err(ChipDoesNotFit);
        }
        for (to, PortForm { open, owed }) in console.ports.iter_mut().zip(ports) {
            to.open = open;
            to.owed = owed;
            to.sending = Sending::default();
            // Who had nowhere to put its input tries again.
            to.starved = true;
        }
        console.size = size;
        Ok(())
    }
}
