//! Ports of the host that lead into the guest.
//!
//! A TCP connection is accepted at once and then made to the guest; if the guest refuses, the
//! host's peer gets a reset. The guest sees the peer's own address, or the gateway's if the peer is
//! on the host's loopback or of the other version of IP: forwards always lead to 10.0.2.15.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use kasane_definition::{Forward, Transport};
use mio::net::{TcpListener, TcpStream, UdpSocket};
use mio::{Interest, Registry};

use super::plan::{self, GUEST};
use super::slots::{Id, Kind, Slots};
use super::udp::DATAGRAM_MAX;
use super::{owner, udp};
use crate::error::NetError;
use crate::frame::Mac;

/// Connections accepted, or datagrams taken, before the next one's turn.
const TURN: usize = 32;

/// How long a client of a UDP forward is remembered: for once to twice this time.
const CLIENT_MEMORY: Duration = Duration::from_secs(180);

/// Clients that are remembered, at most: twice this number.
const CLIENTS_MAX: usize = 1024;

/// A port that is bound but not served yet.
#[derive(Debug)]
pub(super) enum Bound {
    Tcp(TcpListener, NonZeroU16),
    Udp(UdpSocket, NonZeroU16),
}

/// Binds a forward's port on the host.
///
/// # Errors
/// [`NetError::Forward`] says what the system does, and who has the port if it is taken.
pub(super) fn bind(forward: &Forward) -> Result<(Bound, Forward), NetError> {
    let failed = |error: io::Error| NetError::Forward {
        forward: *forward,
        owner: if error.kind() == ErrorKind::AddrInUse {
            owner::of(forward.transport, forward.host.port())
        } else {
            None
        },
        error,
    };
    let (bound, host) = match forward.transport {
        Transport::Tcp => {
            let listener = TcpListener::bind(forward.host).map_err(failed)?;
            let host = listener.local_addr().map_err(failed)?;
            (Bound::Tcp(listener, forward.guest_port), host)
        }
        Transport::Udp => {
            let socket = UdpSocket::bind(forward.host).map_err(failed)?;
            let host = socket.local_addr().map_err(failed)?;
            (Bound::Udp(socket, forward.guest_port), host)
        }
    };
    Ok((bound, Forward { host, ..*forward }))
}

/// All forwards.
#[derive(Debug)]
pub(super) struct Forwards {
    tcp: Slots<(TcpListener, NonZeroU16)>,
    udp: Slots<(UdpSocket, NonZeroU16)>,
    clients: Clients,
    /// Those that something has come for.
    ready: Vec<Id>,
    buffer: Vec<u8>,
}

/// A connection that was accepted.
pub(super) struct Accepted {
    pub(super) guest: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) stream: TcpStream,
}

impl Forwards {
    pub(super) fn new(bound: Vec<Bound>, registry: &Registry, now: Instant) -> io::Result<Self> {
        let mut forwards = Self {
            tcp: Slots::new(Kind::TcpForward),
            udp: Slots::new(Kind::UdpForward),
            clients: Clients { young: HashMap::new(), old: HashMap::new(), since: now },
            ready: Vec::new(),
            buffer: vec![0; DATAGRAM_MAX],
        };
        for one in bound {
            match one {
                Bound::Tcp(mut listener, port) => {
                    let token = forwards.tcp.next_id().token();
                    registry.register(&mut listener, token, Interest::READABLE)?;
                    forwards.tcp.insert((listener, port));
                }
                Bound::Udp(mut socket, port) => {
                    let token = forwards.udp.next_id().token();
                    registry.register(&mut socket, token, Interest::READABLE)?;
                    forwards.udp.insert((socket, port));
                }
            }
        }
        Ok(forwards)
    }

    /// Something has come for a forward.
    pub(super) fn on_event(&mut self, id: Id) {
        if !self.ready.contains(&id) {
            self.ready.push(id);
        }
    }

