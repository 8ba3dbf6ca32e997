//! Guest physical memory (DESIGN §4): slots, bounds-checked copies and atomics, the dirty log,
//! the code map, and the software TLB that the software engines use.
//!
//! This crate needs `unsafe` because guest RAM is raw host memory that the guest, devices and
//! other vCPUs change at any time: it may never be seen as a Rust reference. Everything outside
//! works with the safe interface.
//!
//! # Code map
//! An engine that keeps decoded or translated code must learn of every write to its source. Each
//! page has a [`PageState`]: a sticky flag "code was made from this page", a map of its 64-byte
//! lines that code was made from, and a version. A store goes first to memory and then looks at
//! the flag; marking a page as code for the first time sets the flag, waits for
//! `HeavyBarrier` on all vCPUs, and only then reads the bytes. So either the
//! store sees the flag or the reader sees the store (an asymmetric Dekker protocol), and plain
//! stores to data pages pay one load. On flagged pages the store pays a full fence and compares
//! lines; a hit raises the version, and blocks compare versions when they are entered.
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod follow;
mod pin;
mod port;
mod ram;
mod record;
mod scalar;
mod slot;
mod tlb;

pub use follow::{Flushed, HostPage};
pub use pin::{PinAccess, PinnedMemory, PinnedPiece};
pub use port::{GuestMemory, MemoryError};
pub use ram::Ram;
pub use record::{Mark, MarkedMemory, PageRecord, Record};
pub use scalar::Scalar;
pub use slot::{AllocatedRam, CodeMark, PageState, RamBacking, RamSlot, SlotKind, SlotList};
pub use tlb::{ExecPage, Fill, SoftTlb, Stored, TlbClass};
