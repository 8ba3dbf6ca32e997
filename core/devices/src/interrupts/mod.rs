//! The interrupt router: from the devices' wires to the 8259A pair and the I/O APIC.
//!
//! One lock holds the wires' levels and both chips, so that edges of different sources reach the
//! chips in one order and none is lost. What comes out (INTR, messages) is applied after
//! unlocking: INTR is a level and goes through an outbox; a message is an event, and messages
//! that cross between threads mean nothing.
//!
//! Lock order: the router's lock is taken under no lock of a device (devices drive wires after
//! unlocking), and nothing is locked under it.

mod router;
#[cfg(test)]
mod tests;

pub use router::{InterruptRouter, IoapicWindow, PicPorts, Target, TimerRoute};
