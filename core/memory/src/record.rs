//! What a vCPU writes, page by page, for engines that let two others do the same and compare.
//!
//! A store leaves no trace of its own. But it needs an entry of the software TLB that may be
//! written, and there is none at the beginning of a record: so every page that is stored to is
//! entered first, and that is where its bytes are kept. What goes past the TLB tells by itself
//! ([`SoftTlb::about_to_write`]), and page walks list the entries that they mark. A store costs
//! nothing more for it, whether there is a record or not.

use alloc::boxed::Box;
use alloc::vec::Vec;

use spin::Mutex;

use crate::port::{GuestMemory, MemoryError};
use crate::slot::SlotList;
use crate::tlb::{SoftTlb, TlbClass};

/// Bytes of a page.
const PAGE: usize = 4096;
/// Bytes that are compared at once.
const LINE: usize = 64;

/// A page that may have been written.
pub struct PageRecord {
    /// Guest-physical address.
    pub gpa: u64,
    /// What it held before, unless somebody knows that.
    pub before: Box<[u8; PAGE]>,
    /// What it held when the record was closed.
    pub after: Box<[u8; PAGE]>,
}

/// An entry of a page table that a walk changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Guest-physical address.
    pub gpa: u64,
    /// The entry before.
    pub before: u64,
    /// The bits that were set: accessed, dirty.
    pub set: u64,
    /// Bytes of the entry: 4 or 8.
    pub size: u8,
}

/// What was written from one moment to another.
#[derive(Default)]
pub struct Record {
    /// Entries of the TLB that were made.
    pub fills: Vec<(TlbClass, u64)>,
    /// Marks, in the order in which they were made.
    pub marks: Vec<Mark>,
    /// The first of them are in use.
    pages: Vec<PageRecord>,
    used: usize,
}

impl Record {
    /// The pages that may have been written.
    #[must_use]
    pub fn pages(&self) -> &[PageRecord] {
        self.pages.get(..self.used).unwrap_or_default()
    }
    /// The record of the page at guest-physical address `gpa`.
    #[must_use]
    pub fn page(&self, gpa: u64) -> Option<&PageRecord> {
        self.pages().iter().find(|page| page.gpa == gpa)
    }
    /// The addresses of the pages.
    fn gpas(&self) -> impl Iterator<Item = u64> {
        self.pages().iter().map(|page| page.gpa)
    }
    fn clear(&mut self) {
        self.fills.clear();
        self.marks.clear();
        self.used = 0;
    }
    /// `known`: what these pages hold is not kept.
    fn keep(&mut self, memory: &SlotList, gpa: u64, known: &[u64]) {
        if self.page(gpa).is_some() {
            return;
        }
        if self.pages.len() == self.used {
            let [before, after] = [Box::new([0; PAGE]), Box::new([0; PAGE])];
            self.pages.push(PageRecord { gpa, before, after });
        }
        let Some(page) = self.pages.get_mut(self.used) else { return };
        page.gpa = gpa;
        if known.contains(&gpa) || memory.read(gpa, &mut *page.before).is_ok() {
            self.used = self.used.saturating_add(1);
        }
    }
    /// Notes what the pages hold now.
    fn close(&mut self, memory: &SlotList) {
        for page in self.pages.iter_mut().take(self.used) {
            if memory.read(page.gpa, &mut *page.after).is_err() {
                page.after.copy_from_slice(&*page.before);
            }
        }
    }
    /// Makes memory what it was before: the bytes that changed, and no others, which somebody else
    /// may have written.
    fn undo(&self, memory: &SlotList) {
        for page in self.pages() {
            let (before, after) = (page.before.as_chunks::<LINE>().0, page.after.as_chunks().0);
            for (line, (before, after)) in (page.gpa..).step_by(LINE).zip(before.iter().zip(after))
            {
                if before == after {
                    continue;
                }
                let (before, after) = (before.as_chunks::<8>().0, after.as_chunks::<8>().0);
                for (gpa, (before, after)) in (line..).step_by(8).zip(before.iter().zip(after)) {
                    if before != after {
                        // It was read, so it is there.
                        let _ = memory.write(gpa, before);
                    }
                }
            }
        }
        for mark in self.marks.iter().rev() {
            let after = mark.before | mark.set;
            if mark.size == 4 {
                let (now, then) = (after as u32, mark.before as u32);
                let _ = memory.compare_exchange_u32(mark.gpa, now, then);
            } else {
                let _ = memory.compare_exchange_u64(mark.gpa, after, mark.before);
            }
        }
    }
}

