//! Slots: ranges of guest-physical addresses with host memory behind them.

use alloc::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use crate::follow::CodeLog;
use crate::port::MemoryError;
use crate::scalar::Scalar;

const PAGE: u64 = 4096;

/// Host memory for a slot.
///
/// # Safety
/// `as_ptr` gives the same pointer for as long as the value lives, valid for reads and writes of
/// `len` bytes, aligned to 4096; nobody makes Rust references into it.
pub unsafe trait RamBacking: Send + Sync {
    /// First byte.
    fn as_ptr(&self) -> *mut u8;
    /// Bytes, a multiple of 4096.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// SAFETY: as for the value that is shared.
unsafe impl<T: RamBacking + ?Sized> RamBacking for Arc<T> {
    fn as_ptr(&self) -> *mut u8 {
        (**self).as_ptr()
    }
    fn len(&self) -> usize {
        (**self).len()
    }
}

/// Zeroed memory from the global allocator, for tests and small regions.
pub struct AllocatedRam {
    ptr: NonNull<u8>,
    layout: Layout,
}

impl AllocatedRam {
    /// Allocates `len` bytes, rounded up to pages.
    #[must_use]
    pub fn new(len: usize) -> Self {
        let len = len.max(1).next_multiple_of(PAGE as usize);
        let layout = Layout::from_size_align(len, PAGE as usize).unwrap_or(Layout::new::<u8>());
        // SAFETY: the layout's size is not zero.
        let raw = unsafe { alloc_zeroed(layout) };
        let Some(ptr) = NonNull::new(raw) else { handle_alloc_error(layout) };
        Self { ptr, layout }
    }
}

impl Drop for AllocatedRam {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.ptr.as_ptr(), self.layout) }
    }
}

// SAFETY: the memory is owned and reached only through raw pointers.
unsafe impl Send for AllocatedRam {}
// SAFETY: as above.
unsafe impl Sync for AllocatedRam {}
// SAFETY: stable, page-aligned, valid for `len` bytes until drop.
unsafe impl RamBacking for AllocatedRam {
    fn as_ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }
    fn len(&self) -> usize {
        self.layout.size()
    }
}

/// What a slot may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// Ordinary memory.
    Ram,
    /// Writes go to the machine as MMIO.
    Rom,
}

/// What [`PageState::mark_code`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeMark {
    /// The version that code made from now on belongs to.
    pub version: u32,
    /// The page was not known to hold code: the caller must synchronize all vCPUs
    /// (`HeavyBarrier`) before it reads the bytes.
    pub new_page: bool,
}

/// Code map and dirty log of one page. All zero is "no code, clean".
#[derive(Debug, Default)]
pub struct PageState {
    lines: AtomicU64,
    version: AtomicU32,
    code: AtomicU16,
    dirty: AtomicU16,
}

impl PageState {
    /// Changes whenever bytes that code was made from may have changed.
    #[inline]
    pub fn version(&self) -> u32 {
        self.version.load(Ordering::Acquire)
    }
    /// Whether code was made from this page, and not forgotten.
    #[inline]
    pub fn is_code(&self) -> bool {
        self.code.load(Ordering::Relaxed) != 0
    }
    /// Announces that code is about to be made from the bytes `first..=last` of the page.
    ///
    /// The version is read before the lines are marked: if a store clears the map in between,
    /// the version that this call gives is already old and the code is never used.
    pub fn mark_code(&self, first: u64, last: u64) -> CodeMark {
        let mut new_page = false;
        loop {
            let version = self.version.load(Ordering::SeqCst);
            new_page |= self.code.swap(1, Ordering::SeqCst) == 0;
            self.lines.fetch_or(line_mask(first, last), Ordering::SeqCst);
            // Forgotten meanwhile? `forget_code` writes and reads the two words the other way
            // round, so that one of both sees what the other did.
            if self.is_code_now() {
                return CodeMark { version, new_page };
            }
        }
    }
    fn is_code_now(&self) -> bool {
        self.code.load(Ordering::SeqCst) != 0
    }
    /// Makes it a page like any other if nothing is left of the code that was made from it: data
    /// lies now where code was. Whether it did. Code that is being made meanwhile either finds out
    /// and marks the page anew, or is of an old version and never used.
    pub fn forget_code(&self) -> bool {
        if self.lines.load(Ordering::SeqCst) != 0 {
            return false;
        }
        self.code.store(0, Ordering::SeqCst);
        if self.lines.load(Ordering::SeqCst) != 0 {
            self.lines.store(0, Ordering::SeqCst);
            self.version.fetch_add(1, Ordering::AcqRel);
        }
        true
    }
    /// To be called after a store to `first..=last`: whether it hit code. Then the version has
    /// been raised.
    #[inline]
    pub fn stored(&self, first: u64, last: u64) -> bool {
        self.is_code() && self.stored_to_code_page(first, last)
    }
    #[cold]
    fn stored_to_code_page(&self, first: u64, last: u64) -> bool {
        fence(Ordering::SeqCst);
        if self.lines.load(Ordering::SeqCst) & line_mask(first, last) == 0 {
            return false;
        }
        self.lines.store(0, Ordering::SeqCst);
        self.version.fetch_add(1, Ordering::AcqRel);
        true
    }
    /// Marks the page as written for every subscriber of the dirty log.
    #[inline]
    pub fn mark_dirty(&self) {
        if self.dirty.load(Ordering::Relaxed) != u16::MAX {
            self.dirty.store(u16::MAX, Ordering::Relaxed);
        }
    }
    /// Takes the dirty mark of one subscriber (0-15).
    pub fn take_dirty(&self, subscriber: u8) -> bool {
        let bit = 1u16.wrapping_shl(u32::from(subscriber));
        self.dirty.fetch_and(!bit, Ordering::AcqRel) & bit != 0
    }
}

