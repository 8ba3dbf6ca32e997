//! Networks for virtual machines on a host's operating system: NAT without privileges, a LAN
//! between machines of one user, TAP, and captures of any of them.
//!
//! Each is a [`NetBackend`] with a thread of its own, which pulls frames
//! from the device and gives it frames; nothing is queued in between beyond small bounds.

mod capture;
mod error;
mod frame;
#[cfg(target_os = "linux")]
mod lan;
mod link;
pub mod nat;
mod system;
#[cfg(target_os = "linux")]
mod tap;
mod thread;

use std::path::Path;
use std::sync::Arc;

use kasane_definition::{Forward, NetChoice};
use kasane_ports::NetBackend;

pub use capture::{CaptureCounts, Captured};
pub use error::NetError;
#[cfg(target_os = "linux")]
pub use lan::Lan;
#[cfg(target_os = "linux")]
pub use tap::Tap;

use nat::{Nat, NatConfig};

/// The network of a machine.
pub struct Network {
    /// It.
    pub backend: Arc<dyn NetBackend>,
    /// Of a NAT: the forwards in their order, with the ports that the system chose where any was
    /// asked for.
    pub forwards: Vec<Forward>,
}

/// Makes the network of a machine; `None` if it is to have none. `nat` counts for [`NetChoice::Nat`]
/// only. With `capture`, all frames are written to that file as well.
///
/// # Errors
/// [`NetError`] says what is missing; its [`help`](NetError::help) says what may be done about it.
pub fn open(
    choice: &NetChoice,
    nat: &NatConfig,
    capture: Option<&Path>,
) -> Result<Option<Network>, NetError> {
    let mut forwards = Vec::new();
    let network: Arc<dyn NetBackend> = match choice {
        NetChoice::Nat => {
            let network = Nat::start(nat)?;
            forwards = network.forwards().to_vec();
            Arc::new(network)
        }
        NetChoice::Lan(name) => lan(name)?,
        NetChoice::Tap(interface) => tap(interface)?,
        NetChoice::None => return Ok(None),
    };
    let backend = match capture {
        Some(path) => Arc::new(Captured::new(network, path)?),
        None => network,
    };
    Ok(Some(Network { backend, forwards }))
}

/// The user's folder that LANs have their sockets in; made if it isn't there. `None`: there is no
/// place for it, and joining a LAN says so.
#[must_use]
pub fn lan_folder() -> Option<std::path::PathBuf> {
    #[cfg(target_os = "linux")]
    return lan::folder();
    #[cfg(not(target_os = "linux"))]
    None
}

#[cfg(target_os = "linux")]
fn lan(name: &kasane_definition::LanName) -> Result<Arc<dyn NetBackend>, NetError> {
    Ok(Arc::new(Lan::join(name)?))
}

#[cfg(not(target_os = "linux"))]
fn lan(name: &kasane_definition::LanName) -> Result<Arc<dyn NetBackend>, NetError> {
    Err(NetError::Unsupported(format!("lan:{name}")))
}

#[cfg(target_os = "linux")]
fn tap(interface: &str) -> Result<Arc<dyn NetBackend>, NetError> {
    Ok(Arc::new(Tap::open(interface)?))
}

#[cfg(not(target_os = "linux"))]
fn tap(interface: &str) -> Result<Arc<dyn NetBackend>, NetError> {
    Err(NetError::Unsupported(format!("tap:{interface}")))
}
