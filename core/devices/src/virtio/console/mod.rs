//! The console device (virtio 1.2 §5.3): a console on port 0, and named ports for programs in the
//! guest.
//!
//! Output goes to the port's [`Console`](kasane_ports::Console). Input is given by
//! [`VirtioSocket::receive`](crate::virtio::VirtioSocket), which takes as much as the driver has
//! room for and no more; when there is room again, the port's `room` is kicked. Nothing is queued
//! in between.
//!
//! A device of one port has no control queues: a driver then takes the console's size from the
//! configuration, whose order of columns and rows all Linux versions agree on (before 6.16 they
//! read the control message the wrong way round).

mod chip;
mod control;
mod glue;
mod saved;
#[cfg(test)]
mod tests;
mod transfer;

pub use chip::{ConsoleEffect, ConsoleSize, PORTS_MAX, PortShape, VirtioConsole};
pub use glue::{ConsoleConnections, PortConnections, connect};
