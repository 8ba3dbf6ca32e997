//! Ports of the host that lead into the guest.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::num::NonZeroU16;
use core::str::FromStr;

/// The transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port of the host that leads into the guest: `tcp:[ADDRESS:]HOST_PORT:GUEST_PORT`.
///
/// Without an address it is the host's loopback, 127.0.0.1: who wants a port to be seen by others
/// says so (`tcp:0.0.0.0:8080:80`). An IPv6 address stands in brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The protocol.
    pub transport: Transport,
    /// Where the host listens; port 0 takes any that is free.
    pub host: SocketAddr,
    /// The guest's port.
    pub guest_port: NonZeroU16,
}

/// A text that is no [`Forward`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseForwardError {
    /// Not of the form.
    Form(String),
    /// Neither `tcp` nor `udp`.
    Transport(String),
    /// Not an address.
    Address(String),
    /// Not a port.
    Port(String),
    /// A guest's port of 0.
    GuestPortZero,
}

impl fmt::Display for ParseForwardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form(text) => write!(
                f,
                "`{text}` is no port forward: write `tcp:HOST_PORT:GUEST_PORT` or \
                 `tcp:ADDRESS:HOST_PORT:GUEST_PORT`, as `tcp:127.0.0.1:2222:22`"
            ),
            Self::Transport(word) => {
                write!(f, "`{word}` can't be forwarded: write `tcp` or `udp`")
            }
            Self::Address(text) => write!(
                f,
                "`{text}` is no address to listen on: write one as `127.0.0.1`, `0.0.0.0` or \
                 `[::1]`"
            ),
            Self::Port(text) => write!(f, "`{text}` is no port: write a number from 1 to 65535"),
            Self::GuestPortZero => {
                f.write_str("the guest has no port 0: write one from 1 to 65535")
            }
        }
    }
}

impl core::error::Error for ParseForwardError {}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.transport, self.host, self.guest_port)
    }
}

impl FromStr for Forward {
    type Err = ParseForwardError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || ParseForwardError::Form(text.to_owned());
        let (transport, rest) = text.split_once(':').ok_or_else(form)?;
        let transport = match transport {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            other => return Err(ParseForwardError::Transport(other.to_owned())),
        };
        let (host, guest_port) = rest.rsplit_once(':').ok_or_else(form)?;
        let guest_port =
            NonZeroU16::new(port(guest_port)?).ok_or(ParseForwardError::GuestPortZero)?;
        let (address, host_port) = match host.rsplit_once(':') {
            Some((address, host_port)) => (self::address(address)?, port(host_port)?),
            None => (IpAddr::V4(Ipv4Addr::LOCALHOST), port(host)?),
        };
        Ok(Self { transport, host: SocketAddr::new(address, host_port), guest_port })
    }
}

fn port(text: &str) -> Result<u16, ParseForwardError> {
    // `parse` alone would take a sign.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| ParseForwardError::Port(text.to_owned()))
}

fn address(text: &str) -> Result<IpAddr, ParseForwardError> {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let parsed = match bracketed {
        Some(inner) => inner.parse().map(IpAddr::V6).ok(),
        None => text.parse().map(IpAddr::V4).ok(),
    };
    parsed.ok_or_else(|| ParseForwardError::Address(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn error(text: &str) -> ParseForwardError {
        text.parse::<Forward>().unwrap_err()
    }

    #[test]
    fn each_forward_is_written_as_it_is_read() {
        for text in ["tcp:127.0.0.1:2222:22", "udp:0.0.0.0:5353:53", "tcp:[::1]:8080:80"] {
            assert_eq!(text.parse::<Forward>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn without_an_address_it_is_the_loopback() {
        let forward: Forward = "tcp:2222:22".parse().unwrap();
        assert_eq!(forward.to_string(), "tcp:127.0.0.1:2222:22");
    }

    #[test]
    fn each_wrong_forward_says_what_is_wrong() {
        assert_eq!(error("2222"), ParseForwardError::Form("2222".to_owned()));
        assert_eq!(error("tcp:22"), ParseForwardError::Form("tcp:22".to_owned()));
        assert_eq!(error("sctp:1:2"), ParseForwardError::Transport("sctp".to_owned()));
        assert_eq!(error("tcp:x:1:2"), ParseForwardError::Address("x".to_owned()));
        assert_eq!(error("tcp:::1:1:2"), ParseForwardError::Address("::1".to_owned()));
        assert_eq!(error("tcp:1:70000"), ParseForwardError::Port("70000".to_owned()));
        assert_eq!(error("tcp:+1:2"), ParseForwardError::Port("+1".to_owned()));
        assert_eq!(error("tcp:1:0"), ParseForwardError::GuestPortZero);
    }
}
