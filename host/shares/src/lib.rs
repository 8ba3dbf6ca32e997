//! A folder of the host in a guest: [`Share`] is a `ShareBackend`, a server of FUSE messages that
//! come by virtio-fs (decision 0010 says why that).
//!
//! # What a guest can reach
//! A hostile guest sends any message at any time from all of its processors at once, and other
//! programs may move things in the folder meanwhile. Still nothing outside the folder is opened,
//! changed or looked at:
//! - Every path is resolved by `openat2` from the folder on, beneath it, through no symbolic link
//!   and no link of `/proc`, to the directory that holds the name in question. The name itself is
//!   one component, never `.` or `..`, and is never followed if it is a link: its target is told
//!   to the guest, who follows it in its own tree.
//! - Only regular files and directories are opened. Devices can't be made, and those that are
//!   there are seen without their numbers.
//! - No file becomes set-user-id or set-group-id.
//! - A folder that is shared read-only is changed by no message, times included.
//!
//! # Whose files these are
//! Everything is done as the user of this process, whoever asks in the guest: files that the guest
//! makes belong to that user, its umask holds, and `chown` to anybody else is refused by the host.
//! The guest sees the host's numbers of users and groups, and checks permissions by them itself.
//!
//! # A guest that was saved
//! What it knew and had open was the old process's. Here its numbers mean nothing (each server
//! begins with others), so what it had open answers `ESTALE`, and so does a directory that it
//! knew; Linux then looks the path up again from the root on, which is always there. Files are
//! never taken for others.
//!
//! # What a guest can use up
//! Names that it knows ([`NODES_MAX`]), files that it has open (half of the process's), the size
//! of a message (1 MiB and a little), and the threads of its share.
//!
//! The data is copied once on its way between file and guest memory. On hosts other than Linux
//! there is nothing here.
#![cfg(target_os = "linux")]

mod beneath;
mod nodes;
mod server;
mod transfer;
pub mod wire;
mod workers;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use kasane_memory::GuestMemory;
use kasane_ports::{ShareBackend, ShareCompletions, ShareRequest};

pub use nodes::NODES_MAX;
pub use server::Server;

/// What the guest may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareAccess {
    /// Everything that the user of this process may.
    ReadWrite,
    /// Look.
    ReadOnly,
}

/// Why a folder is not shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// It can't be opened.
    #[error("can't open the folder `{path}`")]
    Open {
        /// Which.
        path: PathBuf,
        /// The host's reason.
        source: io::Error,
    },
    /// The kernel has no way to stay beneath a folder.
    #[error("sharing a folder needs Linux 5.6 or later (openat2)")]
    OldKernel,
    /// The host gives no threads.
    #[error("can't start the threads of a shared folder")]
    Threads(#[source] io::Error),
}

/// A number that no other server has begun with, by all odds; 62 bits, so that there are as many
/// behind it.
fn chance() -> u64 {
    RandomState::new().hash_one(0) >> 2
}

/// A shared folder. Dropping it ends its threads.
pub struct Share {
    workers: workers::Workers,
}

impl Share {
    /// Shares `folder` with the guest whose memory this is.
    ///
    /// # Errors
    /// When the folder can't be opened, or the host gives no threads.
    pub fn start(
        folder: &Path,
        access: ShareAccess,
        memory: Arc<dyn GuestMemory>,
    ) -> Result<Self, ShareError> {
        let server = Server::open(folder, access, chance())?;
        let workers = workers::Workers::start(server, memory).map_err(ShareError::Threads)?;
        Ok(Self { workers })
    }
}

impl ShareBackend for Share {
    fn connect(&self, to: Weak<dyn ShareCompletions>) {
        self.workers.connect(to);
    }
    fn submit(&self, requests: Vec<ShareRequest>) {
        self.workers.submit(requests);
    }
    fn drain(&self) {
        self.workers.drain();
    }
    fn reset(&self) {
        self.workers.reset();
    }
}