    /// Takes connections and datagrams. Says whether there are more.
    pub(super) fn serve(
        &mut self,
        mac: Option<Mac>,
        context: &mut udp::Context<'_>,
        mut accepted: impl FnMut(Accepted, &mut udp::Context<'_>),
    ) -> bool {
        for id in std::mem::take(&mut self.ready) {
            let more = if id.kind == Kind::TcpForward {
                self.accept(id, &mut |one| accepted(one, context))
            } else {
                self.receive(id, mac, context)
            };
            if more {
                self.ready.push(id);
            }
        }
        !self.ready.is_empty()
    }

    fn accept(&mut self, id: Id, accepted: &mut dyn FnMut(Accepted)) -> bool {
        let Some((listener, port)) = self.tcp.get_mut(id) else { return false };
        for _ in 0..TURN {
            match listener.accept() {
                Ok((stream, peer)) => {
                    let remote = SocketAddr::new(plan::shown(peer.ip(), GUEST.into()), peer.port());
                    accepted(Accepted { guest: guest(*port), remote, stream });
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    // Nothing is there, or the system is out of descriptors: the next connection
                    // is an event again.
                    _ => return false,
                },
            }
        }
        true
    }

    fn receive(&mut self, id: Id, mac: Option<Mac>, context: &mut udp::Context<'_>) -> bool {
        let Some((socket, port)) = self.udp.get_mut(id) else { return false };
        for _ in 0..TURN {
            if context.outbox.is_filling() {
                return true;
            }
            let (len, client) = match socket.recv_from(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(_) => continue,
            };
            // A guest that was never heard of is asked for; its datagrams are lost till then.
            let Some(mac) = mac else {
                context.outbox.push(super::arp::request(GUEST.into()));
                continue;
            };
            let guest = guest(*port);
            let Some(shown) = self.clients.shown(guest, client, id, context.now) else { continue };
            let data = self.buffer.get(..len).unwrap_or_default();
            udp::deliver(udp::Ends { mac, guest, shown }, data, context);
        }
        true
    }

    /// Sends a datagram of the guest's back to a forward's client. Says whether it was for one.
    pub(super) fn reply(
        &mut self,
        guest: SocketAddr,
        shown: SocketAddr,
        data: &[u8],
        now: Instant,
    ) -> bool {
        let Some(client) = self.clients.find(guest, shown, now) else { return false };
        if let Some((socket, _)) = self.udp.get_mut(client.forward) {
            // A datagram may get lost.
            let _ = socket.send_to(data, client.address);
        }
        true
    }
}

fn guest(port: NonZeroU16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(GUEST), port.get())
}

/// Clients of UDP forwards, by what the guest sees: in two generations, of which the older one is
/// forgotten when the younger has become old or full.
#[derive(Debug)]
struct Clients {
    young: HashMap<(SocketAddr, SocketAddr), Client>,
    old: HashMap<(SocketAddr, SocketAddr), Client>,
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Client {
    forward: Id,
    address: SocketAddr,
}

impl Clients {
    fn find(&mut self, guest: SocketAddr, shown: SocketAddr, now: Instant) -> Option<Client> {
        self.age(now);
        let key = (guest, shown);
        if let Some(client) = self.young.get(&key) {
            return Some(*client);
        }
        let client = self.old.remove(&key)?;
        self.young.insert(key, client);
        Some(client)
    }

    /// How the guest sees a client: with its own port, or the next one that is free.
    fn shown(
        &mut self,
        guest: SocketAddr,
        address: SocketAddr,
        forward: Id,
        now: Instant,
    ) -> Option<SocketAddr> {
        /// Clients of one port and address, as the guest sees it: two, of which one is in IPv6.
        const TRIES: u16 = 8;
        let client = Client { forward, address };
        let ip = plan::shown(address.ip(), guest.ip());
        for step in 0..TRIES {
            let port = address.port().checked_add(step).unwrap_or(step).max(1);
            let shown = SocketAddr::new(ip, port);
            match self.find(guest, shown, now) {
                Some(known) if known != client => {}
                Some(_) => return Some(shown),
                None => {
                    self.young.insert((guest, shown), client);
                    return Some(shown);
                }
            }
        }
        None
    }

    fn age(&mut self, now: Instant) {
        let aged = now.saturating_duration_since(self.since) > CLIENT_MEMORY;
        if aged || self.young.len() >= CLIENTS_MAX {
            self.old = std::mem::take(&mut self.young);
            self.since = now;
        }
    }
}
