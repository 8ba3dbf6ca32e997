//! A network between the machines of one user, without a process in its middle.
//!
//! Each member is one socket file in a folder that only the user can enter
//! (`$XDG_RUNTIME_DIR/kasane/lan/NAME/`), and each member is a switch of its own: it learns behind
//! which other member an Ethernet address is, sends a frame for it there, and all others to
//! everybody.
//!
//! Members meet by `SOCK_SEQPACKET` connections, one for each direction: a member that comes
//! connects to all that are there and says its name; who is connected to by one that it doesn't
//! know connects back. So each pair has exactly one connection each way, whoever came first, and
//! the system tells of a member's death by closing them. (Datagram sockets were the other choice: they
//! have room for ten frames whatever their size, and don't tell of a death.)
//! That is Linux's; other systems have no such sockets, and no LAN yet.
//!
//! A socket file is made under a name that is no member's and renamed when it listens, so a file
//! that refuses a connection is a dead member's for certain, and whoever finds it may remove it;
//! names are never used twice.
//!
//! Back-pressure: a frame for a member that has no room is kept, and the guest's queue waits, for
//! [`STUCK`](switch); after that the member counts as stuck, and frames for it are lost until it
//! takes some. A member whose guest has no room reads nothing, which is what fills that room.

mod directory;
pub(crate) use directory::folder;
mod member;
mod switch;

use std::path::PathBuf;
use std::sync::Weak;

use kasane_definition::LanName;
use kasane_ports::{NetBackend, NetDevice, NetInfo, NetOffloads};

use crate::error::NetError;
use crate::thread::{self, Service};
use directory::Directory;
use switch::Switch;

/// A machine's place on a LAN. Dropping it leaves.
pub struct Lan {
    service: Service,
}

impl Lan {
    /// Joins the LAN of this name, which is made if nobody is there.
    ///
    /// # Errors
    /// If the user's folder for sockets is missing, or is not the user's alone.
    pub fn join(name: &LanName) -> Result<Self, NetError> {
        let runtime = directory::runtime_dir()
            .ok_or_else(|| NetError::NoRuntimeDir { name: name.to_string() })?;
        Self::join_in(&runtime, name)
    }

    /// The same in another folder than the user's runtime folder.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub fn join_in(runtime: &std::path::Path, name: &LanName) -> Result<Self, NetError> {
        let failed = |path: PathBuf, error| NetError::Lan { name: name.to_string(), path, error };
        let directory =
            Directory::open(runtime, name).map_err(|(path, error)| failed(path, error))?;
        let path = directory.path().to_owned();
        let service = thread::start::<_, NetError>("lan", |registry| {
            Switch::new(directory, registry).map_err(|error| failed(path, error))
        })?;
        Ok(Self { service })
    }
}

impl NetBackend for Lan {
    fn info(&self) -> NetInfo {
        NetInfo { mtu: 1500, offloads: NetOffloads::ALL, queue_pairs: 1 }
    }

    fn connect(&self, device: Weak<dyn NetDevice>) {
        self.service.connect(device);
    }

    fn wake(&self) {
        self.service.wake();
    }
}
