//! The two ends of a connection: bytes out at once per packet, events in by a queue.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, Sender};

use gdbstub::conn::Connection;

use crate::target::Stop;

/// What a session waits for.
pub(crate) enum Event {
    /// Bytes of the debugger.
    Bytes(Vec<u8>),
    /// The debugger is gone.
    Closed,
    /// The machine has something to tell.
    Stop(Stop),
}

/// What a session takes up next.
pub(crate) enum Next {
    Byte(u8),
    Closed,
    Stop(Stop),
}

/// Events in order, bytes one by one.
pub(crate) struct Inbox {
    events: Receiver<Event>,
    bytes: VecDeque<u8>,
}

impl Inbox {
    pub(crate) fn new(events: Receiver<Event>) -> Self {
        Self { events, bytes: VecDeque::new() }
    }

    /// Waits for the next event.
    pub(crate) fn next(&mut self) -> Next {
        loop {
            if let Some(byte) = self.bytes.pop_front() {
                return Next::Byte(byte);
            }
            match self.events.recv() {
                Ok(Event::Bytes(bytes)) => self.bytes.extend(bytes),
                Ok(Event::Closed) | Err(_) => return Next::Closed,
                Ok(Event::Stop(stop)) => return Next::Stop(stop),
            }
        }
    }
}

/// Hands on what the debugger sends until it is gone.
pub(crate) fn receive(mut from: impl Read, events: &Sender<Event>) {
    let mut buf = [0; 4096];
    loop {
        let event = match from.read(&mut buf) {
            Ok(0) => Event::Closed,
            Ok(len) => Event::Bytes(buf.get(..len).unwrap_or_default().to_vec()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => Event::Closed,
        };
        let last = matches!(event, Event::Closed);
        if events.send(event).is_err() || last {
            return;
        }
    }
}

/// Bytes to the debugger, kept together until somebody waits for an answer to them.
pub(crate) struct Outbox<W> {
    to: W,
    kept: Vec<u8>,
}

impl<W: Write> Outbox<W> {
    pub(crate) fn new(to: W) -> Self {
        Self { to, kept: Vec::new() }
    }

    pub(crate) fn send(&mut self) -> io::Result<()> {
        if self.kept.is_empty() {
            return Ok(());
        }
        let sent = self.to.write_all(&self.kept).and_then(|()| self.to.flush());
        self.kept.clear();
        sent
    }
}

impl<W: Write> Connection for Outbox<W> {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.kept.push(byte);
        Ok(())
    }

    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        self.kept.extend_from_slice(buf);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}
