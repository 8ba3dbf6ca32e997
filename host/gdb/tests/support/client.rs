//! A debugger's side of the protocol, packet by packet.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A connection to the stub.
pub(crate) struct Client {
    stream: UnixStream,
}

impl Client {
    pub(crate) fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream }
    }

    /// Sends a packet and gives the answer to it.
    pub(crate) fn ask(&mut self, packet: &str) -> String {
        self.send(packet);
        self.answer()
    }

    /// Sends a packet.
    pub(crate) fn send(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        self.stream.write_all(format!("${packet}#{sum:02x}").as_bytes()).unwrap();
        assert_eq!(self.byte(), b'+');
    }

    /// Sends raw bytes, as Ctrl-C is one.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next packet of the stub, its run lengths written out.
    pub(crate) fn answer(&mut self) -> String {
        assert_eq!(self.byte(), b'$');
        let mut text = String::new();
        loop {
            match self.byte() {
                b'#' => break,
                b'*' => {
                    let times = self.byte() - 29;
                    let last = text.chars().last().unwrap();
                    text.extend((0..times).map(|_| last));
                }
                other => text.push(other.into()),
            }
        }
        self.byte();
        self.byte();
        let _closed_after_it = self.stream.write_all(b"+");
        text
    }

    /// The stub has closed the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0))
    }

    /// The stub has closed the connection, after it took the last packet.
    pub(crate) fn is_closed_after_ack(&mut self) -> bool {
        let mut left = Vec::new();
        self.stream.read_to_end(&mut left).unwrap();
        left.is_empty() || left == b"+"
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).unwrap();
        byte[0]
    }
}

/// A number as the protocol has it: bytes in the guest's order.
pub(crate) fn number(hex: &str) -> u64 {
    let digits = |at: usize| u64::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).rev().fold(0, |value, at| value << 8 | digits(at))
}

/// A text as `monitor` sends and gets it.
pub(crate) fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// The other way.
pub(crate) fn text(hex: &str) -> String {
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    String::from_utf8((0..hex.len()).step_by(2).map(byte).collect()).unwrap()
}
