//! The binary translator: guest code becomes host code of the same architecture.
//!
//! Guest registers live in host registers, guest flags in the host's flags, vector instructions
//! run as they are. What is rewritten is memory operands (`emit`), control flow, and sensitive
//! instructions, which the interpreter does.
//!
//! [`engine::Translated`] is an accelerator of the interpreter's vCPU: the interpreter's run loop
//! asks it first, and does one block or one instruction itself where it has nothing. So all that
//! is rare or difficult (exceptions, mode switches, debugging, devices) has one implementation.
//!
//! This crate needs `unsafe` because it enters code that it made itself.
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod asm;
mod cache;
mod counters;
mod emit;
pub mod engine;
mod guest;
mod known;
mod layout;
mod live;
mod make;
mod mode;
mod refused;
pub mod shared;
mod sites;
mod slots;
mod stubs;
mod tables;

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
