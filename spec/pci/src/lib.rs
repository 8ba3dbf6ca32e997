//! What the PCI manuals say: the configuration header (PCI Local Bus 3.0 §6.1, §6.2), the MSI and
//! MSI-X capabilities (§6.8), configuration mechanism #1 (§3.2.2.3.2), ECAM (PCI Express Base 3.0
//! §7.2.2), and the registers of the chips on the `pc` board. Names for numbers, no logic.
#![no_std]

pub mod capability;
pub mod chipset;
pub mod class;
pub mod header;
pub mod mechanism;
