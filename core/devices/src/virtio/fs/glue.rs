//! A file system and its server.

use alloc::sync::Arc;

use kasane_memory::GuestMemory;
use kasane_ports::{ShareBackend, ShareCompletions};
use lock_api::RawMutex;

use super::chip::{Fs, FsEffect};
use crate::virtio::{Offer, VirtioInterrupts, VirtioSocket, VirtioWiring};

/// What a file system is connected to.
pub struct FsConnections {
    /// Guest memory.
    pub memory: Arc<dyn GuestMemory>,
    /// The transport.
    pub interrupts: Arc<dyn VirtioInterrupts>,
    /// The server.
    pub backend: Arc<dyn ShareBackend>,
}

/// Makes the device called `name` and connects it.
#[must_use]
pub fn connect<R: RawMutex + Send + Sync + 'static>(
    name: &str,
    chip: Fs,
    offer: Offer,
    connections: FsConnections,
) -> Arc<VirtioSocket<R, Fs>> {
    let FsConnections { memory, interrupts, backend } = connections;
    let (requests, settled) = (backend.clone(), backend.clone());
    let wiring = VirtioWiring::new(memory, interrupts)
        .effects(move |effect| match effect {
            FsEffect::Submit(batch) => requests.submit(batch),
            FsEffect::Reset => {
                requests.drain();
                requests.reset();
            }
        })
        .settle(move || settled.drain());
    let socket = Arc::new(VirtioSocket::new(name, chip, offer, wiring));
    let device: Arc<dyn ShareCompletions> = socket.clone();
    backend.connect(Arc::downgrade(&device));
    socket
}

impl<R: RawMutex + Send + Sync> ShareCompletions for VirtioSocket<R, Fs> {
    fn completed(&self, token: u64, written: u32) {
        self.with(|chip, io| chip.completed(token, written, io));
    }
}
