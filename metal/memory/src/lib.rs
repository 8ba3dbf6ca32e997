//! The hypervisor's own memory: which physical ranges are free ([`ranges`]), page tables
//! ([`tables`]), the heap, and RAM for guests.
//!
//! The hypervisor runs identity-mapped: a physical address is its virtual address, RAM is mapped
//! writable and never executable, the image by its sections, devices uncached; page 0 and the pages
//! below stacks are not mapped. So one place in the tables decides about each byte, and there is no
//! second view of code that could be written.
//!
//! `unsafe` because it makes memory out of physical addresses.
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod guest;
mod heap;
mod lock;
pub mod physical;
pub mod ranges;
pub mod tables;

pub use guest::{FrameRam, NoMemory};
pub use heap::Heap;
pub use lock::SpinLock;
pub use physical::PageFrames;

/// Bytes of a page.
pub const PAGE: u64 = 4096;
