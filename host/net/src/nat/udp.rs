//! UDP: a socket of the host's for each port of the guest's.
//!
//! The mapping is endpoint-independent (RFC 4787 §4.1): whoever the guest sends to from one port,
//! the host sends from one port, so that what finds its peers through third parties works. What
//! comes back is taken from those that the guest has sent to only (address-dependent filtering,
//! RFC 4787 §5). Queries to the name server have sockets of their own.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::UdpSocket;
use mio::{Interest, Registry};

use super::dns::Resolver;
use super::emit::{self, Route};
use super::icmp::{self, Unreachable};
use super::outbox::Outbox;
use super::packet::{Datagram, Packet};
use super::plan;
use super::slots::{Id, Kind, Slots};
use super::timers::{Armed, Timers};
use crate::frame::{Mac, layout};

/// Sockets at the same time. For one more, the one that was idle for about the longest is closed.
pub(crate) const SOCKETS_MAX: usize = 1024;

/// A socket is closed when it was idle for so long (RFC 4787 §4.3 asks for 2 minutes at least), or
/// when a query was not answered for so long.
const IDLE: Duration = Duration::from_secs(180);
const QUERY_IDLE: Duration = Duration::from_secs(20);

/// A query that is asked again after this time goes to the next name server.
const QUERY_PATIENCE: Duration = Duration::from_secs(1);

/// Hosts whose datagrams a socket takes: those that the guest has sent to last.
const REMOTES_MAX: usize = 64;

/// Datagrams that one socket takes before the next one's turn.
const TURN: usize = 32;

/// A datagram, at most (RFC 768, with an IPv4 header).
pub(super) const DATAGRAM_MAX: usize = 65_507;

/// The guest's port, and the name server's address if it is for queries.
type Key = (SocketAddr, Option<IpAddr>);

/// All sockets.
#[derive(Debug)]
pub(super) struct UdpTable {
    sockets: Slots<Socket>,
    by_guest: HashMap<Key, Id>,
    ready: VecDeque<Id>,
    timers: Timers,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Socket {
    socket: UdpSocket,
    key: Key,
    mac: Mac,
    peers: Peers,
    used: Instant,
    queued: bool,
    armed: Armed,
}

/// Who is at the other end.
#[derive(Debug)]
enum Peers {
    /// Those that the guest has sent to, the last one at the end.
    World(VecDeque<IpAddr>),
    /// A name server.
    Server { server: SocketAddr, asked: Option<Instant> },
}

/// What the table needs of the rest.
pub(super) struct Context<'a> {
    pub(super) outbox: &'a mut Outbox,
    pub(super) registry: &'a Registry,
    pub(super) resolver: &'a mut Resolver,
    pub(super) mtu: u16,
    pub(super) now: Instant,
    /// The identification of the next packet that is cut.
    pub(super) ident: &'a mut u16,
}

impl UdpTable {
    pub(super) fn new() -> Self {
        Self {
            sockets: Slots::new(Kind::Udp),
            by_guest: HashMap::new(),
            ready: VecDeque::new(),
            timers: Timers::default(),
            buffer: vec![0; DATAGRAM_MAX],
        }
    }

    /// Sends a datagram of the guest's to a host.
    pub(super) fn send(
        &mut self,
        packet: &Packet<'_>,
        datagram: &Datagram<'_>,
        target: SocketAddr,
        context: &mut Context<'_>,
    ) {
        let id = match self.by_guest.get(&(datagram.from, None)) {
            Some(id) => Ok(*id),
            None => self.open_world(packet, datagram.from, target, context),
        };
        let sent = id.and_then(|id| {
            let socket = self.sockets.get_mut(id).ok_or(ErrorKind::NotFound)?;
            socket.used = context.now;
            socket.mac = packet.mac;
            socket.add_peer(target.ip());
            retried(|| socket.socket.send_to(datagram.data, target))
        });
        if let Err(error) = sent
            && let Some(why) = unreachable(&error)
        {
            context.outbox.push(icmp::unreachable(packet, why));
        }
    }

