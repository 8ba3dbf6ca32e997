//! The bare-metal VMM: the composition of `metal/` and `core/` into an image that boots. What is
//! tested on a host is in those crates; here is what only the bare machine has.
//!
//! An empty program on any other target, so that the workspace builds as a whole.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod bare;

#[cfg(not(target_os = "none"))]
fn main() {}
