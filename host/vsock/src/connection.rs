//! One connection: a stream of the guest's and a Unix socket.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Instant;

use kasane_ports::{Given, VsockDevice, VsockOperation, VsockPacket};
use mio::Token;
use mio::net::UnixStream;

use crate::credit::Credit;

/// Bytes that are buffered for the host, which is what the guest may send ahead.
pub(crate) const BUFFER_LEN: usize = 128 << 10;
/// Bytes that are read from the host at once.
const CHUNK: usize = 32 << 10;
/// Bytes for the guest after which other connections get their turn.
const TURN: usize = 256 << 10;
/// The host's context id.
pub(crate) const HOST_CID: u64 = 2;

/// Names a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) guest_port: u32,
    pub(crate) host_port: u32,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The guest is to be asked, or hasn't answered.
    Asked(Instant),
    /// Both sides are there.
    Open,
}

/// What a connection's turn has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing more can be done now.
    Waits,
    /// There is more to do.
    More,
    /// The guest has no room.
    NoRoom,
    /// It is over; the guest is to be told.
    Over,
}

/// Packets that the guest is to get.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Owed {
    pub(crate) request: bool,
    pub(crate) response: bool,
    pub(crate) credit: bool,
}

/// A connection.
pub(crate) struct Connection {
    pub(crate) key: Key,
    pub(crate) token: Token,
    pub(crate) stream: UnixStream,
    pub(crate) stage: Stage,
    pub(crate) owed: Owed,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The host's end is closed altogether.
    pub(crate) hung_up: bool,
    pub(crate) credit: Credit,
    asked_for_credit: bool,
    to_host: VecDeque<u8>,
    /// Bytes at the front of `to_host` that are not the guest's.
    greeting: usize,
    /// Bytes of the guest's that the host has, wrapping; and what the guest was last told of it.
    forwarded: u32,
    told_forwarded: u32,
    from_host: Vec<u8>,
    host_ended: bool,
    told_end: bool,
    pub(crate) guest_receives: bool,
    pub(crate) guest_sends: bool,
    write_shut: bool,
}

impl Connection {
    pub(crate) fn new(key: Key, token: Token, stream: UnixStream, stage: Stage) -> Self {
        let asked = matches!(stage, Stage::Asked(_));
        Self {
            key,
            token,
            stream,
            stage,
            owed: Owed { request: asked, response: !asked, credit: false },
            readable: true,
            writable: true,
            hung_up: false,
            credit: Credit::default(),
            asked_for_credit: false,
            to_host: VecDeque::new(),
            greeting: 0,
            forwarded: 0,
            told_forwarded: 0,
            from_host: Vec::new(),
            host_ended: false,
            told_end: false,
            guest_receives: true,
            guest_sends: true,
            write_shut: false,
        }
    }

    /// The guest has accepted: the program of the host hears so.
    pub(crate) fn accepted(&mut self) {
        self.stage = Stage::Open;
        let line = format!("OK {}\n", self.key.host_port);
        self.greeting = line.len();
        self.to_host.extend(line.as_bytes());
    }

    /// Data of the guest's: whether it had the credit for it.
    pub(crate) fn take(&mut self, data: &[u8]) -> bool {
        let held = self.to_host.len().saturating_sub(self.greeting);
        let fits = held.saturating_add(data.len()) <= BUFFER_LEN;
        if fits && self.guest_sends && self.stage == Stage::Open {
            self.to_host.extend(data);
            return true;
        }
        false
    }

    /// The guest has told of its buffer.
    pub(crate) fn told(&mut self, packet: &VsockPacket) {
        self.credit.told(packet.buffer_len, packet.forwarded);
        self.asked_for_credit = false;
    }

    fn give(
        &mut self,
        device: &dyn VsockDevice,
        operation: VsockOperation,
        len: usize,
    ) -> (Given, usize) {
        let packet = VsockPacket {
            peer_cid: HOST_CID,
            guest_port: self.key.guest_port,
            peer_port: self.key.host_port,
            operation,
            buffer_len: BUFFER_LEN as u32,
            forwarded: self.forwarded,
        };
        let given = device.give(packet, self.from_host.get(..len).unwrap_or_default());
        if given.0 == Given::Taken {
            self.told_forwarded = self.forwarded;
        }
        given
    }

