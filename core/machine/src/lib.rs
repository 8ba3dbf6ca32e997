//! A virtual machine's hardware: the board that wires devices from a [`MachineConfig`], the
//! dispatch of exits to them, and what firmware would leave behind for a kernel that is booted
//! directly ([`boot`], [`tables`]).
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod boot;
mod config;
mod devices;
mod dispatch;
mod firmware;
mod hold;
pub mod layout;
mod machine;
mod msr;
mod power;
mod processor_state;
mod record;
mod state;
mod statistics;
pub mod tables;
mod tracing;
mod wiring;

pub use config::{CrashPolicy, MachineConfig};
pub use devices::{DeviceKind, MachineDevice, Place};
pub use dispatch::Action;
pub use hold::Hold;
pub use machine::{Machine, MachineError, MachinePorts};
pub use power::PowerRequest;
pub use processor_state::{restore_processor, save_processor};
pub use state::{SavedHeader, SavedStateError};
pub use statistics::{Count, Statistics};

#[cfg(test)]
mod devices_tests;
#[cfg(test)]
mod random_tests;
#[cfg(test)]
mod tests;
