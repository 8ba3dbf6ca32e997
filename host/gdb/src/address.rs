//! Where the stub listens.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Where the stub listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP port; whoever can reach it controls the guest.
    Tcp(SocketAddr),
    /// A Unix socket: the file is made, and removed at the end.
    Unix(PathBuf),
}

/// The text names no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write an address and a port, as `127.0.0.1:1234`, or the path of a socket, as `./gdb`")]
pub struct ParseAddressError;

impl FromStr for ListenAddress {
    type Err = ParseAddressError;

    /// `ADDRESS:PORT`, a port alone for this host only, `unix:PATH`, or a path with a `/`.
    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        if text.contains('/') {
            return Ok(Self::Unix(text.into()));
        }
        if let Ok(port) = text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
            return Ok(Self::Tcp((Ipv4Addr::LOCALHOST, port).into()));
        }
        text.parse().map(Self::Tcp).map_err(|_| ParseAddressError)
    }
}

impl fmt::Display for ListenAddress {
    /// As GDB's `target remote` takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_of_this_host_only() {
        let local = ListenAddress::Tcp(([127, 0, 0, 1], 1234).into());

        assert_eq!("1234".parse(), Ok(local.clone()));
        assert_eq!(":1234".parse(), Ok(local.clone()));
        assert_eq!("127.0.0.1:1234".parse(), Ok(local));
    }

    #[test]
    fn a_path_is_a_unix_socket() {
        assert_eq!("./gdb".parse(), Ok(ListenAddress::Unix("./gdb".into())));
        assert_eq!("unix:gdb".parse(), Ok(ListenAddress::Unix("gdb".into())));
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!("here".parse::<ListenAddress>(), Err(ParseAddressError));
        assert_eq!("unix:".parse::<ListenAddress>(), Err(ParseAddressError));
        assert_eq!("127.0.0.1:70000".parse::<ListenAddress>(), Err(ParseAddressError));
    }
}
