//! Runs one vector or x87 instruction of the guest on the host's CPU: same ISA, same result.
//!
//! SSE to SSE4.2, AES, PCLMULQDQ, SHA, AVX, AVX2, FMA, F16C, MMX and x87 instructions are neither
//! sensitive nor control flow. Instead of modelling their arithmetic, [`Passthrough`] makes a
//! *stub* for each distinct instruction: load the registers it uses from the guest's state, the
//! instruction itself, store what it wrote, return. Stubs live in an arena of executable memory
//! that the home provides through the [`CodeRunner`] port.
//!
//! What the stub never does is touch guest memory: the instruction's memory operand, if it has
//! one, is a scratch buffer in the host. The caller loads it from, or stores it to, guest memory
//! and so keeps segmentation, paging, alignment and their faults in one place.
//!
//! Which instructions: an allow-list by CPUID feature, then by shape (at most one memory operand,
//! unconditional, at most 64 bytes); see [`shape`]. The rest is refused with [`NotSupported`]
//! and is the caller's to do in software.
//!
//! Faults: an unmasked SIMD or x87 exception traps natively. The home catches it and leaves the
//! stub by a recovery path that keeps MXCSR's flags and drops everything else, so that the guest's
//! registers are as before the instruction; [`Passthrough::run`] then reports [`HostFault`].
//!
//! This crate needs `unsafe` because it enters code that it wrote itself: the stub addresses the
//! state block, whose pointers come from live Rust references.
#![no_std]
extern crate alloc;

mod cache;
mod emit;
mod features;
mod observer;
mod runner;
pub mod shape;

pub use cache::{
    Completed, HostFault, Key, Location, NotSupported, Passthrough, Prepared, Registers, Scratch,
};
pub use features::HostFeatures;
pub use observer::{CodeObserver, CodeOrigin, PlacedCode};
pub use runner::{ArenaError, CodeArena, CodeEntry, CodeRunner, FaultKind, NoCodeRunner, Outcome};
pub use shape::{Direction, Operand, Unit};
