//! The split ring (virtio 1.2 §2.7).

use core::sync::atomic::{Ordering, fence};

use kasane_spec_virtio::feature;
use kasane_spec_virtio::ring::{flag, split};

use super::chain::{Chain, ChainBuilder, ChainId, Descriptor};
use super::error::QueueError;
use super::place::{Ground, passes};

/// The device's side of a split ring. The place was checked, so offsets can't overflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct SplitRing {
    /// The next available entry to take.
    next_avail: u16,
    /// The next used entry to fill.
    next_used: u16,
    /// `next_used` when it was last decided whether to interrupt.
    signalled: u16,
    /// Chains that were taken and not given back.
    in_flight: u16,
    /// The driver was told to be quiet.
    hushed: bool,
}

impl SplitRing {
    pub(super) const fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// How many chains wait.
    fn waiting(&self, on: Ground<'_>) -> Result<u16, QueueError> {
        let index = on.memory.load_u16(on.place.driver.wrapping_add(split::INDEX))?;
        let by = index.wrapping_sub(self.next_avail);
        if by > on.place.size {
            return Err(QueueError::IndexAhead { by, size: on.place.size });
        }
        Ok(by)
    }

    /// Takes the next chain. Where there is none, the driver will notify of the next.
    pub(super) fn pop(&mut self, on: Ground<'_>) -> Result<Option<Chain>, QueueError> {
        if self.waiting(on)? == 0 {
            self.listen(on)?;
            if self.waiting(on)? == 0 {
                return Ok(None);
            }
        }
        self.hush(on)?;
        if self.in_flight >= on.place.size {
            return Err(QueueError::AvailableTwice);
        }
        let slot = self.next_avail & on.place.size.wrapping_sub(1);
        let entry = split::ENTRIES + split::AVAIL_ENTRY_LEN * u64::from(slot);
        let head = on.memory.load_u16(on.place.driver.wrapping_add(entry))?;
        let chain = read_chain(on, head)?;
        self.next_avail = self.next_avail.wrapping_add(1);
        self.in_flight = self.in_flight.wrapping_add(1);
        Ok(Some(chain))
    }

    /// Takes back the last `pop`.
    pub(super) fn put_back(&mut self) {
        self.next_avail = self.next_avail.wrapping_sub(1);
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Asks for a notification of the next chain.
    fn listen(&mut self, on: Ground<'_>) -> Result<(), QueueError> {
        if on.has(feature::EVENT_IDX) {
            let end = split::ENTRIES + split::USED_ENTRY_LEN * u64::from(on.place.size);
            on.memory.store_u16(on.place.device.wrapping_add(end), self.next_avail)?;
        } else if self.hushed {
            on.memory.store_u16(on.place.device.wrapping_add(split::FLAGS), 0)?;
            self.hushed = false;
        }
        // The wish is out before the index is looked at again.
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// Asks for none while chains are being taken. With event indices, the last wish is in the
    /// past already.
    fn hush(&mut self, on: Ground<'_>) -> Result<(), QueueError> {
        if !self.hushed && !on.has(feature::EVENT_IDX) {
            let flags = on.place.device.wrapping_add(split::FLAGS);
            on.memory.store_u16(flags, split::NO_NOTIFY)?;
            self.hushed = true;
        }
        Ok(())
    }

    /// Gives chains back, all of which the driver sees at once.
    pub(super) fn push(
        &mut self,
        on: Ground<'_>,
        chains: &[(ChainId, u32)],
    ) -> Result<(), QueueError> {
        for (id, written) in chains {
            let slot = self.next_used & on.place.size.wrapping_sub(1);
            let entry = split::ENTRIES + split::USED_ENTRY_LEN * u64::from(slot);
            let value = u64::from(id.id) | u64::from(*written) << 32;
            on.memory.write(on.place.device.wrapping_add(entry), &value.to_le_bytes())?;
            self.next_used = self.next_used.wrapping_add(1);
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        on.memory.store_u16(on.place.device.wrapping_add(split::INDEX), self.next_used)?;
        Ok(())
    }

    /// Whether the driver wants to be told of what was given back since the last question.
    pub(super) fn wants_signal(&mut self, on: Ground<'_>) -> Result<bool, QueueError> {
        let (old, new) = (self.signalled, self.next_used);
        self.signalled = new;
        if old == new {
            return Ok(false);
        }
        // The index is out before the wish is looked at.
        fence(Ordering::SeqCst);
        if on.has(feature::EVENT_IDX) {
            let end = split::ENTRIES + split::AVAIL_ENTRY_LEN * u64::from(on.place.size);
            let event = on.memory.load_u16(on.place.driver.wrapping_add(end))?;
            return Ok(passes(event, new, old));
        }
        let flags = on.memory.load_u16(on.place.driver.wrapping_add(split::FLAGS))?;
        Ok(flags & split::NO_INTERRUPT == 0)
    }
}

/// Reads the chain that begins with descriptor `head`.
fn read_chain(on: Ground<'_>, head: u16) -> Result<Chain, QueueError> {
    let mut chain = ChainBuilder::new(on.place.size);
    let (mut table, mut len) = (on.place.descriptors, on.place.size);
    let mut index = head;
    let mut indirect = false;
    loop {
        if index >= len {
            return Err(QueueError::NoDescriptor { index, len });
        }
        let descriptor = Descriptor::read(on.memory, table, index)?;
        let (flags, next) = descriptor.split();
        if flags & flag::INDIRECT != 0 {
            if indirect || flags & flag::NEXT != 0 || !on.has(feature::INDIRECT_DESC) {
                return Err(QueueError::IndirectHere);
            }
            (table, len, index) = (descriptor.address, descriptor.table_len()?, 0);
            indirect = true;
            continue;
        }
        chain.add(descriptor, flags)?;
        if flags & flag::NEXT == 0 {
            return Ok(chain.finish(ChainId { id: head, descriptors: 1, life: 0 }));
        }
        index = next;
    }
}
