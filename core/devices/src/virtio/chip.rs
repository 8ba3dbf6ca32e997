//! What a device type is.

use alloc::vec::Vec;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::io::Io;

/// A saved form that its chip can't have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChipDoesNotFit;

/// A device type: a pure state machine behind queues. See the module's head.
pub trait VirtioChip: Send + 'static {
    /// What it asks of the world, in order; applied after unlocking.
    type Effect: Send;
    /// Its saved state.
    type Form: Serialize + DeserializeOwned;
    /// A short stable name: `virtio-blk`. Saved sections are called so, with the device's own name
    /// behind a dot.
    const NAME: &'static str;
    /// Device type (§5).
    const DEVICE_TYPE: u16;
    /// Version of `Form`, from 1.
    const FORM_VERSION: u32;

    /// Features of the device type that are offered ([`kasane_spec_virtio::feature::DEVICE_TYPE`]).
    /// They don't change.
    fn features(&self) -> u64;
    /// Whether the driver may choose these of the offered ones: where one needs another.
    fn accepts(&self, _features: u64) -> bool {
        true
    }
    /// The most entries of each queue: powers of two. The number of queues doesn't change.
    fn queue_sizes(&self) -> Vec<u16>;
    /// The device's configuration space as it is now.
    fn config(&self) -> Vec<u8>;
    /// The driver writes the configuration space.
    fn config_write(&mut self, _offset: u32, _data: &[u8], _io: &mut Io<'_, Self::Effect>) {}
    /// The driver is ready. [`notified`](Self::notified) follows for each queue that is on.
    fn activate(&mut self, _io: &mut Io<'_, Self::Effect>) {}
    /// Back to power-on; all chains are forgotten. Effects may wait for a backend (they are applied
    /// without a lock); until they return the driver is told that the reset is under way.
    fn reset(&mut self, effects: &mut Vec<Self::Effect>);
    /// The driver has made something available in `queue`, or may have.
    fn notified(&mut self, queue: u16, io: &mut Io<'_, Self::Effect>);
    /// The backend is held from now on: the driver is to hear of what it has taken and given.
    fn hold(&mut self, _io: &mut Io<'_, Self::Effect>) {}
    /// The backend may go on: it is to be told that there may be something to take, or room.
    fn release(&mut self, _io: &mut Io<'_, Self::Effect>) {}
    /// Whether nothing is under way elsewhere that belongs to a chain.
    fn is_settled(&self) -> bool {
        true
    }
    /// The state now. The machine is paused, and [`settle`](super::VirtioWiring::settle) was called.
    fn save(&self) -> Self::Form;
    /// Takes over a saved state.
    ///
    /// # Errors
    /// When the chip can't have it; then it is as it was.
    fn restore(&mut self, form: Self::Form) -> Result<(), ChipDoesNotFit>;
}
