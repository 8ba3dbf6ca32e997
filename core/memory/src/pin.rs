//! Guest memory that a home lends to asynchronous requests (DESIGN §4): the host reads or fills it
//! while the guest runs, and without a copy in between.
//!
//! [`Ram::pin`] checks the ranges once and gives [`PinnedMemory`], which holds the slot list: the
//! host memory stays where it is as long as the request is under way, even if the slot is removed
//! from the map meanwhile. It gives addresses only, never references.
//!
//! # Why the code map stays exact
//! Bytes that the host writes into pinned memory may be code. The rule of the code map is: first
//! the bytes, then a look at the page's flag ([`PageState`](crate::PageState)). Whoever wrote the
//! bytes (this thread in a system call, a thread of the kernel, a device), it was done when its
//! completion was seen, and what comes before a completion happens before whoever saw it. So the
//! request's owner, once it has seen the completion, notes the write, and that does a full fence
//! before it looks at the flag. It is one side of Dekker's protocol: *bytes, fence, flag*. The
//! other is whoever marks a page as code: *flag, barrier, bytes*. One of both sees what the other
//! did. The fence makes this side right by itself: unlike a vCPU's store it doesn't count on the
//! marker's `HeavyBarrier` to reach the thread it is on, which may be no vCPU's.
//!
//! Between the bytes and the note, code that was made from the old bytes may still run: the
//! request isn't complete, so the guest can't know yet that its memory has changed. Code that was
//! made from half of the new bytes is marked already, and the note raises its page's version.
//!
//! The dirty log is told at the same point, so a subscriber that takes a mark too early gets
//! another one. A note that is forgotten would be a wrong translation, much later: so there is no
//! way to forget it. It is made when the memory is let go, for all of it if nobody said how much
//! was written.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};

use kasane_ports::GuestRange;

use crate::port::MemoryError;
use crate::ram::{Ram, copy_bytes, fill_bytes};
use crate::slot::SlotList;

/// What the host does with pinned memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinAccess {
    /// It reads: data goes from the guest to a backend.
    HostReads,
    /// It writes: data goes from a backend to the guest. The memory must be RAM.
    HostWrites,
}

/// A piece of pinned memory by its host address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinnedPiece {
    /// First byte, valid as long as the [`PinnedMemory`] that gave it. Never to be made a
    /// reference of: the guest changes the bytes at any time.
    pub host: *mut u8,
    /// Bytes, at least one.
    pub len: usize,
}

struct Piece {
    gpa: u64,
    at: PinnedPiece,
}

/// Guest memory whose host addresses stay valid until it is dropped.
pub struct PinnedMemory {
    list: Arc<SlotList>,
    pieces: Vec<Piece>,
    len: u64,
    /// Bytes from the beginning that are noted as written on drop.
    to_note: u64,
}

// SAFETY: the pointers go into slots that `list` keeps alive, which are Send + Sync; they are only
// ever used for raw accesses that may race with the guest's.
unsafe impl Send for PinnedMemory {}
// SAFETY: as above; nothing changes through a shared reference but guest memory itself.
unsafe impl Sync for PinnedMemory {}

impl Ram {
    /// Lends these ranges, in this order, to a request of the host's.
    ///
    /// # Errors
    /// `Unmapped` if a byte of them is no memory, `ReadOnly` if the host wants to write to a ROM.
    pub fn pin(
        &self,
        ranges: &[GuestRange],
        access: PinAccess,
    ) -> Result<PinnedMemory, MemoryError> {
        let write = access == PinAccess::HostWrites;
        let list = self.slots();
        let mut pieces = Vec::with_capacity(ranges.len());
        let mut total = 0u64;
        for range in ranges {
            let (mut gpa, mut left) = (range.gpa, u64::from(range.len));
            total = total.saturating_add(left);
            let unmapped = MemoryError::Unmapped { gpa, len: left };
            while left > 0 {
                let (slot, offset) = list.find(gpa).ok_or(unmapped)?;
                let part = slot.len().saturating_sub(offset).min(left);
                let (_, _, host) = list.range(gpa, part, write)?;
                pieces.push(Piece { gpa, at: PinnedPiece { host, len: part as usize } });
                left = left.saturating_sub(part);
                // The end of the address space is behind every slot.
                gpa = gpa.wrapping_add(part);
            }
        }
        let to_note = if write { total } else { 0 };
        Ok(PinnedMemory { list, pieces, len: total, to_note })
    }
}

