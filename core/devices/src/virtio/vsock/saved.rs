//! Saved form, version 1. Connections don't outlive the process that has the sockets.

use super::chip::Vsock;
use super::packet;
use crate::virtio::ChipDoesNotFit;

/// The state of a socket device.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct Form {
    guest_cid: u64,
}

impl Form {
    pub(super) fn of(vsock: &Vsock) -> Self {
        Self { guest_cid: vsock.guest_cid }
    }
    pub(super) fn put(self, vsock: &mut Vsock) -> Result<(), ChipDoesNotFit> {
        let Self { guest_cid } = self;
        if !packet::is_guest(guest_cid) {
            return Err(ChipDoesNotFit);
        }
        let epoch = vsock.epoch.wrapping_add(1);
        *vsock = Vsock { epoch, owes_reset: true, ..Vsock::new(guest_cid) };
        Ok(())
    }
}
