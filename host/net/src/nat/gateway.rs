//! The gateway: takes the guest's frames apart, and has a part for each protocol.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use kasane_ports::{FrameOffload, NetDevice};
use mio::{Events, Registry};

use super::dhcp::{self, Leases};
use super::dns::Resolver;
use super::echo::EchoTable;
use super::emit::{ICMP, ICMP6};
use super::forward::Forwards;
use super::icmp::{self, Unreachable};
use super::outbox::Outbox;
use super::packet::{Datagram, Ipv4, Packet, Sums};
use super::plan::{self, BROADCAST_MAC, GATEWAY_MAC, GUEST, Reach, Target};
use super::reassembly::Reassembly;
use super::slots::{Id, Kind};
use super::tcp::{self, Opening, TcpTable};
use super::udp::{self, UdpTable};
use super::{arp, ndp};
use crate::frame::{ETHERNET, FRAME_MAX, Mac, layout};
use crate::link::Link;
use crate::thread::{Network, Next};

/// Frames that are taken from the guest before everything else has its turn.
const TURN: usize = 64;

/// IP addresses on the guest's side whose Ethernet addresses are remembered.
const NEIGHBOURS_MAX: usize = 256;

/// All of the NAT's state, in its thread.
pub(super) struct Gateway {
    reach: Reach,
    common: Common,
    tcp: TcpTable,
    udp: UdpTable,
    echo: EchoTable,
    forwards: Forwards,
    resolver: Resolver,
    leases: Leases,
    reassembly: Reassembly,
    neighbours: HashMap<IpAddr, Mac>,
    frame: Vec<u8>,
    advertise: Instant,
}

/// What the tables of flows share.
struct Common {
    outbox: Outbox,
    registry: Registry,
    /// Payload of an Ethernet frame.
    mtu: u16,
    /// Frames that the guest has sent so far.
    life: u64,
    /// The identification of the next packet that is cut.
    ident: u16,
}

impl Common {
    fn for_tcp<'a, 'd>(&'a mut self, link: &'a mut Link<'d>, now: Instant) -> tcp::Context<'a, 'd> {
        let Self { outbox, registry, mtu, life, .. } = self;
        tcp::Context { link, outbox, registry, mtu: *mtu, now, life: *life }
    }

    fn for_udp<'a>(&'a mut self, resolver: &'a mut Resolver, now: Instant) -> udp::Context<'a> {
        let Self { outbox, registry, mtu, ident, .. } = self;
        udp::Context { outbox, registry, resolver, mtu: *mtu, now, ident }
    }
}

/// What a gateway is made of.
pub(super) struct Parts {
    pub(super) reach: Reach,
    pub(super) mtu: u16,
    pub(super) registry: Registry,
    pub(super) forwards: Forwards,
    pub(super) resolver: Resolver,
    pub(super) now: Instant,
}

