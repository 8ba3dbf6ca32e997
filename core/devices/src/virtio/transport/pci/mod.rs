//! A device as a PCI function (virtio 1.2 §4.1).
//!
//! Everything that a modern driver needs is in one 64-bit memory BAR: the common configuration,
//! the interrupt status, the device's configuration, a doorbell for each queue, and the MSI-X
//! table with a vector for each queue and one for changes of the configuration. Without MSI-X the
//! function interrupts by INTA and the interrupt status. A transitional function has the legacy
//! registers in an I/O BAR besides (§4.1.4.8).

mod common;
mod function;
mod interrupts;
mod layout;
mod legacy;
mod saved;
#[cfg(test)]
mod tests;

pub use function::{Attached, VirtioPci, attach};
pub use layout::PciShape;
