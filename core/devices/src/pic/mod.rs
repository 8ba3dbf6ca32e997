//! The PC's pair of 8259A programmable interrupt controllers, with the edge/level control
//! registers of the PIIX4.
//!
//! Its glue is the [`InterruptRouter`](crate::interrupts::InterruptRouter), which it shares with
//! the I/O APIC: both see the same wires, and edges must reach both in one order.

mod chip;
mod pair;
mod saved;
pub mod spec;
#[cfg(test)]
mod tests;

pub use chip::Pic;
pub use pair::PicPair;
pub(crate) use saved::PicPairForm;
