//! The device and the home's entropy.

use alloc::sync::{Arc, Weak};

use kasane_memory::GuestMemory;
use kasane_ports::Entropy;
use lock_api::RawMutex;

use super::chip::{Rng, RngEffect};
use crate::virtio::{Offer, VirtioInterrupts, VirtioSocket, VirtioWiring};

/// What the device is connected to.
pub struct RngConnections {
    /// Guest memory.
    pub memory: Arc<dyn GuestMemory>,
    /// The transport.
    pub interrupts: Arc<dyn VirtioInterrupts>,
    /// Where bytes come from.
    pub entropy: Arc<dyn Entropy>,
}

/// Makes the device called `name` and connects it.
#[must_use]
pub fn connect<R: RawMutex + Send + Sync + 'static>(
    name: &str,
    offer: Offer,
    connections: RngConnections,
) -> Arc<VirtioSocket<R, Rng>> {
    let RngConnections { memory, interrupts, entropy } = connections;
    Arc::new_cyclic(|me: &Weak<VirtioSocket<R, Rng>>| {
        let me = me.clone();
        let wiring = VirtioWiring::new(memory, interrupts).effects(move |effect| {
            let RngEffect::Wanted { len } = effect;
            let mut bytes = alloc::vec![0; len];
            entropy.fill(&mut bytes);
            if let Some(device) = me.upgrade() {
                device.with(|rng, io| rng.give(&bytes, io));
            }
        });
        VirtioSocket::new(name, Rng::default(), offer, wiring)
    })
}
