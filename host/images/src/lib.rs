//! Images that a machine boots from: an initramfs made here ([`Initramfs`]), and stock packages
//! fetched with the host's own package client ([`Debian`]), without root and without changing
//! anything of the host.

mod cpio;
mod debian;
mod initramfs;

pub use cpio::Archive;
pub use debian::{Debian, FetchError, Package, Progress};
pub use initramfs::{Initramfs, TerminalSize, prompt};