    /// Sends a query of the guest's to the host's name server.
    pub(super) fn query(
        &mut self,
        packet: &Packet<'_>,
        datagram: &Datagram<'_>,
        context: &mut Context<'_>,
    ) {
        let key = (datagram.from, Some(datagram.to.ip()));
        if let Some(&id) = self.by_guest.get(&key)
            && let Some(socket) = self.sockets.get_mut(id)
            && let Peers::Server { server, asked: Some(asked) } = socket.peers
            && context.now.saturating_duration_since(asked) > QUERY_PATIENCE
        {
            context.resolver.distrust(server);
            self.close(id, context.registry);
        }
        let id = match self.by_guest.get(&key) {
            Some(id) => Ok(*id),
            None => self.open_query(packet, key, context),
        };
        let sent = id.and_then(|id| {
            let socket = self.sockets.get_mut(id).ok_or(ErrorKind::NotFound)?;
            socket.used = context.now;
            if let Peers::Server { asked, .. } = &mut socket.peers {
                asked.get_or_insert(context.now);
            }
            retried(|| socket.socket.send(datagram.data))
        });
        if sent.is_err_and(|error| error.kind() != ErrorKind::WouldBlock) {
            context.outbox.push(icmp::unreachable(packet, Unreachable::Port));
        }
    }

    fn open_world(
        &mut self,
        packet: &Packet<'_>,
        guest: SocketAddr,
        target: SocketAddr,
        context: &mut Context<'_>,
    ) -> io::Result<Id> {
        let socket = UdpSocket::bind(unspecified(target.ip()))?;
        report_errors(&socket, target.ip());
        let peers = Peers::World(VecDeque::new());
        self.insert(socket, (guest, None), packet.mac, peers, context)
    }

    fn open_query(
        &mut self,
        packet: &Packet<'_>,
        key: Key,
        context: &mut Context<'_>,
    ) -> io::Result<Id> {
        let server = context.resolver.server(context.now).ok_or(ErrorKind::NotFound)?;
        let socket = UdpSocket::bind(unspecified(server.ip()))?;
        socket.connect(server)?;
        self.insert(socket, key, packet.mac, Peers::Server { server, asked: None }, context)
    }

    fn insert(
        &mut self,
        mut socket: UdpSocket,
        key: Key,
        mac: Mac,
        peers: Peers,
        context: &mut Context<'_>,
    ) -> io::Result<Id> {
        if self.sockets.len() >= SOCKETS_MAX
            && let Some(oldest) = self.timers.first()
        {
            self.close(oldest, context.registry);
        }
        let token = self.sockets.next_id().token();
        context.registry.register(&mut socket, token, Interest::READABLE)?;
        let used = context.now;
        let armed = Armed::default();
        let id =
            self.sockets.insert(Socket { socket, key, mac, peers, used, queued: false, armed });
        self.by_guest.insert(key, id);
        self.arm(id);
        Ok(id)
    }

    fn arm(&mut self, id: Id) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        let deadline = socket.deadline();
        self.timers.arm(id, &mut socket.armed, Some(deadline));
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
            if socket.deadline() <= now {
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

    /// Notes an event of the host's.
    pub(super) fn on_event(&mut self, id: Id, event: &Event, context: &mut Context<'_>) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        if event.is_error() {
            socket.take_errors(context.outbox);
        }
        if !socket.queued {
            socket.queued = true;
            self.ready.push_back(id);
        }
    }

    /// Takes what has come for the guest, while there is room. Says whether there is more.
    pub(super) fn serve(&mut self, context: &mut Context<'_>) -> bool {
        for _ in 0..self.ready.len() {
            if context.outbox.is_filling() {
                break;
            }
            let Some(id) = self.ready.pop_front() else { break };
            let Some(socket) = self.sockets.get_mut(id) else { continue };
            match socket.serve(&mut self.buffer, context) {
                Turn::Over => socket.queued = false,
                Turn::More => self.ready.push_back(id),
                Turn::Dead => self.close(id, context.registry),
            }
        }
        !self.ready.is_empty()
    }
}

/// How a socket's turn ended.
enum Turn {
    /// Nothing more is there.
    Over,
    /// There may be more.
    More,
    /// Nobody is at the other end.
    Dead,
}

impl Socket {
    fn deadline(&self) -> Instant {
        match self.peers {
            Peers::World(_) => self.used + IDLE,
            Peers::Server { .. } => self.used + QUERY_IDLE,
        }
    }

    fn add_peer(&mut self, peer: IpAddr) {
        let Peers::World(peers) = &mut self.peers else { return };
        if peers.back() == Some(&peer) {
            return;
        }
        peers.retain(|known| *known != peer);
        if peers.len() >= REMOTES_MAX {
            peers.pop_front();
        }
        peers.push_back(peer);
    }

