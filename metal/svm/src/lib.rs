//! AMD-V with nested paging (APM vol. 2 ch. 15).
//!
//! What is AMD's of an engine that [`kasane_metal_assist`] describes: the control block, the way
//! into the guest and back, and the exits.
//!
//! `unsafe` because it runs guests.
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

#[cfg(target_os = "none")]
mod enter;
pub mod exit;
#[cfg(target_os = "none")]
mod hardware;
pub mod state;
#[cfg(target_os = "none")]
mod support;
pub mod vmcb;

#[cfg(target_os = "none")]
pub use hardware::accelerators;
#[cfg(target_os = "none")]
pub use support::{enable, is_there};
