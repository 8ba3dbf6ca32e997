//! Echo requests of the guest's ("ping"), by the host's unprivileged ICMP sockets.
//!
//! Linux lets those groups have such sockets that `net.ipv4.ping_group_range` names. Where it
//! doesn't, the guest is told that it is prohibited, which is the truth; only the gateway's own
//! addresses always answer.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Interest, Registry};

use super::emit::Route;
use super::icmp::{self, Unreachable};
use super::outbox::Outbox;
use super::packet::Packet;
use super::plan;
use super::slots::{Id, Kind, Slots};
use super::timers::{Armed, Timers};
use crate::frame::Mac;

/// Sockets at the same time; for one more, the one that was idle for about the longest is closed.
const SOCKETS_MAX: usize = 64;

/// A socket that was idle for so long is closed.
const IDLE: Duration = Duration::from_secs(30);

/// Answers that one socket takes before the next one's turn.
const TURN: usize = 16;

/// Who pings, and the identifier that it uses.
type Key = (IpAddr, u16);

/// All sockets.
#[derive(Debug)]
pub(super) struct EchoTable {
    sockets: Slots<Socket>,
    by_guest: HashMap<Key, Id>,
    ready: VecDeque<Id>,
    timers: Timers,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Socket {
    /// An ICMP socket, which is used as a UDP one is.
    socket: UdpSocket,
    key: Key,
    mac: Mac,
    used: Instant,
    queued: bool,
    armed: Armed,
}

impl EchoTable {
    pub(super) fn new() -> Self {
        Self {
            sockets: Slots::new(Kind::Echo),
            by_guest: HashMap::new(),
            ready: VecDeque::new(),
            timers: Timers::default(),
            buffer: vec![0; usize::from(u16::MAX)],
        }
    }

    /// Sends the guest's echo request on; answers in its place if that is not allowed.
    pub(super) fn send(
        &mut self,
        packet: &Packet<'_>,
        outbox: &mut Outbox,
        registry: &Registry,
        now: Instant,
    ) {
        let Err(error) = self.try_send(packet, registry, now) else { return };
        let why = match error.kind() {
            ErrorKind::WouldBlock => return,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Unreachable::Host,
            _ => Unreachable::Prohibited,
        };
        outbox.push(icmp::unreachable(packet, why));
    }

    fn try_send(
        &mut self,
        packet: &Packet<'_>,
        registry: &Registry,
        now: Instant,
    ) -> io::Result<()> {
        let ident = packet.body.get(4..6).and_then(|bytes| bytes.first_chunk::<2>());
        let Some(ident) = ident else { return Ok(()) };
        let key = (packet.from, u16::from_be_bytes(*ident));
        let id = match self.by_guest.get(&key) {
            Some(id) => *id,
            None => self.open(key, packet.mac, registry, now)?,
        };
        let socket = self.sockets.get_mut(id).ok_or(ErrorKind::NotFound)?;
        socket.used = now;
        // The system puts its own identifier and checksum in.
        socket.socket.send_to(packet.body, SocketAddr::new(packet.to, 0))?;
        Ok(())
    }

    fn open(&mut self, key: Key, mac: Mac, registry: &Registry, now: Instant) -> io::Result<Id> {
        let mut socket = open_socket(key.0)?;
        if self.sockets.len() >= SOCKETS_MAX
            && let Some(oldest) = self.timers.first()
        {
            self.close(oldest, registry);
        }
        registry.register(&mut socket, self.sockets.next_id().token(), Interest::READABLE)?;
        let armed = Armed::default();
        let id = self.sockets.insert(Socket { socket, key, mac, used: now, queued: false, armed });
        self.by_guest.insert(key, id);
        self.arm(id);
        Ok(id)
    }

    fn arm(&mut self, id: Id) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        self.timers.arm(id, &mut socket.armed, Some(socket.used + IDLE));
    }

    fn close(&mut self, id: Id, registry: &Registry) {
        let Some(mut socket) = self.sockets.remove(id) else { return };
        self.by_guest.remove(&socket.key);
        self.timers.disarm(id, socket.armed);
        let _ = registry.deregister(&mut socket.socket);
    }

    /// Closes what was idle for long.
    pub(super) fn expire(&mut self, now: Instant, registry: &Registry) {
        while let Some(id) = self.timers.pop(now) {
            let Some(socket) = self.sockets.get_mut(id) else { continue };
            socket.armed.popped();
            if socket.used + IDLE <= now {
                self.close(id, registry);
            } else {
                self.arm(id);
            }
        }
    }

    /// The next time at which something expires.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Something has come for a socket.
    pub(super) fn on_event(&mut self, id: Id) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        if !socket.queued {
            socket.queued = true;
            self.ready.push_back(id);
        }
    }

    /// Takes what has come for the guest, while there is room. Says whether there is more.
    pub(super) fn serve(&mut self, outbox: &mut Outbox) -> bool {
        for _ in 0..self.ready.len() {
            if outbox.is_filling() {
                break;
            }
            let Some(id) = self.ready.pop_front() else { break };
            let Some(socket) = self.sockets.get_mut(id) else { continue };
            socket.queued = socket.serve(&mut self.buffer, outbox);
            if socket.queued {
                self.ready.push_back(id);
            }
        }
        !self.ready.is_empty()
    }
}

impl Socket {
    /// Whether there may be more.
    fn serve(&mut self, buffer: &mut [u8], outbox: &mut Outbox) -> bool {
        let (guest, ident) = self.key;
        for _ in 0..TURN {
            let (len, from) = match self.socket.recv_from(buffer) {
                Ok(received) => received,
                Err(error) => return error.kind() == ErrorKind::Interrupted,
            };
            let Some(body) = buffer.get(4..len) else { continue };
            let is_reply = buffer.first_chunk::<2>() == Some(&icmp::echo_reply(guest));
            let mut body = body.to_vec();
            let (true, Some(field)) = (is_reply, body.first_chunk_mut::<2>()) else { continue };
            *field = ident.to_be_bytes();
            let route = Route { mac: self.mac, from: plan::shown(from.ip(), guest), to: guest };
            outbox.push(icmp::message(route, icmp::echo_reply(guest), &body));
        }
        true
    }
}

/// A socket that sends echo requests and gets the answers to them, nothing else (icmp(7)).
#[cfg(target_os = "linux")]
fn open_socket(version: IpAddr) -> io::Result<UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let (domain, protocol) = match version {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
    socket.set_nonblocking(true)?;
    Ok(UdpSocket::from_std(socket.into()))
}

/// Other systems give such sockets to privileged processes only, or in another form.
#[cfg(not(target_os = "linux"))]
fn open_socket(_: IpAddr) -> io::Result<UdpSocket> {
    Err(ErrorKind::PermissionDenied.into())
}
