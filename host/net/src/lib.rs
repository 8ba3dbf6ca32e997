//! Networks for virtual machines on a host's operating system: NAT without privileges, a LAN
//! between machines of one user, TAP, and captures of any of them.
//!
//! Each is a [`NetBackend`](kasane_ports::NetBackend) with a thread of its own, which pulls frames
//! from the device and gives it frames; nothing is queued in between beyond small bounds.

mod error;
mod frame;
mod link;
pub mod nat;
mod system;
mod thread;

pub use error::NetError;
