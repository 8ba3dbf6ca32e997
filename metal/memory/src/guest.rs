//! RAM of a guest: physical memory in one piece, zeroed, which goes back when the guest is gone.

use core::fmt;

use kasane_memory::RamBacking;

use crate::{PAGE, physical};

/// Guests' RAM begins at multiples of 2 MiB, so that nested tables can use large pages.
const ALIGN: u64 = 2 << 20;

/// No piece of memory is as large as that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory {
    /// Bytes that were asked for.
    pub asked: u64,
    /// Bytes that are free, in several pieces.
    pub free: u64,
}

impl fmt::Display for NoMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (asked, free) = (self.asked >> 10, self.free >> 10);
        write!(f, "{asked} KiB of RAM asked in one piece, {free} KiB are free")
    }
}

impl core::error::Error for NoMemory {}

/// Physical memory of a guest.
#[derive(Debug)]
pub struct FrameRam {
    start: u64,
    len: u64,
}

impl FrameRam {
    /// `len` bytes, rounded up to pages, of zeros.
    ///
    /// # Errors
    /// When there is no such piece.
    pub fn new(len: u64) -> Result<Self, NoMemory> {
        let len = len.next_multiple_of(PAGE);
        let start = physical::take_zeroed(len, ALIGN, 0x10_0000..u64::MAX)
            .ok_or(NoMemory { asked: len, free: physical::free_and_total().0 })?;
        Ok(Self { start, len })
    }

    /// Physical address of the first byte.
    #[must_use]
    pub const fn physical(&self) -> u64 {
        self.start
    }
}

impl Drop for FrameRam {
    fn drop(&mut self) {
        // SAFETY: taken in `new` with this length; who had pointers into it had a borrow.
        unsafe { physical::put_back(self.start, self.len) }
    }
}

// SAFETY: the memory is this value's alone from `new` to `drop`, mapped at its physical address,
// page-aligned, and no reference into it is made.
unsafe impl RamBacking for FrameRam {
    fn as_ptr(&self) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut(self.start as usize)
    }
    fn len(&self) -> usize {
        self.len as usize
    }
}
