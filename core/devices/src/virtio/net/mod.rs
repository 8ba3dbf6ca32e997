//! The network card (virtio 1.2 §5.1): frames between the driver's queues and a
//! [`NetBackend`](kasane_ports::NetBackend), which pulls and gives them from a thread of its own.
//!
//! A doorbell only wakes the backend. The backend takes a frame (one copy, from guest memory to
//! its buffer) and gives one (one copy back); each is one call under the device's lock, and
//! interrupts are sent once for many frames, by `flush`, without the lock. One lock is enough for
//! all queues: a copy of 64 KiB takes microseconds, and the backend is one thread anyway.
//!
//! What a frame's header asks for is checked against what was agreed on and against the frame
//! itself (`header`): a backend sees offloads that make sense, or no frame.

mod chip;
mod control;
mod filter;
mod flow;
mod glue;
mod header;
mod saved;
#[cfg(test)]
mod tests;
mod transfer;

pub use chip::{Link, MacAddress, Net, NetEffect, NetShape, PAIRS_MAX};
pub use glue::{NetConnections, connect};
