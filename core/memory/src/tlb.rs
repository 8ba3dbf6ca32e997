//! The software TLB: guest-virtual page to host page, per privilege class.
//!
//! It lives here and not in the engine because its entries are host pointers: they are valid as
//! long as the slot list that the TLB holds, which the safe interface guarantees. An entry has a
//! tag of its own for reads, writes and instruction fetches; a tag is the page's address, or a
//! value that no page has where the access must take the slow path (no permission, not yet
//! accessed or dirty, MMIO, read-only memory).
//!
//! # Flushes
//! What was filled is listed, so that a flush costs as much as the fills since the last one, and
//! not as much as the TLB is large. A large page is held in pieces of 4 KiB, but its translation
//! is forgotten as a whole (SDM vol. 3A §5.10.4.1): pieces know their page's size, and a small
//! filter tells whether there may be any of the page that an address lies in.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ptr::null_mut;

use crate::follow::{Flushed, HostPage};
use crate::ram::{Ram, copy_bytes, fill_bytes};
use crate::record::Recorder;
use crate::scalar::Scalar;
use crate::slot::{PageState, SlotKind, SlotList};

const ENTRIES: usize = 2048;
const CLASSES: usize = 3;
/// log2 of the sizes of large pages.
const LARGE: [u8; 3] = [21, 22, 30];
const OFFSET: u64 = 4095;
/// Not page-aligned, so no page has it.
const NONE: u64 = 1;

/// Which rights an access is made with. Each class has entries of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TlbClass {
    /// Supervisor, user pages refused if SMAP is on.
    Supervisor = 0,
    /// User.
    User = 1,
    /// Supervisor with EFLAGS.AC set: SMAP does not apply.
    SupervisorAc = 2,
}

#[derive(Clone, Copy)]
struct TlbEntry {
    read: u64,
    write: u64,
    exec: u64,
    host: *mut u8,
    state: *const PageState,
    /// Guest-physical page; bit 0: global; bits 1-6: log2 of the size of the page that it is a
    /// piece of.
    gpa: u64,
}

impl TlbEntry {
    fn global(&self) -> bool {
        self.gpa & 1 != 0
    }
    fn page_bits(&self) -> u8 {
        (self.gpa >> 1 & 63) as u8
    }
    /// The linear page that it is for.
    fn page(&self) -> Option<u64> {
        [self.read, self.write, self.exec].into_iter().find(|tag| *tag != NONE)
    }
}

/// Which large pages may have pieces here: a set with false hits.
#[derive(Clone, Copy)]
struct LargePages([u64; LARGE_WORDS]);

/// One bit for each 2 MiB of 8 GiB.
const LARGE_WORDS: usize = 64;

impl Default for LargePages {
    fn default() -> Self {
        Self([0; LARGE_WORDS])
    }
}

impl LargePages {
    fn place(va: u64, bits: u8) -> (usize, u64) {
        let hash = (va >> (bits & 63) ^ u64::from(bits) << 48).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((hash >> 58) as usize % LARGE_WORDS, 1 << (hash >> 52 & 63))
    }
    fn insert(&mut self, va: u64, bits: u8) {
        let (word, bit) = Self::place(va, bits);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }
    fn may_hold(&self, va: u64) -> bool {
        LARGE.into_iter().any(|bits| {
            let (word, bit) = Self::place(va, bits);
            self.0.get(word).is_some_and(|word| word & bit != 0)
        })
    }
}

/// The entries that were filled since the list was emptied.
#[derive(Default)]
struct Filled(Vec<u16>);

impl Filled {
    fn note(&mut self, index: usize) {
        // Longer than the TLB it is no help; the one more says so.
        if self.0.len() <= ENTRIES * CLASSES {
            self.0.push(index as u16);
        }
    }
    /// Empties the listed entries that `forget` wants to, and the list.
    fn flush(&mut self, entries: &mut [TlbEntry], forget: impl Fn(&TlbEntry) -> bool) {
        if self.0.len() > ENTRIES * CLASSES {
            entries.iter_mut().filter(|entry| forget(entry)).for_each(|entry| *entry = EMPTY);
        }
        for index in self.0.drain(..) {
            if let Some(entry) = entries.get_mut(usize::from(index)).filter(|entry| forget(entry)) {
                *entry = EMPTY;
            }
        }
    }
}

