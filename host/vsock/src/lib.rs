//! The host's side of a guest's sockets: [`Vsock`] is a `VsockBackend` whose connections are Unix
//! sockets, by the convention that Firecracker made known.
//!
//! - The guest connects to port N of the host (context 2): the Unix socket `<path>_N` is connected
//!   to. Where nobody listens, the guest's connection is reset.
//! - A program on the host connects to `<path>`, sends `CONNECT N\n`, and reads `OK M\n` when a
//!   program in the guest has accepted on port N (M is the host's port). If nobody does, the socket
//!   is closed.
//!
//! One thread does it all. What it holds is bounded: connections by number, each by its buffers;
//! a guest that sends more than its credit loses the connection. On hosts without Unix sockets
//! there is nothing here.
#![cfg(unix)]

mod connection;
mod credit;
mod greeting;
mod switch;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Instant;

use kasane_host_rounds::Rounds;
use kasane_ports::{VsockBackend, VsockDevice};
use mio::Events;

use crate::switch::Switch;

/// Why there are no sockets.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// Another machine listens there.
    #[error("another program listens on the socket `{path}`")]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// The socket can't be made.
    #[error("can't listen on the socket `{path}`")]
    Listen {
        /// Where.
        path: PathBuf,
        /// The host's reason.
        source: io::Error,
    },
    /// The host gives no thread, or nothing to wait with.
    #[error("can't start the thread of the sockets")]
    Thread(#[from] io::Error),
}

type Device = dyn VsockDevice;

/// The sockets of one guest. Dropping it ends the thread and removes the socket.
pub struct Vsock {
    rounds: Rounds<Device>,
    path: PathBuf,
}

impl Vsock {
    /// Listens on `path`; a socket that a dead process left there is replaced. Only the user of
    /// this process can connect.
    ///
    /// # Errors
    /// When another program listens there, or the host refuses.
    pub fn start(path: &Path) -> Result<Self, VsockError> {
        let listener = switch::listen(path)?;
        let rounds = Rounds::start::<_, io::Error>("vsock", |registry| {
            let mut switch = Switch::new(listener, path, registry)?;
            Ok(move |device: Option<&Device>, events: &Events, now: Instant| {
                switch.round(device, events, now)
            })
        })?;
        Ok(Self { rounds, path: path.to_owned() })
    }
}

impl VsockBackend for Vsock {
    fn connect(&self, device: Weak<dyn VsockDevice>) {
        self.rounds.connect(device);
    }
    fn wake(&self) {
        self.rounds.wake();
    }
}

impl Drop for Vsock {
    fn drop(&mut self) {
        // Nothing is lost if it is gone already.
        let _ = fs::remove_file(&self.path);
    }
}