/// A TLB's record at hand.
#[derive(Default)]
pub(crate) struct Recorder {
    record: Record,
    /// Bytes are kept, too.
    open: bool,
    /// Pages whose bytes somebody knows.
    known: Vec<u64>,
    /// Entries that were made for writing since the last record began.
    writable: Vec<(TlbClass, u64)>,
}

impl Recorder {
    /// An entry was made.
    pub(crate) fn filled(&mut self, memory: &SlotList, at: (TlbClass, u64), gpa: u64, write: bool) {
        if write {
            self.writable.push(at);
        }
        if self.open {
            self.record.fills.push(at);
            if write {
                self.record.keep(memory, gpa, &self.known);
            }
        }
    }
}

/// Guest memory for a page walk whose marks are listed.
pub struct MarkedMemory<'a> {
    memory: &'a SlotList,
    marks: Mutex<Vec<Mark>>,
}

impl<'a> MarkedMemory<'a> {
    /// Nothing is marked yet.
    #[must_use]
    pub fn new(memory: &'a SlotList) -> Self {
        Self { memory, marks: Mutex::new(Vec::new()) }
    }
    /// What was marked.
    #[must_use]
    pub fn into_marks(self) -> Vec<Mark> {
        self.marks.into_inner()
    }
    fn note(&self, gpa: u64, (found, current, new): (u64, u64, u64), size: u8) {
        if found == current {
            self.marks.lock().push(Mark { gpa, before: current, set: new & !current, size });
        }
    }
}

impl GuestMemory for MarkedMemory<'_> {
    fn read(&self, gpa: u64, buf: &mut [u8]) -> Result<(), MemoryError> {
        self.memory.read(gpa, buf)
    }
    fn write(&self, gpa: u64, data: &[u8]) -> Result<(), MemoryError> {
        self.memory.write(gpa, data)
    }
    fn fill(&self, gpa: u64, len: u64, byte: u8) -> Result<(), MemoryError> {
        self.memory.fill(gpa, len, byte)
    }
    fn load_u16(&self, gpa: u64) -> Result<u16, MemoryError> {
        self.memory.load_u16(gpa)
    }
    fn load_u32(&self, gpa: u64) -> Result<u32, MemoryError> {
        self.memory.load_u32(gpa)
    }
    fn load_u64(&self, gpa: u64) -> Result<u64, MemoryError> {
        self.memory.load_u64(gpa)
    }
    fn store_u16(&self, gpa: u64, value: u16) -> Result<(), MemoryError> {
        self.memory.store_u16(gpa, value)
    }
    fn store_u32(&self, gpa: u64, value: u32) -> Result<(), MemoryError> {
        self.memory.store_u32(gpa, value)
    }
    fn store_u64(&self, gpa: u64, value: u64) -> Result<(), MemoryError> {
        self.memory.store_u64(gpa, value)
    }
    fn compare_exchange_u32(&self, gpa: u64, current: u32, new: u32) -> Result<u32, MemoryError> {
        let found = self.memory.compare_exchange_u32(gpa, current, new)?;
        self.note(gpa, (found.into(), current.into(), new.into()), 4);
        Ok(found)
    }
    fn compare_exchange_u64(&self, gpa: u64, current: u64, new: u64) -> Result<u64, MemoryError> {
        let found = self.memory.compare_exchange_u64(gpa, current, new)?;
        self.note(gpa, (found, current, new), 8);
        Ok(found)
    }
    fn ram_ranges(&self) -> Vec<(u64, u64)> {
        self.memory.ram_ranges()
    }
}

