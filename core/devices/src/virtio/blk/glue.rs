//! A disk and its backend.

use alloc::sync::Arc;

use kasane_memory::GuestMemory;
use kasane_ports::{BlockBackend, BlockCompletion, BlockCompletions, BlockInfo};
use lock_api::RawMutex;

use super::chip::{Blk, BlkEffect};
use crate::virtio::{Offer, VirtioInterrupts, VirtioSocket, VirtioWiring};

/// What a disk is connected to.
pub struct BlkConnections {
    /// Guest memory.
    pub memory: Arc<dyn GuestMemory>,
    /// The transport.
    pub interrupts: Arc<dyn VirtioInterrupts>,
    /// Where the data is.
    pub backend: Arc<dyn BlockBackend>,
}

/// Makes the disk called `name` and connects it.
#[must_use]
pub fn connect<R: RawMutex + Send + Sync + 'static>(
    name: &str,
    chip: Blk,
    offer: Offer,
    connections: BlkConnections,
) -> Arc<VirtioSocket<R, Blk>> {
    let BlkConnections { memory, interrupts, backend } = connections;
    let (requests, settled) = (backend.clone(), backend.clone());
    let wiring = VirtioWiring::new(memory, interrupts)
        .effects(move |effect| match effect {
            BlkEffect::Submit(batch) => requests.submit(batch),
            BlkEffect::Drain => requests.drain(),
        })
        .settle(move || settled.drain());
    let socket = Arc::new(VirtioSocket::new(name, chip, offer, wiring));
    let device: Arc<dyn BlockCompletions> = socket.clone();
    backend.connect(Arc::downgrade(&device));
    socket
}

impl<R: RawMutex> VirtioSocket<R, Blk> {
    /// The backend's disk has changed (it was resized): the driver is told.
    pub fn set_info(&self, info: BlockInfo) {
        self.change(move |blk, io| blk.set_info(info, io));
    }
}

impl<R: RawMutex + Send + Sync> BlockCompletions for VirtioSocket<R, Blk> {
    fn completed(&self, done: &[BlockCompletion]) {
        self.with(|blk, io| blk.completed(done, io));
    }
}
