//! A socket device and the host's sockets.

use alloc::sync::Arc;
use alloc::vec::Vec;

use kasane_memory::GuestMemory;
use kasane_ports::{Given, VsockBackend, VsockDevice, VsockPacket};
use lock_api::RawMutex;

use super::chip::{Taken, Vsock, VsockEffect};
use crate::virtio::{Offer, VirtioInterrupts, VirtioSocket, VirtioWiring};

/// Rounds of packets that make no sense, after which the backend is sent round once more.
const ROUNDS: u32 = 16;

/// What a socket device is connected to.
pub struct VsockConnections {
    /// Guest memory.
    pub memory: Arc<dyn GuestMemory>,
    /// The transport.
    pub interrupts: Arc<dyn VirtioInterrupts>,
    /// The host's side.
    pub backend: Arc<dyn VsockBackend>,
}

/// Makes the device called `name` and connects it.
#[must_use]
pub fn connect<R: RawMutex + Send + Sync + 'static>(
    name: &str,
    chip: Vsock,
    offer: Offer,
    connections: VsockConnections,
) -> Arc<VirtioSocket<R, Vsock>> {
    let VsockConnections { memory, interrupts, backend } = connections;
    let woken = backend.clone();
    let wiring =
        VirtioWiring::new(memory, interrupts).effects(move |VsockEffect::Wake| woken.wake());
    let socket = Arc::new(VirtioSocket::new(name, chip, offer, wiring));
    let device: Arc<dyn VsockDevice> = socket.clone();
    backend.connect(Arc::downgrade(&device));
    socket
}

impl<R: RawMutex + Send + Sync> VsockDevice for VirtioSocket<R, Vsock> {
    fn epoch(&self) -> u64 {
        self.inspect(|core| core.chip().epoch())
    }
    fn take(&self, data: &mut Vec<u8>) -> Option<VsockPacket> {
        // Between two rounds others get the lock.
        for _ in 0..ROUNDS {
            match self.reach(|chip, io| chip.take(data, io))? {
                Taken::Packet(packet) => return Some(packet),
                Taken::None => return None,
                Taken::Dropped => {}
            }
        }
        // There is more, of which the driver won't notify.
        self.with(|_, io| io.effect(VsockEffect::Wake));
        None
    }
    fn give(&self, packet: VsockPacket, data: &[u8]) -> (Given, usize) {
        self.reach(|chip, io| chip.give(&packet, data, io)).unwrap_or((Given::NoRoom, 0))
    }
    fn flush(&self) {
        // A hold has done it.
        let _held = self.reach(Vsock::flush);
    }
}
