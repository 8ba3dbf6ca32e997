//! The packed ring (virtio 1.2 §2.8): one ring of descriptors, which each side marks as its own by
//! two bits that change their meaning each time round.

use core::sync::atomic::{Ordering, fence};

use kasane_spec_virtio::feature;
use kasane_spec_virtio::ring::{DESCRIPTOR_LEN, flag, packed};

use super::chain::{Chain, ChainBuilder, ChainId, Descriptor};
use super::error::QueueError;
use super::place::Ground;

/// Offset of the flags in a descriptor.
const FLAGS: u64 = 14;

/// A place in the ring, and how often it was gone round, modulo 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Position {
    index: u16,
    /// The wrap counter.
    wrap: bool,
}

impl Position {
    const START: Self = Self { index: 0, wrap: true };

    fn forward(self, by: u16, size: u16) -> Self {
        match self.index.wrapping_add(by).checked_sub(size) {
            Some(index) => Self { index, wrap: !self.wrap },
            None => Self { index: self.index.wrapping_add(by), wrap: self.wrap },
        }
    }
    fn back(self, by: u16, size: u16) -> Self {
        match self.index.checked_sub(by) {
            Some(index) => Self { index, wrap: self.wrap },
            None => {
                let index = self.index.wrapping_add(size).wrapping_sub(by);
                Self { index, wrap: !self.wrap }
            }
        }
    }
    /// As in an event suppression structure.
    fn event(self) -> u16 {
        self.index | if self.wrap { packed::EVENT_WRAP } else { 0 }
    }
    fn of_event(event: u16) -> Self {
        let wrap = event & packed::EVENT_WRAP != 0;
        Self { index: event & !packed::EVENT_WRAP, wrap }
    }
    /// Steps from `before` to here, in a ring that is gone round twice until it is the same.
    fn after(self, before: Self, size: u16) -> u32 {
        let turn = 2 * u32::from(size);
        let place = |p: Self| u32::from(p.index) + if p.wrap { 0 } else { u32::from(size) };
        (place(self) + turn - place(before) % turn) % turn
    }
}

/// The device's side of a packed ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct PackedRing {
    /// The next descriptor to take.
    avail: Position,
    /// The next descriptor to mark as used.
    used: Position,
    /// Descriptors that went back since it was last decided whether to interrupt.
    unsignalled: u32,
    /// Descriptors that were taken and not given back.
    in_flight: u16,
    /// The driver was told to be quiet.
    hushed: bool,
}

impl Default for PackedRing {
    fn default() -> Self {
        let start = Position::START;
        Self { avail: start, used: start, unsignalled: 0, in_flight: 0, hushed: false }
    }
}

impl PackedRing {
    pub(super) const fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// Whether the positions are in a ring of `size`.
    pub(super) fn fits(&self, size: u16) -> bool {
        self.avail.index < size && self.used.index < size && self.in_flight <= size
    }

    fn waiting(&self, on: Ground<'_>) -> Result<bool, QueueError> {
        let at = DESCRIPTOR_LEN * u64::from(self.avail.index) + FLAGS;
        let flags = on.memory.load_u16(on.place.descriptors.wrapping_add(at))?;
        let (avail, used) = (flags & flag::AVAIL != 0, flags & flag::USED != 0);
        Ok(avail == self.avail.wrap && used != self.avail.wrap)
    }

    /// Takes the next chain. Where there is none, the driver will notify of the next.
    pub(super) fn pop(&mut self, on: Ground<'_>) -> Result<Option<Chain>, QueueError> {
        if !self.waiting(on)? {
            self.listen(on)?;
            if !self.waiting(on)? {
                return Ok(None);
            }
        }
        self.hush(on)?;
        let chain = self.read_chain(on)?;
        self.avail = self.avail.forward(chain.id.descriptors, on.place.size);
        self.in_flight = self.in_flight.saturating_add(chain.id.descriptors);
        Ok(Some(chain))
    }

    /// Takes back the last `pop`.
    pub(super) fn put_back(&mut self, id: ChainId, size: u16) {
        self.avail = self.avail.back(id.descriptors, size);
        self.in_flight = self.in_flight.saturating_sub(id.descriptors);
    }

