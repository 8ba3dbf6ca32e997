//! Queues (virtio 1.2 §2.6): the driver makes chains of buffers available, the device takes them
//! ([`Queue::pop`]) and gives them back ([`Queue::push`]).
//!
//! # Notifications
//! While a device takes chains, the driver is asked not to notify; when there are none left, to
//! notify of the next, after which the ring is looked at once more. So a device that gets `None`
//! will be notified, and one that stops before that must come back of its own accord.
//!
//! # Hostile drivers
//! A driver that makes more available than it has, loops its chains or points nowhere gets a
//! [`QueueError`]: the device then needs a reset. At most `size` chains are out at any time, which
//! bounds what a device holds. What the device reads it reads once.

mod chain;
mod error;
mod packed;
mod place;
mod ranges;
mod saved;
mod split;
#[cfg(test)]
mod tests;

pub use chain::{CHAIN_MAX, Chain, ChainId};
pub use error::QueueError;
pub use place::{QueuePlace, RingForm};
pub use ranges::{gather, len, part, scatter};
pub(super) use saved::QueueForm;

use alloc::vec::Vec;

use kasane_memory::GuestMemory;

use packed::PackedRing;
use place::Ground;
use split::SplitRing;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ring {
    Split(SplitRing),
    Packed(PackedRing),
}

/// One queue of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    size_max: u16,
    place: QueuePlace,
    /// There once the driver has switched it on.
    ring: Option<Ring>,
    /// Counts resets: chains of before are of no use.
    life: u16,
}

impl Queue {
    /// A queue that is off, with at most `size_max` entries (a power of two).
    #[must_use]
    pub fn new(size_max: u16) -> Self {
        let place = QueuePlace { size: size_max, ..QueuePlace::default() };
        Self { size_max, place, ring: None, life: 0 }
    }

    /// The most entries.
    #[must_use]
    pub const fn size_max(&self) -> u16 {
        self.size_max
    }

    /// Where it is, or will be.
    #[must_use]
    pub const fn place(&self) -> QueuePlace {
        self.place
    }

    /// Whether it is on.
    #[must_use]
    pub const fn is_enabled(&self) -> bool {
        self.ring.is_some()
    }

    /// Chains (split) or descriptors (packed) that the device has.
    #[must_use]
    pub const fn in_flight(&self) -> u16 {
        match &self.ring {
            None => 0,
            Some(Ring::Split(ring)) => ring.in_flight(),
            Some(Ring::Packed(ring)) => ring.in_flight(),
        }
    }

    /// Says where it will be. A queue that is on stays where it is (§4.1.4.3.2).
    pub fn set_place(&mut self, place: QueuePlace) {
        if self.ring.is_none() {
            self.place = place;
        }
    }

    /// Switches it on, from its first entry.
    ///
    /// # Errors
    /// `BadPlace`.
    pub fn enable(&mut self, form: RingForm) -> Result<(), QueueError> {
        if self.ring.is_some() {
            return Ok(());
        }
        self.place.check(form, self.size_max)?;
        self.ring = Some(match form {
            RingForm::Split => Ring::Split(SplitRing::default()),
            RingForm::Packed => Ring::Packed(PackedRing::default()),
        });
        Ok(())
    }

    /// As it was made. What is out is forgotten.
    pub fn reset(&mut self) {
        *self = Self { life: self.life.wrapping_add(1), ..Self::new(self.size_max) };
    }

    fn parts<'a>(
        &mut self,
        memory: &'a dyn GuestMemory,
        features: u64,
    ) -> Option<(&mut Ring, Ground<'a>)> {
        let on = Ground { memory, place: self.place, features };
        self.ring.as_mut().map(|ring| (ring, on))
    }

    /// Takes the next chain; `None` if there is none, or the queue is off.
    ///
    /// # Errors
    /// The ring makes no sense.
    pub fn pop(
        &mut self,
        memory: &dyn GuestMemory,
        features: u64,
    ) -> Result<Option<Chain>, QueueError> {
        let life = self.life;
        let chain = match self.parts(memory, features) {
            None => return Ok(None),
            Some((Ring::Split(ring), on)) => ring.pop(on)?,
            Some((Ring::Packed(ring), on)) => ring.pop(on)?,
        };
        Ok(chain.map(|chain| Chain { id: ChainId { life, ..chain.id }, ..chain }))
    }

    /// Takes back the last `pop`: the chain will come again. Several go back in reverse order,
    /// and none that was taken before one that was pushed.
    pub fn put_back(&mut self, id: ChainId) {
        if id.life != self.life {
            return;
        }
        match &mut self.ring {
            None => {}
            Some(Ring::Split(ring)) => ring.put_back(),
            Some(Ring::Packed(ring)) => ring.put_back(id, self.place.size),
        }
    }

    /// Gives chains back, with the bytes that the device has written of each, from the beginning of
    /// its writable part on. The driver sees all of them at once. A chain that was taken before
    /// the last reset goes nowhere.
    ///
    /// # Errors
    /// The ring is not in memory.
    pub fn push(
        &mut self,
        memory: &dyn GuestMemory,
        features: u64,
        used: &[(ChainId, u32)],
    ) -> Result<(), QueueError> {
        let life = self.life;
        if used.iter().any(|(id, _)| id.life != life) {
            let alive: Vec<_> = used.iter().copied().filter(|(id, _)| id.life == life).collect();
            return if alive.is_empty() { Ok(()) } else { self.push(memory, features, &alive) };
        }
        match self.parts(memory, features) {
            None => Ok(()),
            Some((Ring::Split(ring), on)) => ring.push(on, used),
            Some((Ring::Packed(ring), on)) => ring.push(on, used),
        }
    }

    /// Whether the driver wants an interrupt for what was pushed since this was last asked.
    ///
    /// # Errors
    /// The ring is not in memory.
    pub fn wants_signal(
        &mut self,
        memory: &dyn GuestMemory,
        features: u64,
    ) -> Result<bool, QueueError> {
        match self.parts(memory, features) {
            None => Ok(false),
            Some((Ring::Split(ring), on)) => ring.wants_signal(on),
            Some((Ring::Packed(ring), on)) => ring.wants_signal(on),
        }
    }
}