const EMPTY: TlbEntry = TlbEntry {
    read: NONE,
    write: NONE,
    exec: NONE,
    host: null_mut(),
    state: core::ptr::null(),
    gpa: 0,
};

/// What a page walk found out about a page, for [`SoftTlb::fill`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Guest-physical address of the 4 KiB page.
    pub gpa: u64,
    /// Reads need no walk.
    pub read: bool,
    /// Writes need no walk: permitted, and the dirty bit is set.
    pub write: bool,
    /// Fetches need no walk.
    pub exec: bool,
    /// Survives a change of CR3.
    pub global: bool,
    /// log2 of the size of the page that these 4 KiB are a piece of: 12, 21, 22 or 30.
    pub page_bits: u8,
}

/// What a store did besides storing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Nothing.
    Data,
    /// It hit bytes that code was made from; the page's version was raised.
    Code,
}

/// A page that can be fetched from.
#[derive(Clone, Copy)]
pub struct ExecPage<'a> {
    /// Guest-physical address of the page.
    pub gpa: u64,
    /// Its code map.
    pub state: &'a PageState,
    /// It survives a change of CR3.
    pub global: bool,
}

/// The TLB of one vCPU.
pub struct SoftTlb {
    entries: Box<[TlbEntry]>,
    /// Filled with global pages, and with others.
    filled_global: Filled,
    filled_local: Filled,
    large: LargePages,
    list: Arc<SlotList>,
    ram: Arc<Ram>,
    generation: u64,
    flushed: Flushed,
    /// How much of each slot's code log was told.
    told: Vec<u64>,
    pub(crate) recorder: Option<Box<Recorder>>,
}

// SAFETY: the pointers go into slots that `list` keeps alive, which are Send + Sync.
unsafe impl Send for SoftTlb {}

