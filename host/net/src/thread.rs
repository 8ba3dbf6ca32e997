//! A network's thread: rounds about the device on it, which is told after each what was taken and
//! given.

use std::io;
use std::time::Instant;

pub(crate) use kasane_host_rounds::Next;
use kasane_ports::NetDevice;
use mio::{Events, Registry};

/// A network's running thread.
pub(crate) type Service = kasane_host_rounds::Rounds<Device>;
type Device = dyn NetDevice;

/// What a network does in its thread.
pub(crate) trait Network: Send + 'static {
    /// One round: events of the host, frames from the guest, frames to it.
    fn round(&mut self, device: Option<&dyn NetDevice>, events: &Events, now: Instant) -> Next;
}

/// Starts a thread; `build` makes the network with the registry of its poll.
pub(crate) fn start<N: Network, E: From<io::Error>>(
    name: &str,
    build: impl FnOnce(Registry) -> Result<N, E>,
) -> Result<Service, E> {
    Service::start(name, |registry| {
        let mut network = build(registry)?;
        Ok(move |device: Option<&Device>, events: &Events, now: Instant| {
            let next = network.round(device, events, now);
            if let Some(device) = device {
                device.flush();
            }
            next
        })
    })
}
