//! One member's switch, in its thread.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use kasane_ports::{FrameOffload, Given, NetDevice, SegmentationKind};
use mio::unix::SourceFd;
use mio::{Events, Interest, Registry, Token};
use rustix::io::Errno;

use super::directory::{Directory, Name};
use super::member::{self, Message, Sent};
use crate::frame::segment::{self, plain_frames};
use crate::frame::{FRAME_MAX, Mac};
use crate::link::Link;
use crate::thread::{Network, Next};

/// Members of a LAN, at most: each costs everybody two descriptors.
const MEMBERS_MAX: usize = 256;

/// Connections that were accepted and have not said who they are, at most, with those that have.
const INCOMING_MAX: usize = 2 * MEMBERS_MAX;

/// Ethernet addresses that are remembered, at most.
const ADDRESSES_MAX: usize = 4096;

/// A member that took nothing for so long is stuck: nobody waits for it any more.
const STUCK: Duration = Duration::from_millis(250);

/// Frames that are taken from the guest, or from one member, before the others' turn.
const TURN: usize = 64;

/// What the kernel is asked to keep for a member, in bytes; it gives less if it must.
const BUFFER: usize = 2 << 20;

/// A member that could not be connected to, or taken in, is tried again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

const LISTENER: Token = Token(1);

/// The switch.
pub(super) struct Switch {
    directory: Directory,
    registry: Registry,
    listener: OwnedFd,
    /// The members that we send to, by name and by token.
    outgoing: HashMap<Name, Outgoing>,
    names: HashMap<Token, Name>,
    incoming: HashMap<Token, Incoming>,
    /// Incoming connections that may have something.
    ready: VecDeque<Token>,
    /// Behind which member an address is.
    addresses: HashMap<Mac, Name>,
    /// A frame of the guest's that waits for a member's room.
    held: Option<Held>,
    /// Frames for the guest that wait for its room.
    waiting: VecDeque<(Vec<u8>, FrameOffload)>,
    frame: Vec<u8>,
    /// What was received, of [`FRAME_MAX`] bytes.
    received: Vec<u8>,
    next_token: usize,
    /// When the folder is to be looked at again.
    look_again: Option<Instant>,
}

/// A connection that we send on.
struct Outgoing {
    socket: OwnedFd,
    token: Token,
    /// Since when it has had no room.
    full: Option<Instant>,
}

/// A connection that we receive on.
struct Incoming {
    socket: OwnedFd,
    name: Option<Name>,
    queued: bool,
}

/// A frame that waits.
struct Held {
    to: Name,
    frame: Vec<u8>,
    offload: FrameOffload,
    until: Instant,
}

impl Switch {
    pub(super) fn new(directory: Directory, registry: Registry) -> io::Result<Self> {
        let listener = directory.listen()?;
        registry.register(&mut SourceFd(&listener.as_raw_fd()), LISTENER, Interest::READABLE)?;
        let mut switch = Self {
            directory,
            registry,
            listener,
            outgoing: HashMap::new(),
            names: HashMap::new(),
            incoming: HashMap::new(),
            ready: VecDeque::new(),
            addresses: HashMap::new(),
            held: None,
            waiting: VecDeque::new(),
            frame: Vec::with_capacity(FRAME_MAX),
            received: vec![0; FRAME_MAX],
            next_token: LISTENER.0 + 1,
            look_again: None,
        };
        switch.meet_all();
        Ok(switch)
    }

    /// Connects to all who are there.
    fn meet_all(&mut self) {
        self.look_again = None;
        match self.directory.others() {
            Ok(names) => names.into_iter().for_each(|name| self.meet(name)),
            Err(_) => self.look_again = Some(Instant::now() + LOOK_AGAIN),
        }
    }

    fn token(&mut self) -> Token {
        let token = Token(self.next_token);
        self.next_token = self.next_token.wrapping_add(1).max(LISTENER.0 + 1);
        token
    }

