//! The block device (virtio 1.2 §5.2): a disk whose requests go to a
//! [`BlockBackend`](kasane_ports::BlockBackend) with the guest's own memory in them.
//!
//! Nothing is copied here: a request holds guest-physical ranges, the backend moves the bytes. The
//! chip keeps, for each request, which chain it is of and where its status byte goes. What has no
//! backend to ask (a serial number, a request that can't be) is answered at once.
//!
//! A driver that doesn't know flushes (or that has switched the write cache off) is promised that
//! a write is durable when it is done (§5.2.5.2): such a write is followed by a flush of the
//! device's own before its driver hears of it.

mod chip;
mod glue;
mod request;
mod saved;
#[cfg(test)]
mod tests;

pub use chip::{Blk, BlkEffect, DiskShape, SERIAL_LEN};
pub use glue::{BlkConnections, connect};
