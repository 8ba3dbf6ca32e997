//! The PC's chips (DESIGN §3): each one a pure state machine ([`Chip`]) whose inputs are values
//! and whose outputs are wire levels and effects; the [`Socket`] that puts it behind a lock on a
//! bus; the [`AddressSpace`]s; the [`InterruptRouter`].
//!
//! Open one device's folder and you know them all: `spec` holds the registers, `chip` the state
//! machine, `glue` what it is wired to, `saved` its versioned state, `tests` drivers' sequences.
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod acpi_pm;
pub mod bus;
pub mod debug_port;
pub mod dma;
pub mod hpet;
pub mod i8042;
pub mod interrupts;
pub mod ioapic;
pub mod numeric_error;
pub mod pci;
pub mod pic;
pub mod pit;
pub mod rtc;
pub mod saved;
pub mod socket;
pub mod system;
pub mod uart;
pub mod virtio;

pub use bus::{AddressSpace, Device, MapError, MappingId, Reply};
pub use interrupts::InterruptRouter;
pub use saved::{RestoreError, Saved, Section};
pub use socket::{Access, Chip, DeadlineKick, Effects, Socket, Timed, Wiring};
pub use system::{A20Gate, ResetKind, SystemPort, SystemRequest};
