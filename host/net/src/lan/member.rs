//! Connections between members. One message is one frame, behind a header that says what is still
//! to be done to it; the first one of a connection is the sender's name.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;

use kasane_ports::FrameOffload;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendFlags, recvmsg, sendmsg,
};

use super::directory::Name;
use crate::frame::ETHERNET;
use crate::frame::offload::{self, HEADER};

/// What the first message begins with: the protocol and its version.
const HELLO: &[u8] = b"kasane-lan 1 ";

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// The member has it.
    Taken,
    /// The member has no room.
    NoRoom,
    /// The member is gone.
    Dead,
}

/// Says who we are.
pub(super) fn send_hello(to: &OwnedFd, name: Name) -> Sent {
    send(to, &[IoSlice::new(HELLO), IoSlice::new(name.bytes())])
}

/// Sends a frame.
pub(super) fn send_frame(to: &OwnedFd, offload: &FrameOffload, frame: &[u8]) -> Sent {
    send(to, &[IoSlice::new(&offload::encode(offload)), IoSlice::new(frame)])
}

fn send(to: &OwnedFd, parts: &[IoSlice<'_>]) -> Sent {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    match retry_on_intr(|| sendmsg(to, parts, &mut SendAncillaryBuffer::default(), flags)) {
        Ok(_) => Sent::Taken,
        Err(Errno::AGAIN | Errno::NOBUFS) => Sent::NoRoom,
        Err(_) => Sent::Dead,
    }
}

/// What has come.
pub(super) enum Message {
    /// A member's name.
    Hello(Name),
    /// A frame of this length is in the buffer.
    Frame(FrameOffload, usize),
    /// Something that makes no sense.
    Nonsense,
    /// Nothing, so far.
    Nothing,
    /// The member is gone.
    End,
}

/// Receives the next message; a frame into `frame`, which has [`FRAME_MAX`](crate::frame::FRAME_MAX)
/// bytes.
pub(super) fn receive(from: &OwnedFd, frame: &mut [u8]) -> Message {
    let mut header = [0; HEADER];
    let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(frame)];
    let flags = RecvFlags::DONTWAIT;
    // What is left behind by an interruption would be no event again.
    let received =
        retry_on_intr(|| recvmsg(from, &mut parts, &mut RecvAncillaryBuffer::default(), flags));
    let (len, whole) = match received {
        Ok(message) => (message.bytes, !message.flags.contains(ReturnFlags::TRUNC)),
        Err(Errno::AGAIN) => return Message::Nothing,
        Err(_) => return Message::End,
    };
    if len == 0 {
        return Message::End;
    }
    let len = len.saturating_sub(HEADER);
    if let Some(name) = frame.get(..len).and_then(|rest| hello(&header, rest)) {
        return Message::Hello(name);
    }
    match offload::decode(&header) {
        Some(offload) if whole && len >= ETHERNET => Message::Frame(offload, len),
        Some(_) | None => Message::Nonsense,
    }
}

fn hello(header: &[u8; HEADER], rest: &[u8]) -> Option<Name> {
    let rest = rest.strip_prefix(HELLO.strip_prefix(header)?)?;
    Name::parse(rest)
}