/// Bits of the 64-byte lines that `first..=last` touches.
fn line_mask(first: u64, last: u64) -> u64 {
    let (a, b) = (first >> 6 & 63, last >> 6 & 63);
    (u64::MAX << a) & (u64::MAX >> (63 - b.max(a)))
}

/// A range of guest-physical addresses with host memory behind it.
pub struct RamSlot {
    base: u64,
    len: u64,
    kind: SlotKind,
    host: NonNull<u8>,
    pages: Box<[PageState]>,
    code_log: CodeLog,
    _backing: Box<dyn RamBacking>,
}

// SAFETY: `host` points into `_backing`, which is Send + Sync and lives as long.
unsafe impl Send for RamSlot {}
// SAFETY: as above; all access to the bytes is by single instructions on raw pointers.
unsafe impl Sync for RamSlot {}

impl RamSlot {
    /// A slot of RAM at `base` (rounded down to a page) over `backing`.
    #[must_use]
    pub fn from_backing(base: u64, backing: Box<dyn RamBacking>) -> Self {
        Self::with_kind(base, SlotKind::Ram, backing)
    }
    /// A slot of the given kind.
    #[must_use]
    pub fn with_kind(base: u64, kind: SlotKind, backing: Box<dyn RamBacking>) -> Self {
        let host = NonNull::new(backing.as_ptr()).unwrap_or(NonNull::dangling());
        let len = (backing.len() as u64) & !(PAGE - 1);
        let count = (len / PAGE) as usize;
        Self {
            base: base & !(PAGE - 1),
            len,
            kind,
            host,
            pages: zeroed_pages(count),
            code_log: CodeLog::default(),
            _backing: backing,
        }
    }
    /// A slot over memory from the allocator.
    #[must_use]
    pub fn allocated(base: u64, len: usize) -> Self {
        Self::from_backing(base, Box::new(AllocatedRam::new(len)))
    }
    /// First guest-physical address.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }
    /// Bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Address of the first byte in the home's address space: for engines that map it.
    #[must_use]
    pub fn host_address(&self) -> usize {
        self.host.as_ptr().addr()
    }
    /// RAM or ROM.
    #[must_use]
    pub fn kind(&self) -> SlotKind {
        self.kind
    }
    /// The state of the page at offset `offset` of the slot.
    #[must_use]
    pub fn page(&self, offset: u64) -> Option<&PageState> {
        self.pages.get((offset / PAGE) as usize)
    }
    pub(crate) fn code_log(&self) -> &CodeLog {
        &self.code_log
    }
    /// Host address of `offset`, if `len` bytes are there.
    pub(crate) fn host(&self, offset: u64, len: u64) -> Option<*mut u8> {
        let end = offset.checked_add(len)?;
        // SAFETY: offset <= len of the backing, so the pointer stays inside or one past the end.
        (end <= self.len).then(|| unsafe { self.host.as_ptr().add(offset as usize) })
    }
    /// Records a write for the dirty log and the code map, after the bytes are stored.
    pub(crate) fn note_write(&self, offset: u64, len: u64) {
        let mut at = offset;
        let end = offset.saturating_add(len);
        while at < end {
            let next = (at & !(PAGE - 1)).saturating_add(PAGE).min(end);
            if let Some(page) = self.page(at) {
                page.mark_dirty();
                if page.stored(at & (PAGE - 1), next.wrapping_sub(1) & (PAGE - 1)) {
                    self.code_log.note(self.base.wrapping_add(at));
                }
            }
            at = next;
        }
    }
}

fn zeroed_pages(count: usize) -> Box<[PageState]> {
    let Ok(layout) = Layout::array::<PageState>(count) else { return Box::default() };
    if layout.size() == 0 {
        return Box::default();
    }
    // SAFETY: the size is not zero; all-zero bytes are a valid PageState (atomic integers). From
    // the allocator and not by a loop, so that 64 MiB for a 16 GiB guest stay untouched.
    unsafe {
        let raw = alloc_zeroed(layout).cast::<PageState>();
        if raw.is_null() {
            handle_alloc_error(layout);
        }
        Box::from_raw(core::ptr::slice_from_raw_parts_mut(raw, count))
    }
}

