//! A card and its network.

use alloc::sync::Arc;
use alloc::vec::Vec;

use kasane_memory::GuestMemory;
use kasane_ports::{FrameOffload, Given, NetBackend, NetDevice, NetGuestOffloads};
use lock_api::RawMutex;

use super::chip::{Link, Net, NetEffect};
use super::transfer::Taken;
use crate::virtio::{Offer, VirtioInterrupts, VirtioSocket, VirtioWiring};

/// Rounds of frames that make no sense, after which the backend is sent round once more.
const ROUNDS: u32 = 16;

/// What a card is connected to.
pub struct NetConnections {
    /// Guest memory.
    pub memory: Arc<dyn GuestMemory>,
    /// The transport.
    pub interrupts: Arc<dyn VirtioInterrupts>,
    /// The network.
    pub backend: Arc<dyn NetBackend>,
}

/// Makes the card called `name` and connects it.
#[must_use]
pub fn connect<R: RawMutex + Send + Sync + 'static>(
    name: &str,
    chip: Net,
    offer: Offer,
    connections: NetConnections,
) -> Arc<VirtioSocket<R, Net>> {
    let NetConnections { memory, interrupts, backend } = connections;
    let woken = backend.clone();
    let wiring = VirtioWiring::new(memory, interrupts).effects(move |NetEffect::Wake| woken.wake());
    let socket = Arc::new(VirtioSocket::new(name, chip, offer, wiring));
    let device: Arc<dyn NetDevice> = socket.clone();
    backend.connect(Arc::downgrade(&device));
    socket
}

impl<R: RawMutex> VirtioSocket<R, Net> {
    /// Plugs the cable in, or pulls it out.
    pub fn set_link(&self, link: Link) {
        self.change(move |net, io| net.set_link(link, io));
    }
    /// Asks the guest to announce its address to the network, as after a move to another host.
    pub fn ask_to_announce(&self) {
        self.change(Net::ask_to_announce);
    }
}

impl<R: RawMutex + Send + Sync> NetDevice for VirtioSocket<R, Net> {
    fn take(&self, frame: &mut Vec<u8>) -> Option<FrameOffload> {
        // Between two rounds others get the lock.
        for _ in 0..ROUNDS {
            match self.reach(|net, io| net.take(frame, io))? {
                Taken::Frame(offload) => return Some(offload),
                Taken::None => return None,
                Taken::Dropped => {}
            }
        }
        // There is more, of which the driver won't notify.
        self.with(|_, io| io.effect(NetEffect::Wake));
        None
    }
    fn give(&self, parts: &[&[u8]], offload: FrameOffload) -> Given {
        self.reach(|net, io| net.give(parts, offload, io)).unwrap_or(Given::NoRoom)
    }
    fn flush(&self) {
        // A hold has done it.
        let _held = self.reach(Net::flush);
    }
    fn guest_offloads(&self) -> NetGuestOffloads {
        self.inspect(|core| core.chip().guest_offloads())
    }
    fn is_up(&self) -> bool {
        self.with(|net, io| net.is_up(io))
    }
}