impl Gateway {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            reach: parts.reach,
            common: Common {
                outbox: Outbox::default(),
                registry: parts.registry,
                mtu: parts.mtu,
                life: 0,
                ident: 0,
            },
            tcp: TcpTable::new(parts.now),
            udp: UdpTable::new(),
            echo: EchoTable::new(),
            forwards: parts.forwards,
            resolver: parts.resolver,
            leases: Leases::default(),
            reassembly: Reassembly::default(),
            neighbours: HashMap::new(),
            frame: Vec::with_capacity(FRAME_MAX),
            advertise: parts.now + Duration::from_secs(ndp::ADVERTISE_EVERY),
        }
    }

    /// Takes frames of the guest's. Says whether there may be more.
    fn take(&mut self, link: &mut Link<'_>, now: Instant) -> bool {
        let mut frame = std::mem::take(&mut self.frame);
        let mut more = true;
        for _ in 0..TURN {
            let Some(offload) = link.take(&mut frame) else {
                more = false;
                break;
            };
            self.common.life = self.common.life.wrapping_add(1);
            self.input(&frame, &offload, link, now);
        }
        self.frame = frame;
        more
    }

    /// Takes a frame, which may be anything.
    fn input(&mut self, frame: &[u8], offload: &FrameOffload, link: &mut Link<'_>, now: Instant) {
        let Some((header, body)) = frame.split_first_chunk::<ETHERNET>() else { return };
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, kind @ ..] = *header;
        let (to, from) = ([d0, d1, d2, d3, d4, d5], [s0, s1, s2, s3, s4, s5]);
        // An odd first byte is a group of stations.
        if (to != GATEWAY_MAC && d0 & 1 == 0) || s0 & 1 == 1 {
            return;
        }
        let left = offload.checksum.is_some() || offload.checked;
        let sums = if left { Sums::Left } else { Sums::Present };
        match kind {
            [0x08, 0x06] => self.input_arp(body),
            layout::IPV4 => match Packet::ipv4(from, body, sums) {
                Some(Ipv4::Whole(packet)) => self.input_ip(&packet, link, now),
                Some(Ipv4::Part(packet, part)) => {
                    if let Some(body) = self.reassembly.input(&packet, part) {
                        self.input_ip(&Packet { body: &body, ..packet }, link, now);
                    }
                }
                None => {}
            },
            layout::IPV6 => {
                if let Some(packet) = Packet::ipv6(from, body, sums) {
                    self.input_ip(&packet, link, now);
                }
            }
            _ => {}
        }
    }

    fn input_arp(&mut self, body: &[u8]) {
        let Some(heard) = arp::input(body) else { return };
        self.meet(heard.address.into(), heard.mac);
        if let Some(answer) = heard.answer {
            self.common.outbox.push(answer);
        }
    }

    /// Notes who has an address.
    fn meet(&mut self, address: IpAddr, mac: Mac) {
        if address.is_unspecified() || plan::is_ours(address) || mac == BROADCAST_MAC {
            return;
        }
        if self.neighbours.get(&address) == Some(&mac) {
            return;
        }
        if self.neighbours.len() >= NEIGHBOURS_MAX {
            self.neighbours.clear();
        }
        self.neighbours.insert(address, mac);
        self.tcp.on_neighbour(address, mac);
    }

    fn input_ip(&mut self, packet: &Packet<'_>, link: &mut Link<'_>, now: Instant) {
        if packet.protocol == layout::UDP && self.input_dhcp(packet) {
            return;
        }
        if packet.protocol == ICMP6
            && let Some(answer) = ndp::input(packet, self.common.mtu)
        {
            return self.common.outbox.push(answer);
        }
        // Nobody can answer these; the gateway's own addresses are no guest's.
        let from = packet.from;
        if from.is_unspecified() || from.is_multicast() || from.is_loopback() || plan::is_ours(from)
        {
            return;
        }
        self.meet(from, packet.mac);
        if packet.hop_limit <= 1 && !plan::is_ours(packet.to) && !packet.to.is_multicast() {
            return self.common.outbox.push(icmp::time_exceeded(packet));
        }
        match packet.protocol {
            layout::TCP => self.input_tcp(packet, link, now),
            layout::UDP => self.input_udp(packet, now),
            ICMP | ICMP6 if packet.protocol == icmp::protocol(packet.to) => {
                self.input_icmp(packet, now);
            }
            _ => {}
        }
    }

    /// Whether it was for the DHCP server.
    fn input_dhcp(&mut self, packet: &Packet<'_>) -> bool {
        let Some(datagram) = Datagram::of(packet) else { return false };
        let served = [plan::GATEWAY.into(), IpAddr::V4(std::net::Ipv4Addr::BROADCAST)];
        if datagram.to.port() != dhcp::SERVER_PORT || !served.contains(&packet.to) {
            return false;
        }
        if let Some(answer) = self.leases.input(&datagram, self.common.mtu) {
            self.common.outbox.push(answer);
        }
        true
    }

    fn input_tcp(&mut self, packet: &Packet<'_>, link: &mut Link<'_>, now: Instant) {
        let (reach, resolver) = (&self.reach, &mut self.resolver);
        let mut context = self.common.for_tcp(link, now);
        self.tcp.input(packet, &mut context, |address| match plan::target(reach, address) {
            Target::Host(target) => Opening::Connect(target),
            Target::Resolver => {
                resolver.stream_server(now).map_or(Opening::Refuse, Opening::Connect)
            }
            Target::Nowhere => Opening::Refuse,
            Target::Ignored => Opening::Ignore,
        });
    }

    fn input_udp(&mut self, packet: &Packet<'_>, now: Instant) {
        let Some(datagram) = Datagram::of(packet) else { return };
        if self.forwards.reply(datagram.from, datagram.to, datagram.data, now) {
            return;
        }
        let mut context = self.common.for_udp(&mut self.resolver, now);
        match plan::target(&self.reach, datagram.to) {
            Target::Host(target) => self.udp.send(packet, &datagram, target, &mut context),
            Target::Resolver => self.udp.query(packet, &datagram, &mut context),
            Target::Nowhere => {
                let ours = plan::is_ours(packet.to);
                let why = if ours { Unreachable::Port } else { Unreachable::Host };
                self.common.outbox.push(icmp::unreachable(packet, why));
            }
            Target::Ignored => {}
        }
    }

    fn input_icmp(&mut self, packet: &Packet<'_>, now: Instant) {
        let request = packet.body.first_chunk::<2>() == Some(&icmp::echo_request(packet.to));
        let (true, Some(rest)) = (request, packet.body.get(4..)) else { return };
        if plan::is_ours(packet.to) {
            let reply = icmp::message(packet.back(), icmp::echo_reply(packet.to), rest);
            return self.common.outbox.push(reply);
        }
        match plan::target(&self.reach, SocketAddr::new(packet.to, 0)) {
            Target::Host(_) => {
                self.echo.send(packet, &mut self.common.outbox, &self.common.registry, now)
            }
            Target::Nowhere => {
                self.common.outbox.push(icmp::unreachable(packet, Unreachable::Host))
            }
            Target::Resolver | Target::Ignored => {}
        }
    }

    /// Sorts the host's events to whom they concern.
    fn sort(&mut self, events: &Events, now: Instant) {
        for event in events {
            let Some(id) = Id::of(event.token()) else { continue };
            match id.kind {
                Kind::Tcp => self.tcp.on_event(id, event),
                Kind::Udp => {
                    let mut context = self.common.for_udp(&mut self.resolver, now);
                    self.udp.on_event(id, event, &mut context);
                }
                Kind::Echo => self.echo.on_event(id),
                Kind::TcpForward | Kind::UdpForward => self.forwards.on_event(id),
            }
        }
    }

    /// Everything that goes to the guest. Says whether there is more that could go now.
    fn serve(&mut self, link: &mut Link<'_>, now: Instant) -> bool {
        self.common.outbox.flush(link);
        let mut more = self.serve_datagrams(link, now);
        let mut context = self.common.for_tcp(link, now);
        self.tcp.expire(&mut context);
        more |= self.tcp.serve(&mut context);
        self.common.outbox.flush(link);
        more
    }

    fn serve_datagrams(&mut self, link: &mut Link<'_>, now: Instant) -> bool {
        let mac = self.neighbours.get(&IpAddr::V4(GUEST)).copied();
        let (tcp, life) = (&mut self.tcp, self.common.life);
        let mut context = self.common.for_udp(&mut self.resolver, now);
        let mut more = self.forwards.serve(mac, &mut context, |accepted, context| {
            let mut context = tcp::Context {
                link,
                outbox: context.outbox,
                registry: context.registry,
                mtu: context.mtu,
                now,
                life,
            };
            tcp.forward((accepted.guest, accepted.remote), mac, accepted.stream, &mut context);
        });
        more |= self.udp.serve(&mut context);
        more |= self.echo.serve(&mut self.common.outbox);
        self.udp.expire(now, &self.common.registry);
        self.echo.expire(now, &self.common.registry);
        // Datagrams that wait for the guest's room can't go now.
        more && !link.is_full()
    }

    /// Tells a guest of the IPv6 network, as a router does now and then (RFC 4861 §6.2.4).
    fn advertise(&mut self, link: &Link<'_>, now: Instant) {
        if now < self.advertise {
            return;
        }
        self.advertise = now + Duration::from_secs(ndp::ADVERTISE_EVERY);
        if link.is_up() && self.neighbours.keys().any(IpAddr::is_ipv6) {
            self.common.outbox.push(ndp::advertisement([0x33, 0x33, 0, 0, 0, 1], self.common.mtu));
        }
    }
}

impl Network for Gateway {
    fn round(&mut self, device: Option<&dyn NetDevice>, events: &Events, now: Instant) -> Next {
        let mut link = Link::new(device);
        self.sort(events, now);
        self.advertise(&link, now);
        let mut more = self.take(&mut link, now);
        more |= self.serve(&mut link, now);
        if more {
            return Next::Now;
        }
        let deadlines =
            [self.tcp.next_deadline(), self.udp.next_deadline(), self.echo.next_deadline()];
        let next = deadlines.into_iter().flatten().fold(self.advertise, Instant::min);
        Next::At(next)
    }
}
