//! The file system device (virtio 1.2 §5.11): a transport for messages of FUSE between the
//! driver and the server of a shared folder ([`ShareBackend`](kasane_ports::ShareBackend)). Why
//! this one: decision 0010.
//!
//! A request goes to the server as two lists of guest-physical ranges, the message and the room for
//! its answer; the server moves the bytes. What a message says is none of the device's business.

mod chip;
mod glue;
#[cfg(test)]
mod tests;

pub use chip::{Fs, FsEffect, TAG_LEN};
pub use glue::{FsConnections, connect};
