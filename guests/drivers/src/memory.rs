//! Memory for the drivers: physical addresses are virtual ones, and what is given out is never
//! taken back, as the guest is done before it runs out.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicUsize, Ordering};

use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

const POOL_LEN: usize = 8 << 20;

/// Bytes, given out from the first on.
#[repr(C, align(4096))]
pub struct Pool {
    bytes: UnsafeCell<[u8; POOL_LEN]>,
    used: AtomicUsize,
}

// SAFETY: a byte is given out once.
unsafe impl Sync for Pool {}

#[global_allocator]
static POOL: Pool = Pool { bytes: UnsafeCell::new([0; POOL_LEN]), used: AtomicUsize::new(0) };

impl Pool {
    /// Bytes that nobody had before, all 0; null when there are too few.
    fn take(&self, layout: Layout) -> *mut u8 {
        let end = |used: usize| {
            let begin = used.next_multiple_of(layout.align());
            begin.checked_add(layout.size()).filter(|end| *end <= POOL_LEN)
        };
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, end) {
            Ok(used) => {
                let begin = used.next_multiple_of(layout.align());
                // SAFETY: `end` has checked that it is inside.
                unsafe { self.bytes.get().cast::<u8>().add(begin) }
            }
            Err(_) => ptr::null_mut(),
        }
    }
}

// SAFETY: `take` gives each byte once, aligned (the pool itself is to a page, the most that is
// asked for).
unsafe impl GlobalAlloc for Pool {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > PAGE_SIZE { ptr::null_mut() } else { self.take(layout) }
    }
    unsafe fn dealloc(&self, _at: *mut u8, _layout: Layout) {}
}

/// This machine, as the drivers see it.
pub struct Bare;

// SAFETY: pages come from the pool, which gives them once and never takes them back; the first
// 4 GiB are mapped where they are, with the BARs and registers in them.
unsafe impl Hal for Bare {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let layout = Layout::from_size_align(pages * PAGE_SIZE, PAGE_SIZE);
        let page = layout.map_or(ptr::null_mut(), |layout| POOL.take(layout));
        let page = NonNull::new(page).expect("the pool is large enough");
        (page.as_ptr() as PhysAddr, page)
    }
    unsafe fn dma_dealloc(_paddr: PhysAddr, _vaddr: NonNull<u8>, _pages: usize) -> i32 {
        0
    }
    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, _size: usize) -> NonNull<u8> {
        NonNull::new(paddr as *mut u8).expect("no registers are at 0")
    }
    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr() as PhysAddr
    }
    unsafe fn unshare(_paddr: PhysAddr, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}
