//! The machine's memory while the hypervisor runs: the free ranges, the page tables in use, and
//! bytes at physical addresses.

use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use spin::Mutex;

use crate::PAGE;
use crate::ranges::{self, Ranges};
use crate::tables::{OutOfTables, PageTables, Rights, TableMemory};

static FREE: Mutex<Ranges> = Mutex::new(Ranges::new());
static TABLES: Mutex<Option<PageTables<Identity>>> = Mutex::new(None);
/// All that was ever given, for the `memory` command.
static TOTAL: AtomicU64 = AtomicU64::new(0);

/// Tables are below 4 GiB, where the trampoline of a processor in 32-bit mode reaches the root, and
/// above the first MiB.
const FOR_TABLES: ranges::Range = ranges::Range { start: 0x10_0000, end: 0x1_0000_0000 };

/// The page tables' pages at their physical addresses.
#[derive(Debug)]
pub struct Identity;

impl TableMemory for Identity {
    fn read(&self, at: u64) -> u64 {
        // SAFETY: `at` is in a table that `new_table` gave, which is mapped and never freed.
        unsafe { core::ptr::with_exposed_provenance::<u64>(at as usize).read_volatile() }
    }
    fn write(&mut self, at: u64, entry: u64) {
        // SAFETY: as above.
        unsafe { core::ptr::with_exposed_provenance_mut::<u64>(at as usize).write_volatile(entry) }
    }
    fn new_table(&mut self) -> Option<u64> {
        let at = FREE.lock().take(PAGE, PAGE, FOR_TABLES)?;
        // SAFETY: the page was free, so nobody else uses it, and free memory is mapped.
        unsafe { clear(at, PAGE) };
        Some(at)
    }
}

/// Tables whose pages go back when they are gone.
#[derive(Debug, Default)]
pub struct PageFrames {
    pages: Vec<u64>,
}

impl TableMemory for PageFrames {
    fn read(&self, at: u64) -> u64 {
        Identity.read(at)
    }
    fn write(&mut self, at: u64, entry: u64) {
        Identity.write(at, entry);
    }
    fn new_table(&mut self) -> Option<u64> {
        let page = Identity.new_table()?;
        self.pages.push(page);
        Some(page)
    }
}

impl Drop for PageFrames {
    fn drop(&mut self) {
        for page in &self.pages {
            // SAFETY: taken by `new_table`; the tables are gone with this value.
            unsafe { put_back(*page, PAGE) }
        }
    }
}

/// Sets memory to zero.
///
/// # Safety
/// The memory is mapped, writable and the caller's.
unsafe fn clear(at: u64, len: u64) {
    // SAFETY: by the caller.
    unsafe {
        core::ptr::with_exposed_provenance_mut::<u8>(at as usize).write_bytes(0, len as usize);
    }
}

/// Gives free memory to the hypervisor.
///
/// # Safety
/// It is RAM that nobody uses, mapped at its physical address and writable for as long as the
/// hypervisor runs.
pub unsafe fn give(free: &Ranges) {
    let mut all = FREE.lock();
    for piece in free.pieces() {
        all.give(*piece);
    }
    TOTAL.fetch_add(free.free_bytes(), Ordering::Relaxed);
}

/// Free bytes, and how many there were in the beginning.
#[must_use]
pub fn free_and_total() -> (u64, u64) {
    (FREE.lock().free_bytes(), TOTAL.load(Ordering::Relaxed))
}

/// Takes memory out of the free ranges; its content is anything.
#[must_use]
pub fn take(len: u64, align: u64, within: Range<u64>) -> Option<u64> {
    FREE.lock().take(len, align, ranges::Range { start: within.start, end: within.end })
}

/// The same, filled with zeros.
#[must_use]
pub fn take_zeroed(len: u64, align: u64, within: Range<u64>) -> Option<u64> {
    let at = take(len, align, within)?;
    // SAFETY: it was free, so it is mapped, writable, and now the caller's.
    unsafe { clear(at, len.next_multiple_of(PAGE)) };
    Some(at)
}

/// Gives back what [`take`] gave.
///
/// # Safety
/// It was taken, with this length, and nobody uses it any more.
pub unsafe fn put_back(at: u64, len: u64) {
    let end = at.saturating_add(len.next_multiple_of(PAGE));
    FREE.lock().give(ranges::Range { start: at, end });
}

/// Makes `tables` those that [`map`] and [`unmap`] change.
pub fn set_tables(tables: PageTables<Identity>) {
    *TABLES.lock() = Some(tables);
}

/// Physical address of the hypervisor's page tables; 0 before they are set.
#[must_use]
pub fn root() -> u64 {
    TABLES.lock().as_ref().map_or(0, PageTables::root)
}

/// Maps physical memory at its own address. Other processors see a change of what was mapped when
/// they next flush.
///
/// # Errors
/// When there is no memory for tables.
///
/// # Safety
/// Nobody relies on the mapping that it replaces.
pub unsafe fn map(pages: Range<u64>, rights: Rights) -> Result<(), OutOfTables> {
    let mut tables = TABLES.lock();
    let to = pages.start;
    tables.as_mut().ok_or(OutOfTables)?.map(pages, to, rights)
}

/// Takes pages out of the page tables.
///
/// # Errors
/// When there is no memory for tables.
///
/// # Safety
/// Nobody uses them.
pub unsafe fn unmap(pages: Range<u64>) -> Result<(), OutOfTables> {
    TABLES.lock().as_mut().ok_or(OutOfTables)?.unmap(pages)
}

/// Whether the hypervisor's tables map all of a range.
#[must_use]
pub fn is_mapped(pages: Range<u64>) -> bool {
    let tables = TABLES.lock();
    let Some(tables) = tables.as_ref() else { return false };
    let mut at = pages.start;
    while at < pages.end {
        let Some((_, len)) = tables.find(at) else { return false };
        at = (at & !(len - 1)).saturating_add(len);
    }
    true
}

/// Bytes at a physical address.
///
/// # Safety
/// They are mapped and nobody writes to them while they are borrowed.
#[must_use]
pub unsafe fn bytes<'a>(at: u64, len: u64) -> &'a [u8] {
    if at == 0 {
        return &[];
    }
    // SAFETY: by the caller; the address is not null.
    unsafe {
        core::slice::from_raw_parts(
            core::ptr::with_exposed_provenance(at as usize),
            usize::try_from(len).unwrap_or(0),
        )
    }
}