    fn read_chain(&self, on: Ground<'_>) -> Result<Chain, QueueError> {
        let mut chain = ChainBuilder::new(on.place.size);
        let mut at = self.avail;
        let mut descriptors: u16 = 0;
        loop {
            descriptors = descriptors.wrapping_add(1);
            if self.in_flight.saturating_add(descriptors) > on.place.size {
                return Err(QueueError::AvailableTwice);
            }
            let descriptor = Descriptor::read(on.memory, on.place.descriptors, at.index)?;
            let (id, flags) = descriptor.packed();
            if flags & flag::INDIRECT != 0 {
                let alone = descriptors == 1 && flags & flag::NEXT == 0;
                if !alone || !on.has(feature::INDIRECT_DESC) {
                    return Err(QueueError::IndirectHere);
                }
                // All of the table is the chain; its NEXT flags mean nothing (§2.8.8).
                for index in 0..descriptor.table_len()? {
                    let entry = Descriptor::read(on.memory, descriptor.address, index)?;
                    chain.add(entry, entry.packed().1)?;
                }
                return Ok(chain.finish(ChainId { id, descriptors, life: 0 }));
            }
            chain.add(descriptor, flags)?;
            if flags & flag::NEXT == 0 {
                return Ok(chain.finish(ChainId { id, descriptors, life: 0 }));
            }
            at = at.forward(1, on.place.size);
        }
    }

    /// Asks for a notification of the next chain.
    fn listen(&mut self, on: Ground<'_>) -> Result<(), QueueError> {
        let mut events = packed::EVENTS_ENABLE;
        if on.has(feature::EVENT_IDX) {
            let at = on.place.device.wrapping_add(packed::EVENT_OFFSET);
            on.memory.store_u16(at, self.avail.event())?;
            events = packed::EVENTS_DESCRIPTOR;
        }
        on.memory.store_u16(on.place.device.wrapping_add(packed::EVENT_FLAGS), events)?;
        self.hushed = false;
        // The wish is out before the ring is looked at again.
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// Asks for none while chains are being taken.
    fn hush(&mut self, on: Ground<'_>) -> Result<(), QueueError> {
        if !self.hushed {
            let flags = on.place.device.wrapping_add(packed::EVENT_FLAGS);
            on.memory.store_u16(flags, packed::EVENTS_DISABLE)?;
            self.hushed = true;
        }
        Ok(())
    }

    /// Gives chains back, all of which the driver sees at once: it looks at them in order, and the
    /// first is marked last.
    pub(super) fn push(
        &mut self,
        on: Ground<'_>,
        chains: &[(ChainId, u32)],
    ) -> Result<(), QueueError> {
        let mut first = None;
        for (id, written) in chains {
            let at = on.place.descriptors.wrapping_add(DESCRIPTOR_LEN * u64::from(self.used.index));
            let value = u64::from(*written) | u64::from(id.id) << 32;
            let [bytes @ .., _, _] = value.to_le_bytes();
            on.memory.write(at.wrapping_add(8), &bytes)?;
            let mut flags = if self.used.wrap { flag::AVAIL | flag::USED } else { 0 };
            if *written != 0 {
                flags |= flag::WRITE;
            }
            if first.is_none() {
                first = Some((at, flags));
            } else {
                on.memory.store_u16(at.wrapping_add(FLAGS), flags)?;
            }
            self.used = self.used.forward(id.descriptors, on.place.size);
            self.unsignalled = self.unsignalled.saturating_add(id.descriptors.into());
            self.in_flight = self.in_flight.saturating_sub(id.descriptors);
        }
        if let Some((at, flags)) = first {
            on.memory.store_u16(at.wrapping_add(FLAGS), flags)?;
        }
        Ok(())
    }

    /// Whether the driver wants to be told of what was given back since the last question.
    pub(super) fn wants_signal(&mut self, on: Ground<'_>) -> Result<bool, QueueError> {
        let passed = core::mem::take(&mut self.unsignalled);
        if passed == 0 {
            return Ok(false);
        }
        // What was given back is out before the wish is looked at.
        fence(Ordering::SeqCst);
        let flags = on.memory.load_u16(on.place.driver.wrapping_add(packed::EVENT_FLAGS))?;
        match flags & packed::EVENTS {
            packed::EVENTS_DISABLE => Ok(false),
            packed::EVENTS_DESCRIPTOR if on.has(feature::EVENT_IDX) => {
                let at = on.place.driver.wrapping_add(packed::EVENT_OFFSET);
                let event = Position::of_event(on.memory.load_u16(at)?);
                let beyond = self.used.after(event, on.place.size);
                Ok((1..=passed).contains(&beyond))
            }
            _ => Ok(true),
        }
    }
}
