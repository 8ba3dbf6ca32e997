//! The few ACPI tables that a hypervisor needs (ACPI 6.5 §5.2), and no more: which processors and
//! I/O APICs there are (MADT), how to switch off (FADT, and `_S5_` of the DSDT), and where PCI's
//! configuration space is in memory (MCFG).
//!
//! Firmware's tables come from outside like any other file: they are read as bytes, with every
//! length checked. The crate `acpi` reads them through pointers, and its newer versions need a
//! nightly compiler; so this is our own.
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod fadt;
mod madt;
mod mcfg;
mod read;
mod tables;

pub use fadt::{PowerOff, find_pm_timer, find_power_off};
pub use madt::{InterruptTopology, IoApic, Override, read_madt};
pub use mcfg::{EcamWindow, read_mcfg};
pub use tables::{Memory, Table, Tables, TablesError};