    /// Connects to a member, if that was not done.
    fn meet(&mut self, name: Name) {
        let known = self.outgoing.contains_key(&name) || name == self.directory.name();
        if known || self.outgoing.len() >= MEMBERS_MAX {
            return;
        }
        let socket = match self.directory.connect(name) {
            Ok(Some(socket)) => socket,
            Ok(None) => return,
            // It has no room for another connection just now, or we have no descriptor.
            Err(_) => {
                self.look_again.get_or_insert(Instant::now() + LOOK_AGAIN);
                return;
            }
        };
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, BUFFER);
        let token = self.token();
        let source = socket.as_raw_fd();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.registry.register(&mut SourceFd(&source), token, interest).is_err()
            || member::send_hello(&socket, self.directory.name()) != Sent::Taken
        {
            return;
        }
        self.names.insert(token, name);
        self.outgoing.insert(name, Outgoing { socket, token, full: None });
    }

    /// Forgets a member.
    fn part(&mut self, name: Name) {
        let Some(gone) = self.outgoing.remove(&name) else { return };
        let _ = self.registry.deregister(&mut SourceFd(&gone.socket.as_raw_fd()));
        self.names.remove(&gone.token);
        self.addresses.retain(|_, behind| *behind != name);
        self.held.take_if(|held| held.to == name);
    }

    fn accept(&mut self) {
        use rustix::net::{SocketFlags, accept_with};
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            let socket = match accept_with(&self.listener, flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                // We have no descriptor. Whoever waits there is no event again.
                Err(_) => {
                    self.look_again.get_or_insert(Instant::now() + LOOK_AGAIN);
                    return;
                }
            };
            if self.incoming.len() >= INCOMING_MAX {
                continue;
            }
            let token = self.token();
            let source = socket.as_raw_fd();
            let registered =
                self.registry.register(&mut SourceFd(&source), token, Interest::READABLE);
            if registered.is_ok() {
                self.incoming.insert(token, Incoming { socket, name: None, queued: true });
                self.ready.push_back(token);
            }
        }
    }

    fn sort(&mut self, events: &Events) {
        for event in events {
            let token = event.token();
            if token == LISTENER {
                self.accept();
            } else if let Some(incoming) = self.incoming.get_mut(&token) {
                if !std::mem::replace(&mut incoming.queued, true) {
                    self.ready.push_back(token);
                }
            } else if let Some(&name) = self.names.get(&token) {
                // Nobody sends on these, so what can be read is the end.
                if event.is_read_closed() || event.is_error() || event.is_write_closed() {
                    self.part(name);
                } else if let Some(outgoing) = self.outgoing.get_mut(&name) {
                    outgoing.full = None;
                }
            }
        }
    }

    /// Takes frames of the guest's. Says whether there may be more that could go.
    fn take(&mut self, link: &mut Link<'_>, now: Instant) -> bool {
        if !self.send_held(now) {
            return false;
        }
        for _ in 0..TURN {
            let mut frame = std::mem::take(&mut self.frame);
            let Some(offload) = link.take(&mut frame) else {
                self.frame = frame;
                return false;
            };
            if let Some(held) = self.forward(frame, offload, now) {
                self.held = Some(held);
                return false;
            }
        }
        true
    }

    /// Sends the frame that waits. Says whether none waits any more.
    fn send_held(&mut self, now: Instant) -> bool {
        let Some(held) = self.held.take() else { return true };
        match self.send(held.to, &held.offload, &held.frame, now) {
            Sent::NoRoom if now < held.until => {
                self.held = Some(held);
                false
            }
            Sent::NoRoom | Sent::Taken | Sent::Dead => true,
        }
    }

    /// Sends a frame of the guest's to whom it concerns; gives it back if it is to wait.
    fn forward(&mut self, frame: Vec<u8>, offload: FrameOffload, now: Instant) -> Option<Held> {
        let to = segment::destination(&frame)?;
        let known = self.addresses.get(&to).copied().filter(|_| to[0] & 1 == 0);
        let Some(name) = known else {
            self.flood(&frame, &offload, now);
            self.frame = frame;
            return None;
        };
        match self.send(name, &offload, &frame, now) {
            Sent::NoRoom => {
                let full = self.outgoing.get(&name).and_then(|outgoing| outgoing.full);
                let until = full.unwrap_or(now) + STUCK;
                if now < until {
                    return Some(Held { to: name, frame, offload, until });
                }
            }
            Sent::Taken | Sent::Dead => {}
        }
        self.frame = frame;
        None
    }

    /// Sends a frame to everybody who has room. Who hasn't misses it, as on any switch.
    fn flood(&mut self, frame: &[u8], offload: &FrameOffload, now: Instant) {
        let names: Vec<Name> = self.outgoing.keys().copied().collect();
        for name in names {
            self.send(name, offload, frame, now);
        }
    }

    fn send(&mut self, name: Name, offload: &FrameOffload, frame: &[u8], now: Instant) -> Sent {
        let Some(outgoing) = self.outgoing.get_mut(&name) else { return Sent::Dead };
        let sent = member::send_frame(&outgoing.socket, offload, frame);
        match sent {
            Sent::Taken => outgoing.full = None,
            Sent::NoRoom => {
                outgoing.full.get_or_insert(now);
            }
            Sent::Dead => self.part(name),
        }
        sent
    }

    /// Gives the guest what others have sent. Says whether there may be more.
    fn give(&mut self, link: &mut Link<'_>) -> bool {
        for _ in 0..self.ready.len() {
            if !self.give_waiting(link) {
                // What waits for the guest goes first; it calls when it has room.
                return false;
            }
            let Some(token) = self.ready.pop_front() else { break };
            if self.receive(token, link) {
                self.ready.push_back(token);
            }
        }
        self.give_waiting(link) && !self.ready.is_empty()
    }

    /// Whether nothing waits for the guest any more.
    fn give_waiting(&mut self, link: &mut Link<'_>) -> bool {
        while let Some((frame, offload)) = self.waiting.front() {
            match link.give(&[frame], *offload) {
                Given::Taken | Given::Refused => {
                    self.waiting.pop_front();
                }
                Given::NoRoom => return false,
            }
        }
        true
    }

    /// Receives from one member until it has nothing, or the guest no room. Says whether there may
    /// be more.
    fn receive(&mut self, token: Token, link: &mut Link<'_>) -> bool {
        let mut buffer = std::mem::take(&mut self.received);
        let mut more = true;
        for _ in 0..TURN {
            let Some(incoming) = self.incoming.get_mut(&token) else {
                more = false;
                break;
            };
            match member::receive(&incoming.socket, &mut buffer) {
                Message::Hello(name) => {
                    incoming.name = Some(name);
                    self.meet(name);
                }
                Message::Frame(offload, len) => {
                    if let (Some(name), Some(frame)) = (incoming.name, buffer.get(..len)) {
                        self.learn(frame, name);
                        self.deliver(frame, offload, link);
                    }
                }
                Message::Nonsense => {}
                Message::Nothing => {
                    incoming.queued = false;
                    more = false;
                    break;
                }
                Message::End => {
                    self.close(token);
                    more = false;
                    break;
                }
            }
            if !self.waiting.is_empty() {
                break;
            }
        }
        self.received = buffer;
        more
    }

    fn close(&mut self, token: Token) {
        let Some(gone) = self.incoming.remove(&token) else { return };
        let _ = self.registry.deregister(&mut SourceFd(&gone.socket.as_raw_fd()));
    }

    fn learn(&mut self, frame: &[u8], name: Name) {
        let Some(from) = segment::source(frame) else { return };
        let known = self.addresses.contains_key(&from);
        if from[0] & 1 == 0 && (known || self.addresses.len() < ADDRESSES_MAX) {
            self.addresses.insert(from, name);
        }
    }

    /// Gives the guest a frame, made such that it takes it.
    fn deliver(&mut self, frame: &[u8], offload: FrameOffload, link: &mut Link<'_>) {
        if !link.is_up() {
            return;
        }
        let takes = link.offloads();
        let cut = offload.segmentation.is_none_or(|cut| match cut.kind {
            SegmentationKind::Tcp4 => takes.tcp4,
            SegmentationKind::Tcp6 => takes.tcp6,
            SegmentationKind::Udp => false,
        });
        if cut && (takes.partial_checksum || offload.checksum.is_none()) {
            if link.give(&[frame], offload) == Given::NoRoom {
                self.waiting.push_back((frame.to_vec(), offload));
            }
            return;
        }
        for plain in plain_frames(frame.to_vec(), &offload) {
            self.waiting.push_back((plain, FrameOffload::default()));
        }
        self.give_waiting(link);
    }
}

impl Network for Switch {
    fn round(&mut self, device: Option<&dyn NetDevice>, events: &Events, now: Instant) -> Next {
        let mut link = Link::new(device);
        if self.look_again.is_some_and(|time| time <= now) {
            self.meet_all();
            self.accept();
        }
        self.sort(events);
        let mut more = self.take(&mut link, now);
        more |= self.give(&mut link);
        if more {
            return Next::Now;
        }
        let held = self.held.as_ref().map(|held| held.until);
        held.into_iter().chain(self.look_again).min().map_or(Next::Event, Next::At)
    }
}
