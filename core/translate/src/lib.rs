//! The binary translator: guest code becomes host code of the same architecture.
//!
//! Guest registers live in host registers, guest flags in the host's flags, vector instructions
//! run as they are. What is rewritten is memory operands (`emit`), control flow, and sensitive
//! instructions, which are done in place or by the interpreter.
//!
//! [`engine::Translated`] is an accelerator of the interpreter's vCPU: the interpreter's run loop
//! asks it first, and does one block or one instruction itself where it has nothing. So all that
//! is rare or difficult (exceptions, mode switches, debugging, devices) has one implementation.
//!
//! # Where to read what
//!
//! | question | module |
//! |---|---|
//! | which instructions are copied, done in place, left to the interpreter | `guest`, `known` |
//! | how a memory operand is checked and reached: the inline TLB | `emit::memory`, `checks`, `layout` |
//! | when no check is needed, or a shorter one | `emit::held` |
//! | where the guest's flags are, and when they need not be kept | `emit::flags`, `live` |
//! | jumps: within a page, to other pages, indirect | `emit::flow`, `slots` |
//! | sensitive instructions in place, interrupts, rings | `emit::system` |
//! | when a block is made, and of what bytes | `make` |
//! | instructions across the end of a page | `crossing` |
//! | code that changes, several vCPUs, when memory of blocks is used again | `shared`, `cache` |
//! | the way in and out, what was flushed meanwhile | `engine`, `stubs`, `sites`, `tables` |
//! | critical instructions by name: what `--stats` says of them | `places`, `kasane_interp::critical` |
//! | what `perf` is told (`kasane run --jitdump`) | `cache` and `shared` call a [`CodeObserver`] |
//! | comparing each block with the interpreter while a machine runs | `engine::shadow` |
//!
//! # Precise state
//! At every way out the guest's state is complete, that of the instruction at RIP and nothing of
//! the next: an instruction's checks come before its first change, so that a refused access leaves
//! with nothing done, and the interpreter does the whole instruction and finds its fault. Host
//! exceptions (division, misaligned or unmasked vector operations) have a point each that knows
//! RIP and where the flags are. Only flags that no instruction can read before they are written
//! anew may be stale in a frame; with [`engine::Translated::strict`] they are not either.
//! Interrupts come between blocks: at polls on backward jumps and indirect branches.
//!
//! [`CodeObserver`]: kasane_passthrough::CodeObserver
//!
//! This crate needs `unsafe` because it enters code that it made itself.
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod asm;
mod blocks;
mod cache;
mod checks;
mod copies;
mod counters;
mod crossing;
mod emit;
pub mod engine;
mod guest;
mod known;
mod layout;
mod live;
mod make;
mod mode;
mod places;
mod refused;
pub mod shared;
mod sites;
mod slots;
mod stubs;
mod tables;
mod verify;

use kasane_passthrough::HostFeatures;

/// What translated code needs of the host's CPU and this one lacks: AVX for the way in and out,
/// BMI2 for the inline TLB.
#[must_use]
pub fn host_lacks(features: HostFeatures) -> Option<&'static str> {
    let needed = [(HostFeatures::AVX, "AVX"), (HostFeatures::BMI2, "BMI2")];
    needed.into_iter().find(|(feature, _)| !features.contains(*feature)).map(|(_, name)| name)
}

pub use engine::{Policy, Translated};
pub use shared::Shared;
