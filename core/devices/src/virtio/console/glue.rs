//! A console device and what is at the other end of its ports.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use kasane_memory::GuestMemory;
use kasane_ports::{Console, Kick};
use lock_api::RawMutex;

use super::chip::{ConsoleEffect, ConsoleSize, VirtioConsole};
use crate::virtio::{Offer, VirtioInterrupts, VirtioSocket, VirtioWiring};

/// What is at the other end of a port.
pub struct PortConnections {
    /// Takes what the guest sends.
    pub console: Arc<dyn Console>,
    /// Kicked when input fits again.
    pub room: Option<Arc<dyn Kick>>,
}

/// What a console device is connected to.
pub struct ConsoleConnections {
    /// Guest memory.
    pub memory: Arc<dyn GuestMemory>,
    /// The transport.
    pub interrupts: Arc<dyn VirtioInterrupts>,
    /// The ports' other ends, in their order. What is sent to a port without one is lost.
    pub ports: Vec<PortConnections>,
}

/// Makes the device called `name` and connects it.
#[must_use]
pub fn connect<R: RawMutex + Send + Sync + 'static>(
    name: &str,
    chip: VirtioConsole,
    offer: Offer,
    connections: ConsoleConnections,
) -> Arc<VirtioSocket<R, VirtioConsole>> {
    let ConsoleConnections { memory, interrupts, ports } = connections;
    Arc::new_cyclic(|me: &Weak<VirtioSocket<R, VirtioConsole>>| {
        let me = me.clone();
        let wiring = VirtioWiring::new(memory, interrupts).effects(move |effect| match effect {
            ConsoleEffect::Output { port } => {
                let Some(device) = me.upgrade() else { return };
                while let Some(bytes) = device.with(|chip, io| chip.take_output(port, io)) {
                    if let Some(to) = ports.get(port) {
                        to.console.output(&bytes);
                    }
                }
            }
            ConsoleEffect::Emergency { byte } => {
                if let Some(to) = ports.first() {
                    to.console.output(&[byte]);
                }
            }
            ConsoleEffect::Room { port } => {
                if let Some(room) = ports.get(port).and_then(|port| port.room.as_ref()) {
                    room.kick();
                }
            }
        });
        VirtioSocket::new(name, chip, offer, wiring)
    })
}

impl<R: RawMutex> VirtioSocket<R, VirtioConsole> {
    /// Gives the guest bytes for a port: how many it took. The others wait until there is room.
    pub fn receive(&self, port: usize, bytes: &[u8]) -> usize {
        self.reach(|chip, io| chip.receive(port, bytes, io)).unwrap_or(0)
    }
    /// The console on port 0 has another size.
    pub fn resize(&self, size: ConsoleSize) {
        self.change(move |chip, io| chip.resize(size, io));
    }
}