impl PinnedMemory {
    /// Bytes in all.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// The pieces in order. What the host does with them must be done before `self` is dropped.
    pub fn pieces(&self) -> impl Iterator<Item = PinnedPiece> {
        self.pieces.iter().map(|piece| piece.at)
    }
    /// The pieces from byte `skip` on.
    pub fn pieces_from(&self, skip: u64) -> impl Iterator<Item = PinnedPiece> {
        let mut skip = skip;
        self.pieces().filter_map(move |piece| {
            let passed = skip.min(piece.len as u64);
            skip = skip.saturating_sub(passed);
            let len = piece.len.saturating_sub(passed as usize);
            // SAFETY: `passed` is no more than the piece's length.
            let host = unsafe { piece.host.add(passed as usize) };
            (len > 0).then_some(PinnedPiece { host, len })
        })
    }
    /// Copies from byte `from` on into `buf`; gives how many bytes there were.
    pub fn copy_to(&self, from: u64, buf: &mut [u8]) -> usize {
        let mut done = 0usize;
        for piece in self.pieces_from(from) {
            let Some(into) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) else { break };
            let len = piece.len.min(into.len());
            // SAFETY: `len` bytes are in the piece and in `into`; guest memory and a buffer of the
            // host's don't overlap; a racing guest write gives torn bytes, as on hardware.
            unsafe { copy_bytes(into.as_mut_ptr(), piece.host, len) };
            done = done.saturating_add(len);
        }
        done
    }
    /// Copies `data` to byte `to` and on; gives how many bytes there was room for, which is none
    /// if it was pinned for reading.
    pub fn copy_from(&self, to: u64, data: &[u8]) -> usize {
        let mut done = 0usize;
        for piece in self.writable_from(to) {
            let Some(from) = data.get(done..).filter(|rest| !rest.is_empty()) else { break };
            let len = piece.len.min(from.len());
            // SAFETY: as in `copy_to`; the slot is RAM, as `pin` checked.
            unsafe { copy_bytes(piece.host, from.as_ptr(), len) };
            done = done.saturating_add(len);
        }
        done
    }
    /// Fills `len` bytes from byte `to` on with zeros, as far as there are that many and they may
    /// be written.
    pub fn zero(&self, to: u64, len: u64) {
        let mut left = len;
        for piece in self.writable_from(to) {
            let part = left.min(piece.len as u64);
            // SAFETY: `part` bytes are in the piece, and the slot is RAM.
            unsafe { fill_bytes(piece.host, 0, part as usize) };
            left = left.saturating_sub(part);
        }
    }
    fn writable_from(&self, to: u64) -> impl Iterator<Item = PinnedPiece> {
        let none = self.to_note == 0;
        self.pieces_from(to).take_while(move |_| !none)
    }
    /// Lets it go after the host wrote no more than its first `bytes` bytes, and notes those as
    /// written. Dropping it notes all of them.
    pub fn written(mut self, bytes: u64) {
        self.to_note = self.to_note.min(bytes);
    }
    fn note(&self) {
        // The module's head says why.
        fence(Ordering::SeqCst);
        let mut left = self.to_note;
        for piece in &self.pieces {
            let part = left.min(piece.at.len as u64);
            if let Some((slot, offset)) = self.list.find(piece.gpa) {
                slot.note_write(offset, part);
            }
            left = left.saturating_sub(part);
        }
    }
}

