//! The socket device (virtio 1.2 §5.10): packets between the driver's queues and a
//! [`VsockBackend`](kasane_ports::VsockBackend), which takes and gives them from a thread of its
//! own and keeps the connections. Streams only.
//!
//! The chip sees to it that a guest speaks for itself only (its context id is checked), and that
//! packets have the length that they say. Everything else is the backend's.
//!
//! Connections end with the machine's process. A restored device tells its driver so by an event,
//! and its driver closes them.

mod chip;
mod glue;
mod packet;
mod saved;
#[cfg(test)]
mod tests;

pub use chip::{Vsock, VsockEffect};
pub use glue::{VsockConnections, connect};
