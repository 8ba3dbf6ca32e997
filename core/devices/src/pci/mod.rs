//! PCI: configuration spaces in ECAM shape, BARs that move, INTx routing, MSI and MSI-X
//! (PCI Local Bus 3.0), and the chips of the `pc` board: i440FX, PIIX3, PIIX4 power management.
//!
//! A function is two things: a [`FunctionLayout`], which says what its configuration space looks
//! like, and a [`PciFunction`], which answers in its BARs. The [`PciBus`] holds the configuration
//! spaces of all functions under one lock, maps and unmaps BARs as the guest writes them, keeps
//! MSI-X tables, and gives each function a [`PciInterrupts`] to raise its interrupts.
//!
//! Lock order: the bus's lock, then an address space's (a leaf). Messages and interrupt wires are
//! driven, and functions are called, after unlocking.

mod address;
mod bus;
mod chipset;
mod config;
mod handle;
mod layout;
mod msi;
mod ports;
mod saved;
#[cfg(test)]
mod tests;

pub use address::PciAddress;
pub use bus::{PciBus, PciError, PciOutputs};
pub use chipset::{attach_i440fx, attach_piix3, attach_piix4_pm};
pub use config::ConfigSpace;
pub use handle::{InterruptMode, PciFunction, PciInterrupts};
pub use layout::{Bar, FunctionLayout, Identity, InterruptPin, MsixPlace, Window, WindowEnable};
pub use ports::{ConfigPorts, EcamWindow};