impl Drop for PinnedMemory {
    fn drop(&mut self) {
        if self.to_note > 0 {
            self.note();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::GuestMemory;
    use crate::slot::{RamSlot, SlotKind};
    use crate::{AllocatedRam, PageState};
    use alloc::boxed::Box;
    use alloc::vec;

    fn ram() -> Ram {
        Ram::new(vec![
            RamSlot::allocated(0x1000, 0x1000),
            RamSlot::allocated(0x2000, 0x2000),
            RamSlot::with_kind(0x10_0000, SlotKind::Rom, Box::new(AllocatedRam::new(0x1000))),
        ])
    }

    const fn range(gpa: u64, len: u32) -> GuestRange {
        GuestRange { gpa, len }
    }

    fn page(list: &SlotList, gpa: u64) -> &PageState {
        let (slot, offset) = list.find(gpa).unwrap();
        slot.page(offset).unwrap()
    }

    #[test]
    fn ranges_are_lent_in_order_and_split_where_slots_end() {
        let ram = ram();
        ram.write(0x1FFE, &[1, 2, 3, 4]).unwrap();
        ram.write(0x3000, &[9, 8]).unwrap();

        let pinned = ram.pin(&[range(0x3000, 2), range(0x1FFE, 4)], PinAccess::HostReads).unwrap();
        let lens: Vec<_> = pinned.pieces().map(|piece| piece.len).collect();
        let rest: Vec<_> = pinned.pieces_from(3).map(|piece| piece.len).collect();
        let mut bytes = [0; 8];
        let copied = pinned.copy_to(1, &mut bytes);

        assert_eq!((pinned.len(), lens, rest), (6, vec![2, 2, 2], vec![1, 2]));
        assert_eq!((copied, &bytes[..5]), (5, &[8, 1, 2, 3, 4][..]));
        assert_eq!(pinned.copy_from(0, &[7; 6]), 0, "it was not lent for writing");
    }

    #[test]
    fn what_is_not_there_or_must_not_be_written_is_refused() {
        let ram = ram();
        let refused = |gpa, len, access| ram.pin(&[range(gpa, len)], access).err();

        assert_eq!(
            refused(0x3FFF, 2, PinAccess::HostReads),
            Some(MemoryError::Unmapped { gpa: 0x3FFF, len: 2 })
        );
        assert_eq!(
            refused(u64::MAX, u32::MAX, PinAccess::HostWrites),
            Some(MemoryError::Unmapped { gpa: u64::MAX, len: u32::MAX.into() })
        );
        assert_eq!(
            refused(0x10_0000, 16, PinAccess::HostWrites),
            Some(MemoryError::ReadOnly { gpa: 0x10_0000 })
        );
        assert_eq!(refused(0x10_0000, 16, PinAccess::HostReads), None);
    }

    #[test]
    fn a_write_is_noted_as_far_as_it_went() {
        let ram = ram();
        let list = ram.slots();
        let code = [0x1FC0, 0x2000, 0x3000].map(|gpa| page(&list, gpa));
        for page in code {
            let _ = page.mark_code(0, 4095);
        }
        let versions = || code.map(PageState::version);
        let before = versions();

        let pinned = ram.pin(&[range(0x1800, 0x1900)], PinAccess::HostWrites).unwrap();
        pinned.copy_from(0, &[0x90; 0x900]);
        let during = versions();
        pinned.written(0x900);

        assert_eq!(during, before);
        let changed = [0, 1, 2].map(|n| versions()[n] != before[n]);
        assert_eq!(changed, [true, true, false]);
        assert_eq!(code.map(|page| page.take_dirty(0)), [true, true, false]);
    }

    #[test]
    fn without_a_word_all_of_it_counts_as_written_and_a_read_as_nothing() {
        let ram = ram();
        let list = ram.slots();
        drop(ram.pin(&[range(0x1000, 8)], PinAccess::HostReads).unwrap());
        let read = page(&list, 0x1000).take_dirty(0);
        drop(ram.pin(&[range(0x1000, 8), range(0x3000, 8)], PinAccess::HostWrites).unwrap());

        assert!(!read);
        assert_eq!(
            [0x1000, 0x2000, 0x3000].map(|gpa| page(&list, gpa).take_dirty(0)),
            [true, false, true]
        );
    }

    #[test]
    fn a_removed_slot_stays_until_it_is_let_go() {
        let ram = ram();
        let pinned = ram.pin(&[range(0x2000, 0x1000)], PinAccess::HostWrites).unwrap();

        ram.remove(0x2000);
        let gone = ram.load_u16(0x2000);
        pinned.copy_from(0, &[5; 0x1000]);
        pinned.zero(1, 2);
        let mut bytes = [0; 4];
        pinned.copy_to(0, &mut bytes);

        assert!(gone.is_err());
        assert_eq!(bytes, [5, 0, 0, 5]);
    }
}
