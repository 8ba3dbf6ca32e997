//! A virtual machine's hardware: the board that wires devices from a [`MachineConfig`], the
//! dispatch of exits to them, and what firmware would leave behind for a kernel that is booted
//! directly ([`boot`], [`tables`]).
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod boot;
pub mod config;
pub mod layout;
mod record;
pub mod tables;

pub use config::{CrashPolicy, MachineConfig};