    fn serve(&mut self, buffer: &mut [u8], context: &mut Context<'_>) -> Turn {
        for _ in 0..TURN {
            if context.outbox.is_filling() {
                return Turn::More;
            }
            match self.socket.recv_from(buffer) {
                Ok((len, from)) => {
                    self.deliver(buffer.get(..len).unwrap_or_default(), from, context)
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Turn::Over,
                    ErrorKind::Interrupted => {}
                    _ => {
                        if let Peers::Server { server, .. } = self.peers {
                            context.resolver.distrust(server);
                            return Turn::Dead;
                        }
                    }
                },
            }
        }
        Turn::More
    }

    fn deliver(&mut self, data: &[u8], from: SocketAddr, context: &mut Context<'_>) {
        let (guest, asked) = self.key;
        let shown = match &mut self.peers {
            Peers::World(peers) => {
                if !peers.contains(&from.ip()) {
                    return;
                }
                SocketAddr::new(plan::shown(from.ip(), guest.ip()), from.port())
            }
            Peers::Server { asked: unanswered, .. } => {
                *unanswered = None;
                let Some(asked) = asked else { return };
                SocketAddr::new(asked, plan::DNS_PORT)
            }
        };
        self.used = context.now;
        deliver(Ends { mac: self.mac, guest, shown }, data, context);
    }

    /// Tells the guest of the ICMP errors that its datagrams have met.
    #[cfg(target_os = "linux")]
    fn take_errors(&mut self, outbox: &mut Outbox) {
        use rustix::net::{RecvAncillaryBuffer, RecvFlags, recvmsg};
        // The error itself is the last one's only; it is good enough for the few in the queue.
        let Ok(Some(error)) = self.socket.take_error() else { return };
        let why = unreachable(&error);
        let (guest, _) = self.key;
        for _ in 0..TURN {
            let flags = RecvFlags::ERRQUEUE | RecvFlags::DONTWAIT;
            let mut control = RecvAncillaryBuffer::default();
            let Ok(message) = recvmsg(&self.socket, &mut [], &mut control, flags) else { return };
            let target = message.address.and_then(|address| SocketAddr::try_from(address).ok());
            let (Some(target), Some(why)) = (target, why) else { continue };
            let from = plan::shown(target.ip(), guest.ip());
            let mut head = Vec::with_capacity(8);
            head.extend_from_slice(&guest.port().to_be_bytes());
            head.extend_from_slice(&target.port().to_be_bytes());
            head.extend_from_slice(&[0, 8, 0, 0]);
            let route = Route { mac: self.mac, from, to: guest.ip() };
            outbox.push(icmp::unreachable_later(route, layout::UDP, &head, why));
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn take_errors(&mut self, _: &mut Outbox) {
        let _ = self.socket.take_error();
    }
}

/// The guest's end of a datagram to it, and the other as the guest sees it.
pub(super) struct Ends {
    pub(super) mac: Mac,
    pub(super) guest: SocketAddr,
    pub(super) shown: SocketAddr,
}

/// Gives the guest a datagram, cut if it is longer than the link takes.
pub(super) fn deliver(ends: Ends, data: &[u8], context: &mut Context<'_>) {
    let Ends { mac, guest, shown } = ends;
    let route = Route { mac, from: shown.ip(), to: guest.ip() };
    let mut datagram = Vec::with_capacity(8 + data.len());
    emit::udp(&mut datagram, route, (shown.port(), guest.port()), data);
    *context.ident = context.ident.wrapping_add(1);
    for frame in emit::fragments(route, layout::UDP, &datagram, context.mtu, *context.ident) {
        context.outbox.push(frame);
    }
}

/// A socket reports errors of earlier datagrams when it sends the next one, which has to be sent
/// again then.
fn retried(mut send: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    match send() {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => send(),
        result => result,
    }
}

/// What an error of a socket is for the guest.
fn unreachable(error: &io::Error) -> Option<Unreachable> {
    match error.kind() {
        ErrorKind::ConnectionRefused => Some(Unreachable::Port),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Some(Unreachable::Host),
        ErrorKind::PermissionDenied => Some(Unreachable::Prohibited),
        _ => None,
    }
}

/// Any address and port of this version of IP.
pub(super) fn unspecified(version: IpAddr) -> SocketAddr {
    let address = match version {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(address, 0)
}

/// Without this the guest waits in vain where it could have been told.
#[cfg(target_os = "linux")]
fn report_errors(socket: &UdpSocket, version: IpAddr) {
    use crate::system::{Ipv6, report_icmp_errors};
    let ipv6 = if version.is_ipv6() { Ipv6::Yes } else { Ipv6::No };
    let _ = report_icmp_errors(socket, ipv6);
}

#[cfg(not(target_os = "linux"))]
fn report_errors(_: &UdpSocket, _: IpAddr) {}