    /// Everything that can be done now.
    pub(crate) fn turn(&mut self, device: &dyn VsockDevice) -> Turn {
        if self.write_out().is_err() {
            return Turn::Over;
        }
        match self.send_owed(device) {
            Given::Taken => {}
            Given::NoRoom => return Turn::NoRoom,
            Given::Refused => return Turn::Over,
        }
        if !self.guest_sends && !self.guest_receives && self.to_host.is_empty() {
            return Turn::Over;
        }
        if self.stage != Stage::Open { Turn::Waits } else { self.read_in(device) }
    }

    /// What the guest sent goes to the host.
    fn write_out(&mut self) -> io::Result<()> {
        while self.writable && !self.to_host.is_empty() {
            match self.stream.write(self.to_host.as_slices().0) {
                Ok(len) => {
                    self.to_host.drain(..len);
                    let own = len.min(self.greeting);
                    self.greeting -= own;
                    self.forwarded = self.forwarded.wrapping_add((len - own) as u32);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.to_host.is_empty() && !self.guest_sends && !self.write_shut {
            self.write_shut = true;
            // The host's end may be gone already.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        // Half of the buffer is free that the guest doesn't know of.
        let news = self.forwarded.wrapping_sub(self.told_forwarded) as usize;
        self.owed.credit |= news >= BUFFER_LEN / 2;
        Ok(())
    }

    fn send_owed(&mut self, device: &dyn VsockDevice) -> Given {
        let owed = [
            (self.owed.request, VsockOperation::Request),
            (self.owed.response, VsockOperation::Response),
            (self.owed.credit, VsockOperation::CreditUpdate),
        ];
        for (_, operation) in owed.into_iter().filter(|(owed, _)| *owed) {
            let (given, _) = self.give(device, operation, 0);
            if given != Given::Taken {
                return given;
            }
        }
        self.owed = Owed::default();
        Given::Taken
    }

    /// What the host sent goes to the guest, as far as the guest has given credit.
    fn read_in(&mut self, device: &dyn VsockDevice) -> Turn {
        let mut done = 0;
        while self.guest_receives {
            if self.from_host.is_empty() && self.fill().is_err() {
                return Turn::Over;
            }
            if self.from_host.is_empty() {
                return self.end(device);
            }
            let len = self.from_host.len().min(self.credit.left());
            if len == 0 {
                return self.ask_for_credit(device);
            }
            match self.give(device, VsockOperation::Data, len) {
                (Given::Taken, taken) => {
                    self.credit.sent(taken);
                    self.from_host.drain(..taken.min(len));
                    done += taken;
                }
                (Given::NoRoom, _) => return Turn::NoRoom,
                (Given::Refused, _) => return Turn::Over,
            }
            if done >= TURN {
                return Turn::More;
            }
        }
        Turn::Waits
    }

    fn fill(&mut self) -> io::Result<()> {
        while self.readable && !self.host_ended {
            self.from_host.resize(CHUNK, 0);
            let read = self.stream.read(&mut self.from_host);
            self.from_host.truncate(*read.as_ref().unwrap_or(&0));
            match read {
                Ok(len) => {
                    self.host_ended = len == 0;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn ask_for_credit(&mut self, device: &dyn VsockDevice) -> Turn {
        if !self.asked_for_credit {
            match self.give(device, VsockOperation::CreditRequest, 0).0 {
                Given::Taken => self.asked_for_credit = true,
                Given::NoRoom => return Turn::NoRoom,
                Given::Refused => return Turn::Over,
            }
        }
        Turn::Waits
    }

    /// The host sends no more: the guest hears so, once.
    fn end(&mut self, device: &dyn VsockDevice) -> Turn {
        if !self.host_ended || self.told_end {
            return Turn::Waits;
        }
        let operation = VsockOperation::Shutdown { receive: self.hung_up, send: true };
        match self.give(device, operation, 0).0 {
            Given::Taken => {
                self.told_end = true;
                Turn::Waits
            }
            Given::NoRoom => Turn::NoRoom,
            Given::Refused => Turn::Over,
        }
    }
}