/// Records of what is written.
impl SoftTlb {
    /// From now on there can be records. Entries may only be written if they were made for a
    /// write ([`SoftTlb::is_recorded`]).
    pub fn start_recording(&mut self) {
        self.flush_all();
        self.recorder = Some(Box::default());
    }
    /// Whether there can be records.
    #[inline]
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.recorder.is_some()
    }
    /// Begins a record. What the pages of the record `known` hold now is not kept again.
    pub fn begin_record(&mut self, known: Option<&Record>) {
        let Some(mut recorder) = self.recorder.take() else { return };
        for (class, va) in recorder.writable.drain(..) {
            self.refuse_writes(class, va);
        }
        recorder.record.clear();
        recorder.known.clear();
        recorder.known.extend(known.into_iter().flat_map(Record::gpas));
        recorder.open = true;
        self.recorder = Some(recorder);
    }
    /// Ends it; it is in `into` then, and what `into` held is used up.
    pub fn end_record(&mut self, into: &mut Record) {
        let Some(mut recorder) = self.recorder.take() else { return };
        recorder.open = false;
        recorder.record.close(self.memory());
        core::mem::swap(&mut recorder.record, into);
        self.recorder = Some(recorder);
    }
    /// Makes memory, and the TLB, what they were before a record that has just ended.
    pub fn undo_record(&mut self, record: &Record) {
        record.undo(self.memory());
        for (class, va) in &record.fills {
            self.forget_entry(*class, *va);
        }
    }
    /// A write past the TLB, within the page at guest-physical address `gpa`, follows.
    pub fn about_to_write(&mut self, gpa: u64) {
        let Some(mut recorder) = self.recorder.take() else { return };
        if recorder.open {
            let gpa = gpa & !(PAGE as u64 - 1);
            recorder.record.keep(self.memory(), gpa, &recorder.known);
        }
        self.recorder = Some(recorder);
    }
    /// A walk set these marks.
    pub fn note_marks(&mut self, marks: &[Mark]) {
        if let Some(recorder) = self.recorder.as_mut().filter(|recorder| recorder.open) {
            recorder.record.marks.extend_from_slice(marks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::RamSlot;
    use crate::tlb::Fill;
    use crate::{Ram, Stored};
    use alloc::sync::Arc;
    use alloc::vec;

    const RW: Fill =
        Fill { gpa: 0x1000, read: true, write: true, exec: false, global: false, page_bits: 12 };

    fn recorded() -> SoftTlb {
        let mut tlb = SoftTlb::new(Arc::new(Ram::new(vec![RamSlot::allocated(0, 0x4000)])));
        tlb.start_recording();
        tlb
    }

    #[test]
    fn a_store_is_recorded_and_undone_with_its_entry() {
        let (mut tlb, mut record) = (recorded(), Record::default());
        tlb.begin_record(None);
        tlb.fill(TlbClass::User, 0x7000, RW);
        let stored = tlb.write(TlbClass::User, 0x7010, 0x55u8);
        tlb.end_record(&mut record);
        let pages: Vec<_> = record
            .pages()
            .iter()
            .map(|page| (page.gpa, page.before[0x10], page.after[0x10]))
            .collect();

        tlb.undo_record(&record);

        assert_eq!((stored, pages), (Some(Stored::Data), vec![(0x1000, 0, 0x55)]));
        assert_eq!(tlb.memory().load_u16(0x1010), Ok(0));
        assert_eq!(tlb.read::<u8>(TlbClass::User, 0x7010), None);
    }

    #[test]
    fn an_entry_of_before_is_not_written_in_a_record_but_read() {
        let mut tlb = recorded();
        tlb.fill(TlbClass::User, 0x7000, RW);
        let before = tlb.write(TlbClass::User, 0x7010, 0x55u8);

        tlb.begin_record(None);

        assert_eq!(before, Some(Stored::Data));
        assert_eq!(tlb.write(TlbClass::User, 0x7010, 0x66u8), None);
        assert_eq!(tlb.read::<u8>(TlbClass::User, 0x7010), Some(0x55));
    }

    #[test]
    fn bytes_that_did_not_change_in_the_record_are_not_undone() {
        let (mut tlb, mut record) = (recorded(), Record::default());
        tlb.begin_record(None);
        tlb.fill(TlbClass::User, 0x7000, RW);
        tlb.write(TlbClass::User, 0x7010, 0x55u8);
        tlb.end_record(&mut record);
        tlb.memory().write(0x1020, &[0x77]).unwrap();

        tlb.undo_record(&record);

        assert_eq!(tlb.memory().load_u16(0x1020), Ok(0x77));
    }

    #[test]
    fn marks_are_listed_and_undone() {
        let (mut tlb, mut record) = (recorded(), Record::default());
        tlb.memory().store_u64(0x2000, 0x1007).unwrap();
        tlb.begin_record(None);
        let marked = MarkedMemory::new(tlb.memory());
        let refused = marked.compare_exchange_u64(0x2000, 1, 3);
        let done = marked.compare_exchange_u64(0x2000, 0x1007, 0x1027);
        let marks = marked.into_marks();
        tlb.note_marks(&marks);
        tlb.end_record(&mut record);
        let after = tlb.memory().load_u64(0x2000);

        tlb.undo_record(&record);

        let mark = Mark { gpa: 0x2000, before: 0x1007, set: 0x20, size: 8 };
        assert_eq!((refused, done, after), (Ok(0x1007), Ok(0x1007), Ok(0x1027)));
        assert_eq!(record.marks, [mark]);
        assert_eq!(tlb.memory().load_u64(0x2000), Ok(0x1007));
    }
}
