//! What can go wrong when a network is set up.

use std::io;

use kasane_definition::Forward;

/// A network that can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The system refused something that any network needs.
    #[error("the network's thread can't be started: {0}")]
    System(#[from] io::Error),
    /// A port of the host can't be had.
    #[error("port forward {forward}: the host's {} can't be listened on: {}", forward.host, reason(error, owner.as_deref()))]
    Forward {
        /// What was asked for.
        forward: Forward,
        /// Who has the port, if it is taken and the system tells.
        owner: Option<String>,
        /// What the system said.
        error: io::Error,
    },
    /// The folder of a LAN can't be used.
    #[error("LAN {name}: {path}: {error}")]
    Lan {
        /// The LAN's name.
        name: String,
        /// The file or folder.
        path: std::path::PathBuf,
        /// What is wrong with it.
        error: io::Error,
    },
    /// There is no folder for a user's sockets.
    #[error("LAN {name}: there is no folder for sockets: XDG_RUNTIME_DIR is not set")]
    NoRuntimeDir {
        /// The LAN's name.
        name: String,
    },
    /// The kernel's interface can't be used.
    #[error("interface {interface}: {error}")]
    Tap {
        /// The interface's name.
        interface: String,
        /// What the system said.
        error: io::Error,
    },
    /// This host's system has no such network.
    #[error("network {0} is not there on this system")]
    Unsupported(String),
    /// The file of a capture can't be written.
    #[error("capture {path}: {error}")]
    Capture {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl NetError {
    /// One action that may help.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Forward { forward, error, .. } => match error.kind() {
                io::ErrorKind::AddrInUse => Some(format!(
                    "choose another port, as `{}:{}:0:{}` for any that is free",
                    forward.transport,
                    bracketed(forward.host.ip()),
                    forward.guest_port
                )),
                io::ErrorKind::PermissionDenied => {
                    Some("choose a port from 1024 on: lower ones are the system's".to_owned())
                }
                _ => None,
            },
            Self::Tap { interface, error } => match error.kind() {
                io::ErrorKind::NotFound => Some("load the driver: `sudo modprobe tun`".to_owned()),
                io::ErrorKind::ResourceBusy => {
                    Some("the interface is in use by another program".to_owned())
                }
                _ => Some(format!(
                    "make the interface yours: `sudo ip tuntap add dev {interface} mode tap user \
                     $USER; sudo ip link set {interface} up`"
                )),
            },
            Self::NoRuntimeDir { .. } => {
                Some("set XDG_RUNTIME_DIR to a folder that only you can use".to_owned())
            }
            Self::Unsupported(_) => Some("use `nat`, which works everywhere".to_owned()),
            Self::System(_) | Self::Lan { .. } | Self::Capture { .. } => None,
        }
    }
}

fn bracketed(address: std::net::IpAddr) -> String {
    match address {
        std::net::IpAddr::V4(address) => address.to_string(),
        std::net::IpAddr::V6(address) => format!("[{address}]"),
    }
}

fn reason(error: &io::Error, owner: Option<&str>) -> String {
    match owner {
        Some(owner) => format!("it is taken by {owner}"),
        None => error.to_string(),
    }
}
