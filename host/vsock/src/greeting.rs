//! A program of the host that hasn't said yet where it wants to.

use std::io::{self, Read};
use std::time::Instant;

use mio::net::UnixStream;

/// The longest line.
const LINE_MAX: usize = 32;

/// What came of it so far.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// It wants to this port.
    Port(u32),
    /// It hasn't finished its line.
    NotYet,
    /// It is gone, or said something else.
    Nonsense,
}

/// A connection whose first line is being read.
pub(crate) struct Greeting {
    pub(crate) stream: UnixStream,
    pub(crate) since: Instant,
    line: Vec<u8>,
}

impl Greeting {
    pub(crate) fn new(stream: UnixStream, since: Instant) -> Self {
        Self { stream, since, line: Vec::new() }
    }

    /// Reads on. Byte by byte: what follows the line is for the guest.
    pub(crate) fn read(&mut self) -> Said {
        loop {
            let mut byte = [0];
            match self.stream.read(&mut byte) {
                Ok(0) => return Said::Nonsense,
                Ok(_) if byte == *b"\n" => return parse(&self.line),
                Ok(_) if self.line.len() == LINE_MAX => return Said::Nonsense,
                Ok(_) => self.line.extend(byte),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Said::NotYet,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Said::Nonsense,
            }
        }
    }
}

fn parse(line: &[u8]) -> Said {
    let port = str::from_utf8(line)
        .ok()
        .and_then(|line| line.strip_prefix("CONNECT "))
        .and_then(|port| port.trim_end_matches('\r').parse().ok());
    port.map_or(Said::Nonsense, Said::Port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_port_or_nothing() {
        assert_eq!(parse(b"CONNECT 1234"), Said::Port(1234));
        assert_eq!(parse(b"CONNECT 4294967295\r"), Said::Port(u32::MAX));
        for line in ["CONNECT", "CONNECT x", "CONNECT -1", "CONNECT 4294967296", "connect 1", ""] {
            assert_eq!(parse(line.as_bytes()), Said::Nonsense, "{line}");
        }
    }
}
