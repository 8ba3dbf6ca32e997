//! A balloon and the home's memory.

use alloc::sync::{Arc, Weak};

use kasane_memory::GuestMemory;
use kasane_ports::PageReclaim;
use lock_api::{Mutex, RawMutex};

use super::chip::{Balloon, BalloonEffect};
use crate::virtio::{Offer, VirtioInterrupts, VirtioSocket, VirtioWiring};

/// What a balloon is connected to.
pub struct BalloonConnections {
    /// Guest memory.
    pub memory: Arc<dyn GuestMemory>,
    /// The transport.
    pub interrupts: Arc<dyn VirtioInterrupts>,
    /// Takes pages back.
    pub reclaim: Arc<dyn PageReclaim>,
}

/// Makes the balloon called `name` and connects it.
///
/// Lock order: the lock around pages on their way comes before the device's.
#[must_use]
pub fn connect<R: RawMutex + Send + Sync + 'static>(
    name: &str,
    offer: Offer,
    connections: BalloonConnections,
) -> Arc<VirtioSocket<R, Balloon>> {
    let BalloonConnections { memory, interrupts, reclaim } = connections;
    let under_way = Arc::new(Mutex::<R, ()>::new(()));
    let settled = under_way.clone();
    Arc::new_cyclic(|me: &Weak<VirtioSocket<R, Balloon>>| {
        let me = me.clone();
        let wiring = VirtioWiring::new(memory, interrupts)
            .effects(move |effect| match effect {
                BalloonEffect::Reclaim => {
                    let Some(device) = me.upgrade() else { return };
                    loop {
                        let _one_at_a_time = under_way.lock();
                        let Some(pages) = device.with(|chip, _| chip.next_pages()) else { break };
                        for run in pages {
                            reclaim.discard(run.gpa, run.len);
                        }
                        device.with(|chip, io| chip.reclaimed(io));
                    }
                }
                BalloonEffect::Settle => drop(under_way.lock()),
            })
            .settle(move || drop(settled.lock()));
        VirtioSocket::new(name, Balloon::default(), offer, wiring)
    })
}

impl<R: RawMutex> VirtioSocket<R, Balloon> {
    /// Asks the guest to give `bytes` of its memory; less than before gives the rest back to it.
    pub fn set_wanted_bytes(&self, bytes: u64) {
        self.change(move |chip, io| chip.set_wanted(bytes, io));
    }
    /// Asks the guest for new statistics, which [`Balloon::statistics`] has when it has answered.
    pub fn ask_for_statistics(&self) {
        self.change(Balloon::ask_for_statistics);
    }
}
