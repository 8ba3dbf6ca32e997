//! A queue's saved form: where it is, and where the device stands in it.

use super::packed::PackedRing;
use super::place::RingForm;
use super::split::SplitRing;
use super::{Queue, QueuePlace, Ring};

#[derive(Clone, Copy, serde::Serialize, serde::Deserialize)]
enum RingState {
    Off,
    Split(SplitRing),
    Packed(PackedRing),
}

/// One queue.
#[derive(Clone, Copy, serde::Serialize, serde::Deserialize)]
pub(in crate::virtio) struct QueueForm {
    place: QueuePlace,
    ring: RingState,
    life: u16,
}

impl QueueForm {
    pub(in crate::virtio) fn of(queue: &Queue) -> Self {
        let Queue { size_max: _, place, ring, life } = queue;
        let ring = match ring {
            None => RingState::Off,
            Some(Ring::Split(ring)) => RingState::Split(*ring),
            Some(Ring::Packed(ring)) => RingState::Packed(*ring),
        };
        Self { place: *place, ring, life: *life }
    }

    /// The queue of this form, if a queue of at most `size_max` entries can have it under these
    /// features.
    pub(in crate::virtio) fn queue(self, size_max: u16, form: RingForm) -> Option<Queue> {
        let Self { place, ring, life } = self;
        let ring = match (ring, form) {
            (RingState::Off, _) => return Some(Queue { size_max, place, ring: None, life }),
            (RingState::Split(ring), RingForm::Split) => Ring::Split(ring),
            (RingState::Packed(ring), RingForm::Packed) => Ring::Packed(ring),
            (RingState::Split(_), RingForm::Packed) | (RingState::Packed(_), RingForm::Split) => {
                return None;
            }
        };
        place.check(form, size_max).ok()?;
        let fits = match &ring {
            Ring::Split(ring) => ring.in_flight() <= place.size,
            Ring::Packed(ring) => ring.fits(place.size),
        };
        fits.then_some(Queue { size_max, place, ring: Some(ring), life })
    }
}