impl SoftTlb {
    /// An empty TLB over `ram`.
    #[must_use]
    pub fn new(ram: Arc<Ram>) -> Self {
        let generation = ram.generation();
        Self {
            entries: vec![EMPTY; ENTRIES * CLASSES].into_boxed_slice(),
            filled_global: Filled::default(),
            filled_local: Filled::default(),
            large: LargePages::default(),
            list: ram.slots(),
            ram,
            generation,
            flushed: Flushed::All,
            told: Vec::new(),
            recorder: None,
        }
    }
    /// The memory below, without a lock, for page walks.
    #[inline]
    #[must_use]
    pub fn memory(&self) -> &SlotList {
        &self.list
    }
    /// Takes a changed memory map over; true if it had changed (and everything was flushed).
    pub fn refresh(&mut self) -> bool {
        let generation = self.ram.generation();
        if generation == self.generation {
            return false;
        }
        self.flush_all();
        self.generation = generation;
        self.list = self.ram.slots();
        true
    }
    #[inline(always)]
    fn index(class: TlbClass, va: u64) -> usize {
        (class as usize) * ENTRIES + ((va >> 12) as usize & (ENTRIES - 1))
    }
    #[inline(always)]
    fn entry(&self, class: TlbClass, va: u64) -> &TlbEntry {
        // SAFETY: class <= 2 and the masked page number < ENTRIES, so the index is below
        // CLASSES * ENTRIES, the length of the slice.
        unsafe { self.entries.get_unchecked(Self::index(class, va)) }
    }
    /// Loads `T` from `va` if a read there needs no walk and does not cross a page.
    #[inline(always)]
    #[must_use]
    pub fn read<T: Scalar>(&self, class: TlbClass, va: u64) -> Option<T> {
        let entry = self.entry(class, va);
        if entry.read != va & !OFFSET || (va & OFFSET) > 4096 - T::SIZE as u64 {
            return None;
        }
        // SAFETY: a valid tag means that `host` is a page of a slot that `list` keeps alive, and
        // the access stays inside the page.
        Some(unsafe { T::load(entry.host.add((va & OFFSET) as usize)) })
    }
    /// Stores `T` to `va` if a write there needs no walk and does not cross a page.
    #[inline(always)]
    pub fn write<T: Scalar>(&self, class: TlbClass, va: u64, value: T) -> Option<Stored> {
        let (host, state) = self.writable(class, va, T::SIZE as u64)?;
        // SAFETY: `writable` checked the SIZE bytes at `host`.
        unsafe { T::store(host, value) };
        Some(self.stored(class, state, va, T::SIZE as u64))
    }
    /// LOCK CMPXCHG on `va`, under the conditions of `write`; gives the old value.
    #[inline(always)]
    pub fn compare_exchange<T: Scalar>(
        &self,
        class: TlbClass,
        va: u64,
        current: T,
        new: T,
    ) -> Option<(T, Stored)> {
        let (host, state) = self.writable(class, va, T::SIZE as u64)?;
        if T::SIZE == 16 && va & 15 != 0 {
            return None;
        }
        // SAFETY: `writable` checked the SIZE bytes at `host`; 16 bytes are aligned.
        let old = unsafe { T::compare_exchange(host, current, new) };
        Some((old, self.stored(class, state, va, T::SIZE as u64)))
    }
    #[inline(always)]
    fn writable(&self, class: TlbClass, va: u64, len: u64) -> Option<(*mut u8, &PageState)> {
        let entry = self.entry(class, va);
        if entry.write != va & !OFFSET || (va & OFFSET) > 4096 - len {
            return None;
        }
        // SAFETY: a valid tag means that `host` is a page and `state` its state in a slot that
        // `list` keeps alive while `self` is borrowed.
        Some(unsafe { (entry.host.add((va & OFFSET) as usize), &*entry.state) })
    }
    #[inline(always)]
    fn stored(&self, class: TlbClass, state: &PageState, va: u64, len: u64) -> Stored {
        let at = va & OFFSET;
        if state.stored(at, at + len - 1) { self.stored_code(class, va) } else { Stored::Data }
    }
    #[cold]
    fn stored_code(&self, class: TlbClass, va: u64) -> Stored {
        let gpa = self.entry(class, va).gpa & !OFFSET;
        if let Some((slot, _)) = self.list.find(gpa) {
            slot.code_log().note(gpa);
        }
        Stored::Code
    }
    /// Reads `buf.len()` bytes that lie in one page whose reads need no walk.
    pub fn read_bytes(&self, class: TlbClass, va: u64, buf: &mut [u8]) -> Option<()> {
        let entry = self.entry(class, va);
        let len = buf.len() as u64;
        if entry.read != va & !OFFSET || len > 4096 - (va & OFFSET) {
            return None;
        }
        // SAFETY: the range lies in the entry's page; guest memory and `buf` don't overlap.
        unsafe { copy_bytes(buf.as_mut_ptr(), entry.host.add((va & OFFSET) as usize), buf.len()) };
        Some(())
    }
    /// Writes bytes that lie in one page whose writes need no walk.
    pub fn write_bytes(&self, class: TlbClass, va: u64, data: &[u8]) -> Option<Stored> {
        if data.is_empty() || data.len() > 4096 {
            return None;
        }
        let (host, state) = self.writable(class, va, data.len() as u64)?;
        // SAFETY: `writable` checked the range; guest memory and `data` don't overlap.
        unsafe { copy_bytes(host, data.as_ptr(), data.len()) };
        Some(self.stored(class, state, va, data.len() as u64))
    }
    /// Fills `len` bytes that lie in one page whose writes need no walk.
    pub fn fill_bytes(&self, class: TlbClass, va: u64, byte: u8, len: u64) -> Option<Stored> {
        if len == 0 || len > 4096 {
            return None;
        }
        let (host, state) = self.writable(class, va, len)?;
        // SAFETY: `writable` checked the range.
        unsafe { fill_bytes(host, byte, len as usize) };
        Some(self.stored(class, state, va, len))
    }
    /// Copies `len` bytes upwards between two ranges that each lie in one page and need no walk,
    /// as REP MOVSB does it (byte by byte, so overlap replicates).
    pub fn copy(&self, class: TlbClass, dst: u64, src: u64, len: u64) -> Option<Stored> {
        let from = self.entry(class, src);
        if len == 0 || len > 4096 || from.read != src & !OFFSET || (src & OFFSET) > 4096 - len {
            return None;
        }
        let (host, state) = self.writable(class, dst, len)?;
        // SAFETY: both ranges were checked; REP MOVSB defines overlap as byte-wise ascending.
        unsafe { copy_bytes(host, from.host.add((src & OFFSET) as usize), len as usize) };
        Some(self.stored(class, state, dst, len))
    }
    /// The page at `va` if a fetch there needs no walk.
    #[inline(always)]
    #[must_use]
    pub fn exec(&self, class: TlbClass, va: u64) -> Option<ExecPage<'_>> {
        let entry = self.entry(class, va);
        if entry.exec != va & !OFFSET {
            return None;
        }
        // SAFETY: as in `writable`.
        let state = unsafe { &*entry.state };
        Some(ExecPage { gpa: entry.gpa & !OFFSET, state, global: entry.global() })
    }
    /// Enters a page. False if there is no RAM or ROM at `fill.gpa` (MMIO): then nothing changes.
    pub fn fill(&mut self, class: TlbClass, va: u64, fill: Fill) -> bool {
        let gpa = fill.gpa & !OFFSET;
        let Some((slot, offset)) = self.list.find(gpa) else { return false };
        let (Some(host), Some(state)) = (slot.host(offset, 4096), slot.page(offset)) else {
            return false;
        };
        let write = fill.write && slot.kind() == SlotKind::Ram;
        if write {
            state.mark_dirty();
        }
        let page = va & !OFFSET;
        if let Some(recorder) = &mut self.recorder {
            recorder.filled(&self.list, (class, page), gpa, write);
        }
        let tag = |allowed: bool| if allowed { page } else { NONE };
        let entry = TlbEntry {
            read: tag(fill.read),
            write: tag(write),
            exec: tag(fill.exec),
            host,
            state,
            gpa: gpa | u64::from(fill.page_bits & 63) << 1 | u64::from(fill.global),
        };
        let index = Self::index(class, va);
        if let Some(place) = self.entries.get_mut(index) {
            *place = entry;
        }
        if fill.global {
            self.filled_global.note(index);
        } else {
            self.filled_local.note(index);
        }
        if fill.page_bits > 12 {
            self.large.insert(page, fill.page_bits);
        }
        true
    }
    /// Forgets everything.
    pub fn flush_all(&mut self) {
        self.flushed = Flushed::All;
        self.filled_global.flush(&mut self.entries, |_| true);
        self.filled_local.flush(&mut self.entries, |_| true);
        self.large = LargePages::default();
    }
    /// Forgets all but global pages.
    pub fn flush_non_global(&mut self) {
        self.flushed.local();
        self.filled_local.flush(&mut self.entries, |entry| !entry.global());
    }
    /// Forgets the page at `va` in every class, whatever its size was when it was entered.
    pub fn flush_page(&mut self, va: u64) {
        self.flushed.page(va & !OFFSET);
        if self.large.may_hold(va) {
            self.flush_large(va);
        }
        for class in [TlbClass::Supervisor, TlbClass::User, TlbClass::SupervisorAc] {
            let entry = self.entries.get_mut(Self::index(class, va));
            if let Some(entry) = entry.filter(|entry| entry.page() == Some(va & !OFFSET)) {
                *entry = EMPTY;
            }
        }
    }
    #[cold]
    fn flush_large(&mut self, va: u64) {
        self.large = LargePages::default();
        for entry in &mut self.entries {
            let (Some(page), bits) = (entry.page(), entry.page_bits()) else { continue };
            if bits > 12 && (page ^ va) >> bits == 0 {
                self.flushed = Flushed::All;
                *entry = EMPTY;
            } else if bits > 12 {
                self.large.insert(page, bits);
            }
        }
    }
}

