//! Guest RAM on a host: [`HostRam`], one memory file per slot (DESIGN §4).
//!
//! A file and not plain anonymous memory, so that the same pages can be mapped again elsewhere: in
//! a window of translated code, by vhost, by a process that serves the guest's disks. Pages are
//! given by the host when they are first touched, and can be given back ([`HostRam::release`]).
//! Hosts without memory files get anonymous memory; nothing here then maps it a second time.
//!
//! This crate needs `unsafe` to vouch, by `unsafe impl RamBacking`, that a mapping stays where it
//! is.

mod ram;

pub use ram::{HostRam, RamError};
