//! The guest's end of a network, for one round.

use kasane_ports::{FrameOffload, Given, NetDevice, NetGuestOffloads};

/// The device as one round sees it: what the guest takes, and whether it has room.
pub(crate) struct Link<'a> {
    device: Option<&'a dyn NetDevice>,
    offloads: NetGuestOffloads,
    full: bool,
}

impl<'a> Link<'a> {
    /// The link of a round. Without a device, or with a driver that doesn't run, frames are lost.
    pub(crate) fn new(device: Option<&'a dyn NetDevice>) -> Self {
        let device = device.filter(|device| device.is_up());
        let offloads = device.map(NetDevice::guest_offloads).unwrap_or_default();
        Self { device, offloads, full: false }
    }

    /// Whether there is somebody at the other end.
    pub(crate) fn is_up(&self) -> bool {
        self.device.is_some()
    }

    /// What the guest takes.
    pub(crate) fn offloads(&self) -> NetGuestOffloads {
        self.offloads
    }

    /// Whether the guest had no room for a frame in this round. It calls when it has.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// Takes the guest's next frame.
    pub(crate) fn take(&self, frame: &mut Vec<u8>) -> Option<FrameOffload> {
        self.device?.take(frame)
    }

    /// Gives the guest a frame.
    pub(crate) fn give(&mut self, parts: &[&[u8]], offload: FrameOffload) -> Given {
        if self.full {
            return Given::NoRoom;
        }
        let given = self.device.map_or(Given::Refused, |device| device.give(parts, offload));
        self.full = given == Given::NoRoom;
        given
    }
}
