//! The heap: small pieces from talc, which gets memory from the free ranges as it needs it; large
//! ones straight from there, so that what a stopped guest gives back is whole again.

use core::alloc::{GlobalAlloc, Layout};

use lock_api::RawMutex;
use talc::TalcLock;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;

use crate::{PAGE, SpinLock, physical};

/// From this size on an allocation is pages of its own.
const LARGE: usize = 256 << 10;
/// Talc gets so much at a time.
const CHUNK: u64 = 1 << 20;
/// Where: anywhere above the first MiB.
const ANYWHERE: core::ops::Range<u64> = 0x10_0000..u64::MAX;

#[derive(Debug)]
struct Frames;

// SAFETY: `acquire` claims memory that was free and is nobody else's, and uses no allocator.
unsafe impl Source for Frames {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        let wanted = (layout.size() as u64).saturating_add(layout.align() as u64);
        let len = wanted.saturating_add(64 << 10).next_multiple_of(PAGE).max(CHUNK);
        let at = physical::take(len, PAGE, ANYWHERE).ok_or(())?;
        let pointer = core::ptr::with_exposed_provenance_mut(at as usize);
        // SAFETY: just taken, so mapped, writable and ours for ever.
        unsafe { talc.claim(pointer, len as usize) }.map(|_| ()).ok_or(())
    }
}

/// The hypervisor's allocator.
pub struct Heap(TalcLock<SpinLock, Frames>);

impl Heap {
    /// An empty heap.
    #[must_use]
    pub const fn new() -> Self {
        Self(TalcLock::new(Frames))
    }
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: both allocators give memory that is valid until it is freed; which of them it is, the
// layout says, and it is the same at both times. `realloc` and `alloc_zeroed` are the trait's own.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() < LARGE {
            // SAFETY: as for ours.
            return unsafe { self.0.alloc(layout) };
        }
        let taken = physical::take(layout.size() as u64, layout.align() as u64, ANYWHERE);
        taken
            .map_or(core::ptr::null_mut(), |at| core::ptr::with_exposed_provenance_mut(at as usize))
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if layout.size() < LARGE {
            // SAFETY: as for ours, and `alloc` chose this allocator too.
            unsafe { self.0.dealloc(pointer, layout) };
        } else {
            // SAFETY: taken by `alloc` with this length.
            unsafe { physical::put_back(pointer.addr() as u64, layout.size() as u64) };
        }
    }
}

/// That the lock is what talc wants.
const _: () = {
    const fn is_raw_mutex<T: RawMutex>() {}
    is_raw_mutex::<SpinLock>();
};
