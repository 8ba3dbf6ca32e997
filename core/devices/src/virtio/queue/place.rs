//! Where a queue's parts are, and by which rules they are used.

use kasane_memory::GuestMemory;
use kasane_spec_virtio::feature;
use kasane_spec_virtio::ring::{DESCRIPTOR_LEN, SIZE_MAX, packed, split};

use super::error::QueueError;

/// Where a queue is, as the driver said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct QueuePlace {
    /// Entries.
    pub size: u16,
    /// Descriptor area: the table, or the packed ring.
    pub descriptors: u64,
    /// Driver area: the available ring, or the driver's event suppression.
    pub driver: u64,
    /// Device area: the used ring, or the device's event suppression.
    pub device: u64,
}

/// The form of a queue's rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingForm {
    /// §2.7
    Split,
    /// §2.8
    Packed,
}

impl RingForm {
    /// The form that was agreed on.
    #[must_use]
    pub const fn of(features: u64) -> Self {
        if features & feature::RING_PACKED != 0 { Self::Packed } else { Self::Split }
    }
}

impl QueuePlace {
    /// Whether a queue can be here: size, alignment and ends. `size_max` is what the device has.
    pub(super) fn check(&self, form: RingForm, size_max: u16) -> Result<(), QueueError> {
        let size = u64::from(self.size);
        let parts = match form {
            RingForm::Split => [
                (self.descriptors, split::DESCRIPTOR_ALIGN, size * DESCRIPTOR_LEN),
                (self.driver, split::AVAIL_ALIGN, 6 + size * split::AVAIL_ENTRY_LEN),
                (self.device, split::USED_ALIGN, 6 + size * split::USED_ENTRY_LEN),
            ],
            RingForm::Packed => [
                (self.descriptors, packed::RING_ALIGN, size * DESCRIPTOR_LEN),
                (self.driver, packed::EVENT_ALIGN, packed::EVENT_LEN),
                (self.device, packed::EVENT_ALIGN, packed::EVENT_LEN),
            ],
        };
        let fits = |(address, align, len): &(u64, u64, u64)| {
            address.is_multiple_of(*align) && address.checked_add(*len).is_some()
        };
        let sized = (1..=size_max.min(SIZE_MAX)).contains(&self.size)
            && (form == RingForm::Packed || self.size.is_power_of_two());
        if sized && parts.iter().all(fits) {
            Ok(())
        } else {
            Err(QueueError::BadPlace { size: self.size })
        }
    }
}

/// What a ring's operations need: memory, the place, and what was agreed on.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a> {
    pub(super) memory: &'a dyn GuestMemory,
    pub(super) place: QueuePlace,
    pub(super) features: u64,
}

impl Ground<'_> {
    pub(super) fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }
}

/// Whether going from `old` to `new` passes `event` (§2.7.10, `vring_need_event`).
pub(super) const fn passes(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