/// For records of what is written.
impl SoftTlb {
    /// The page at `va` can't be written until it is entered again.
    pub(crate) fn refuse_writes(&mut self, class: TlbClass, va: u64) {
        let entry = self.entries.get_mut(Self::index(class, va));
        if let Some(entry) = entry.filter(|entry| entry.write == va) {
            entry.write = NONE;
        }
    }
    /// Forgets the page at `va` in one class.
    pub(crate) fn forget_entry(&mut self, class: TlbClass, va: u64) {
        let entry = self.entries.get_mut(Self::index(class, va));
        if let Some(entry) = entry.filter(|entry| entry.page() == Some(va)) {
            *entry = EMPTY;
        }
    }
}

/// For engines that keep translations of their own.
impl SoftTlb {
    /// What was flushed since the last call.
    pub fn take_flushes(&mut self) -> Flushed {
        core::mem::take(&mut self.flushed)
    }
    /// Host address of a page that can be fetched from; 0 if the TLB doesn't have it.
    #[must_use]
    pub fn exec_host(&self, class: TlbClass, va: u64) -> u64 {
        let entry = self.entry(class, va);
        if entry.exec == va & !OFFSET { entry.host as u64 } else { 0 }
    }
    /// Whether there is something to follow: flushes, or changes of code.
    #[inline]
    #[must_use]
    pub fn moved(&self) -> bool {
        let known = self.told.iter().copied().chain(core::iter::repeat(0));
        self.flushed != Flushed::Nothing
            || self
                .list
                .slots()
                .iter()
                .zip(known)
                .any(|(slot, told)| slot.code_log().count() != told)
    }
    /// The guest-physical pages in which code was overwritten, by anybody, since the last call:
    /// `None` for none, `Some(None)` if it is not known which.
    pub fn take_code_changes(&mut self) -> Option<Option<Vec<u64>>> {
        let slots = self.list.slots();
        let known = self.told.iter().copied().chain(core::iter::repeat(0));
        if slots.iter().zip(known).all(|(slot, told)| slot.code_log().count() == told) {
            return None;
        }
        let mut changes = Some(Vec::new());
        self.told.resize(slots.len(), 0);
        for (slot, told) in slots.iter().zip(&mut self.told) {
            let so_far = changes.as_mut().and_then(|pages| slot.code_log().since(*told, pages));
            if so_far.is_none() {
                changes = None;
            }
            *told = so_far.unwrap_or_else(|| slot.code_log().count());
        }
        Some(changes)
    }
    /// The version of a guest-physical page's code; `None` if there is no memory.
    #[must_use]
    pub fn page_version(&self, gpa: u64) -> Option<u32> {
        let (slot, offset) = self.list.find(gpa)?;
        slot.page(offset).map(PageState::version)
    }
    /// Lets the page at `va` be no code any more if nothing of it is left. Whether it is so.
    pub fn forget_code(&self, class: TlbClass, va: u64) -> bool {
        let entry = self.entry(class, va);
        // SAFETY: a valid tag means that `state` is the page's state in a slot that `list` keeps.
        entry.write == va & !OFFSET && unsafe { (*entry.state).forget_code() }
    }
    /// The page at `va` as the TLB has it.
    #[must_use]
    pub fn host_page(&self, class: TlbClass, va: u64) -> Option<HostPage> {
        let entry = self.entry(class, va);
        let page = va & !OFFSET;
        let (read, write) = (entry.read == page, entry.write == page);
        if !read && !write {
            return None;
        }
        // SAFETY: a valid tag means that `state` is the page's state in a slot that `list` keeps.
        let code = unsafe { (*entry.state).is_code() };
        Some(HostPage { host: entry.host, read, write, code, global: entry.global() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::RamSlot;

    fn tlb() -> SoftTlb {
        SoftTlb::new(Arc::new(Ram::new(vec![RamSlot::allocated(0, 0x4000)])))
    }

    const RW: Fill =
        Fill { gpa: 0x1000, read: true, write: true, exec: false, global: false, page_bits: 12 };

    #[test]
    fn an_access_hits_only_what_was_filled_for_it() {
        let mut tlb = tlb();
        assert!(tlb.fill(TlbClass::User, 0x7000, RW));
        assert_eq!(tlb.write(TlbClass::User, 0x7008, 0x55u32), Some(Stored::Data));
        assert_eq!(tlb.read::<u32>(TlbClass::User, 0x7008), Some(0x55));
        assert_eq!(tlb.read::<u32>(TlbClass::Supervisor, 0x7008), None);
        assert_eq!(tlb.read::<u32>(TlbClass::User, 0x7FFE), None);
        assert!(tlb.exec(TlbClass::User, 0x7000).is_none());
    }

    #[test]
    fn mmio_is_never_entered() {
        let mut tlb = tlb();
        assert!(!tlb.fill(TlbClass::User, 0x7000, Fill { gpa: 0xFEE0_0000, ..RW }));
        assert_eq!(tlb.read::<u8>(TlbClass::User, 0x7000), None);
    }

    #[test]
    fn flushes_forget_what_they_say() {
        let mut tlb = tlb();
        tlb.fill(TlbClass::User, 0x7000, RW);
        tlb.fill(TlbClass::User, 0x8000, Fill { global: true, ..RW });
        tlb.flush_non_global();
        assert_eq!(tlb.read::<u8>(TlbClass::User, 0x7000), None);
        assert!(tlb.read::<u8>(TlbClass::User, 0x8000).is_some());
        tlb.flush_page(0x8123);
        assert_eq!(tlb.read::<u8>(TlbClass::User, 0x8000), None);
    }

    #[test]
    fn a_large_page_is_forgotten_whole_and_alone() {
        let mut tlb = tlb();
        let (user, supervisor) = (TlbClass::User, TlbClass::Supervisor);
        let large = Fill { page_bits: 21, global: true, ..RW };
        tlb.fill(user, 0x20_0000, large);
        tlb.fill(supervisor, 0x3F_F000, large);
        tlb.fill(user, 0x40_1000, large);
        tlb.fill(user, 0x30_2000, RW);
        let held = |tlb: &SoftTlb| {
            [(user, 0x20_0000), (supervisor, 0x3F_F000), (user, 0x40_1000), (user, 0x30_2000)]
                .map(|(class, va)| tlb.read::<u8>(class, va).is_some())
        };

        tlb.flush_page(0x50_0000);
        let other = held(&tlb);
        tlb.flush_page(0x20_5000);
        let first = held(&tlb);
        tlb.flush_page(0x5F_FFFF);

        assert_eq!(other, [true, true, false, true]);
        assert_eq!(first, [false, false, false, true]);
        assert_eq!(held(&tlb), [false, false, false, true]);
    }

    #[test]
    fn more_fills_than_entries_are_all_forgotten() {
        let mut tlb = tlb();
        for page in 0..9000u64 {
            tlb.fill(TlbClass::User, page << 12, Fill { global: page % 7 == 0, ..RW });
        }
        let held = |tlb: &SoftTlb| {
            (0..9000u64).filter(|page| tlb.read::<u8>(TlbClass::User, page << 12).is_some()).count()
        };

        let before = held(&tlb);
        tlb.flush_non_global();
        let global = held(&tlb);
        tlb.flush_all();

        assert_eq!((before, held(&tlb)), (ENTRIES, 0));
        assert!((ENTRIES / 8..ENTRIES / 6).contains(&global), "{global}");
    }

    #[test]
    fn a_changed_map_is_taken_over() {
        let ram = Arc::new(Ram::new(vec![RamSlot::allocated(0, 0x2000)]));
        let mut tlb = SoftTlb::new(ram.clone());
        tlb.fill(TlbClass::User, 0, Fill { gpa: 0, ..RW });
        ram.remove(0);
        assert!(tlb.refresh());
        assert_eq!(tlb.read::<u8>(TlbClass::User, 0), None);
        assert!(!tlb.fill(TlbClass::User, 0, Fill { gpa: 0, ..RW }));
    }
}
