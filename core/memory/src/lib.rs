//! Guest physical memory (DESIGN §4): slots, bounds-checked copies and atomics, the dirty log,
//! the code map, and the software TLB that the software engines use.
//!
//! This crate needs `unsafe` because guest RAM is raw host memory that the guest, devices and
//! other vCPUs change at any time: it may never be seen as a Rust reference. Everything outside
//! works with the safe interface.
#![no_std]
extern crate alloc;

mod port;
pub use port::{GuestMemory, MemoryError};
