//! The power management block of the PIIX4: ACPI's fixed hardware, and the SMI command ports.
//!
//! The block's base is a register of the PIIX4's PCI function, so the board maps it; the ports
//! 0xB2 and 0xB3 are at offsets 0x40 and 0x41 of the chip's space.

mod chip;
mod glue;
mod saved;
#[cfg(test)]
mod tests;

pub use chip::{AcpiPm, SMI_COMMAND, TimerWidth};
pub use glue::{BLOCK_LEN, Connections, attach};
