//! VT-x with extended page tables and unrestricted guests (SDM vol. 3C).
//!
//! What is Intel's of an engine that [`kasane_metal_assist`] describes: the control structure, the
//! way into the guest and back, and the exits. Needed are extended page tables with pages of 2 MiB,
//! unrestricted guests (real mode without more ado), and virtual NMIs; used where they are there
//! are address-space tags (VPID) and the preemption timer.
//!
//! The control structure is the processor's own business: its fields are read and written by
//! instructions ([`vmcs`] has their numbers), while it is the processor's current one. It is so
//! from [`begin`](kasane_metal_assist::Hardware::begin) to the end of a run only, so that the guest
//! can go on on another processor.
//!
//! `unsafe` because it runs guests.
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod controls;
#[cfg(target_os = "none")]
mod current;
#[cfg(target_os = "none")]
mod enter;
pub mod exit;
#[cfg(target_os = "none")]
mod hardware;
#[cfg(target_os = "none")]
mod host;
pub mod msrs;
pub mod state;
#[cfg(target_os = "none")]
mod support;
pub mod vmcs;

#[cfg(target_os = "none")]
pub use hardware::accelerators;
#[cfg(target_os = "none")]
pub use support::{enable, is_there};