/// All slots of a VM at one moment, ascending by address.
#[derive(Clone, Default)]
pub struct SlotList {
    slots: Vec<Arc<RamSlot>>,
}

impl SlotList {
    pub(crate) fn new(mut slots: Vec<Arc<RamSlot>>) -> Self {
        slots.sort_by_key(|slot| slot.base);
        Self { slots }
    }
    /// The slots.
    #[must_use]
    pub fn slots(&self) -> &[Arc<RamSlot>] {
        &self.slots
    }
    /// The slot at `gpa` and the offset in it.
    #[inline]
    #[must_use]
    pub fn find(&self, gpa: u64) -> Option<(&RamSlot, u64)> {
        self.slots.iter().find_map(|slot| {
            let offset = gpa.wrapping_sub(slot.base);
            (offset < slot.len).then_some((&**slot, offset))
        })
    }
    /// Host pointer for an access that must lie in one slot; RAM only if it writes.
    pub(crate) fn range(
        &self,
        gpa: u64,
        len: u64,
        write: bool,
    ) -> Result<(&RamSlot, u64, *mut u8), MemoryError> {
        let (slot, offset) = self.find(gpa).ok_or(MemoryError::Unmapped { gpa, len })?;
        if write && slot.kind == SlotKind::Rom {
            return Err(MemoryError::ReadOnly { gpa });
        }
        let host = slot.host(offset, len).ok_or(MemoryError::Unmapped { gpa, len })?;
        Ok((slot, offset, host))
    }
    pub(crate) fn load<T: Scalar>(&self, gpa: u64) -> Result<T, MemoryError> {
        if !gpa.is_multiple_of(T::SIZE as u64) {
            return Err(MemoryError::Misaligned { gpa });
        }
        let (_, _, host) = self.range(gpa, T::SIZE as u64, false)?;
        // SAFETY: `range` made SIZE bytes valid.
        Ok(unsafe { T::load(host) })
    }
    pub(crate) fn store<T: Scalar>(&self, gpa: u64, value: T) -> Result<(), MemoryError> {
        if !gpa.is_multiple_of(T::SIZE as u64) {
            return Err(MemoryError::Misaligned { gpa });
        }
        let (slot, offset, host) = self.range(gpa, T::SIZE as u64, true)?;
        // SAFETY: `range` made SIZE bytes valid.
        unsafe { T::store(host, value) };
        slot.note_write(offset, T::SIZE as u64);
        Ok(())
    }
    pub(crate) fn compare_exchange<T: Scalar>(
        &self,
        gpa: u64,
        current: T,
        new: T,
    ) -> Result<T, MemoryError> {
        if !gpa.is_multiple_of(T::SIZE as u64) {
            return Err(MemoryError::Misaligned { gpa });
        }
        let (slot, offset, host) = self.range(gpa, T::SIZE as u64, true)?;
        // SAFETY: `range` made SIZE aligned bytes valid (the backing is page-aligned).
        let old = unsafe { T::compare_exchange(host, current, new) };
        if old == current {
            slot.note_write(offset, T::SIZE as u64);
        }
        Ok(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_forgotten_as_code_once_nothing_is_left_of_it() {
        let page = PageState::default();
        let mark = page.mark_code(0x80, 0x90);
        let too_early = page.forget_code();
        page.stored(0x80, 0x80);

        assert_eq!([too_early, page.forget_code(), page.is_code()], [false, true, false]);
        let again = page.mark_code(0x80, 0x90);
        assert!(again.new_page && again.version != mark.version);
    }

    #[test]
    fn a_store_to_a_marked_line_raises_the_version_and_others_do_not() {
        let page = PageState::default();
        let first = page.mark_code(0x80, 0x90);
        let again = page.mark_code(0x80, 0x90);
        let miss = page.stored(0x40, 0x7F);
        let before = page.version();
        let hit = page.stored(0x7F, 0x80);
        assert_eq!((first.new_page, again.new_page, miss, hit), (true, false, false, true));
        assert_ne!(page.version(), before);
    }

    #[test]
    fn line_masks_cover_both_ends() {
        assert_eq!(line_mask(0, 0), 1);
        assert_eq!(line_mask(63, 64), 3);
        assert_eq!(line_mask(4095, 4095), 1 << 63);
        assert_eq!(line_mask(0, 4095), u64::MAX);
    }

    #[test]
    fn dirty_marks_are_kept_per_subscriber() {
        let page = PageState::default();
        page.mark_dirty();
        assert!(page.take_dirty(0));
        assert!(!page.take_dirty(0));
        assert!(page.take_dirty(1));
    }
}
