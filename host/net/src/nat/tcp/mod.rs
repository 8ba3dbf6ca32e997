//! TCP between the guest and the host's sockets: the table of connections.

mod flow;
mod input;
mod output;
mod queue;
mod rtt;
mod segment;
mod seq;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::Instant;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry};

use super::emit::{self, Route};
use super::icmp::{self, Unreachable};
use super::outbox::Outbox;
use super::packet::Packet;
use super::slots::{Id, Kind, Slots};
use super::timers::Timers;
use crate::frame::checksum::Sum;
use crate::frame::{Mac, layout};
use crate::link::Link;
use flow::{Due, End, Ends, Flow, HostState, Phase};
use output::Output;
use queue::Pool;
use segment::{Header, Options, Segment, flags};
use seq::Seq;

/// Connections at the same time; a guest that wants more is refused.
pub(crate) const FLOWS_MAX: usize = 4096;

/// Memory for what waits in all of them together, in bytes.
const MEMORY_MAX: usize = 128 << 20;

/// What one flow may read from the host before the next one's turn.
const TURN: usize = 256 << 10;

/// Both ends, as the guest sees them.
type Key = (SocketAddr, SocketAddr);

/// All connections.
#[derive(Debug)]
pub(crate) struct TcpTable {
    flows: Slots<Flow>,
    by_ends: HashMap<Key, Id>,
    pool: Pool,
    timers: Timers,
    /// Flows to be served.
    ready: VecDeque<Id>,
    /// Flows that wait for the device's room.
    blocked: VecDeque<Id>,
    /// Flows that wait for memory.
    starved: Vec<Id>,
    /// Flows that wait for the guest's Ethernet address.
    nameless: Vec<Id>,
    /// Makes first sequence numbers that nobody guesses (RFC 6528).
    secret: RandomState,
    begun: Instant,
    header: Vec<u8>,
}

/// What the table needs of the rest.
pub(crate) struct Context<'a, 'd> {
    pub(crate) link: &'a mut Link<'d>,
    pub(crate) outbox: &'a mut Outbox,
    pub(crate) registry: &'a Registry,
    /// Payload of an Ethernet frame.
    pub(crate) mtu: u16,
    pub(crate) now: Instant,
    /// Frames that the guest has sent so far.
    pub(crate) life: u64,
}

/// What is to become of a guest's SYN.
pub(crate) enum Opening {
    /// Connect to this.
    Connect(SocketAddr),
    /// Say that it is refused.
    Refuse,
    /// Say nothing.
    Ignore,
}

impl TcpTable {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            flows: Slots::new(Kind::Tcp),
            by_ends: HashMap::new(),
            pool: Pool::new(MEMORY_MAX),
            timers: Timers::default(),
            ready: VecDeque::new(),
            blocked: VecDeque::new(),
            starved: Vec::new(),
            nameless: Vec::new(),
            secret: RandomState::new(),
            begun: now,
            header: Vec::new(),
        }
    }

    /// Takes a segment of the guest's. `opening` says where a new connection leads.
    pub(crate) fn input(
        &mut self,
        packet: &Packet<'_>,
        context: &mut Context<'_, '_>,
        opening: impl FnOnce(SocketAddr) -> Opening,
    ) {
        let Some(segment) = Segment::of(packet) else { return };
        if let Some(&id) = self.by_ends.get(&(segment.guest, segment.remote)) {
            return self.input_known(id, &segment, packet.mac, context);
        }
        if segment.has(flags::RST) {
            return;
        }
        if !segment.has(flags::SYN) || segment.has(flags::ACK) {
            return context.outbox.push(reset_of(packet, &segment));
        }
        let refused = match opening(segment.remote) {
            Opening::Connect(_) if self.flows.len() >= FLOWS_MAX => Err(End::ResetGuest),
            Opening::Connect(target) => self.connect(packet, &segment, target, context),
            Opening::Refuse => Err(End::ResetGuest),
            Opening::Ignore => Ok(()),
        };
        match refused {
            Ok(()) => {}
            Err(End::Unreachable) => {
                context.outbox.push(icmp::unreachable(packet, Unreachable::Host));
            }
            Err(End::Done | End::ResetGuest | End::ResetHost | End::ResetBoth) => {
                context.outbox.push(reset_of(packet, &segment));
            }
        }
    }

    fn input_known(
        &mut self,
        id: Id,
        segment: &Segment<'_>,
        mac: Mac,
        context: &mut Context<'_, '_>,
    ) {
        let Some(flow) = self.flows.get_mut(id) else { return };
        flow.mac = Some(mac);
        match flow.input(segment, &mut self.pool, context.now) {
            Ok(()) => self.queue(id),
            Err(end) => self.end(id, end, context),
        }
    }

    /// Connects to where the guest wants to, and answers when that has come about.
    fn connect(
        &mut self,
        packet: &Packet<'_>,
        syn: &Segment<'_>,
        target: SocketAddr,
        context: &mut Context<'_, '_>,
    ) -> Result<(), End> {
        let stream = TcpStream::connect(target).map_err(|error| flow::refusal(&error))?;
        let ends = Ends {
            guest: syn.guest,
            remote: syn.remote,
            mac: Some(packet.mac),
            initial: self.initial(syn.guest, syn.remote, context.now),
        };
        let mut flow = Flow::new(ends, Phase::Connecting, stream, context.now);
        flow.receive.start(syn);
        flow.transmit.set_options(syn.options);
        self.insert(flow, context)
    }

    /// A connection of the host's to a port of the guest's; `remote` is how the guest sees its
    /// peer. Nothing if there are too many.
    pub(crate) fn forward(
        &mut self,
        (guest, remote): Key,
        mac: Option<Mac>,
        stream: TcpStream,
        context: &mut Context<'_, '_>,
    ) {
        if self.flows.len() >= FLOWS_MAX {
            return;
        }
        let Some(remote) = self.free_port(guest, remote) else { return };
        let initial = self.initial(guest, remote, context.now);
        let ends = Ends { guest, remote, mac, initial };
        let mut flow = Flow::new(ends, Phase::SynSent, stream, context.now);
        let _ = flow.host.stream.set_nodelay(true);
        flow.transmit.syn_due = true;
        // A flow that can't be watched is dropped, and with it the host's connection.
        let _ = self.insert(flow, context);
    }

    /// A port at which this peer has no connection yet, beginning with its own.
    fn free_port(&self, guest: SocketAddr, mut remote: SocketAddr) -> Option<SocketAddr> {
        /// With more than so many in a row something is wrong.
        const TRIES: u16 = 256;
        let first = remote.port();
        (0..TRIES).find_map(|step| {
            remote.set_port(first.checked_add(step).unwrap_or(step).max(1));
            (!self.by_ends.contains_key(&(guest, remote))).then_some(remote)
        })
    }

    fn insert(&mut self, mut flow: Flow, context: &mut Context<'_, '_>) -> Result<(), End> {
        let token = self.flows.next_id().token();
        let interest = Interest::READABLE | Interest::WRITABLE;
        context
            .registry
            .register(&mut flow.host.stream, token, interest)
            .map_err(|_| End::ResetGuest)?;
        let key = (flow.guest, flow.remote);
        let id = self.flows.insert(flow);
        self.by_ends.insert(key, id);
        self.queue(id);
        Ok(())
    }

    fn initial(&self, guest: SocketAddr, remote: SocketAddr, now: Instant) -> Seq {
        // The clock of RFC 9293 §3.4.1: 4 µs.
        let ticks = now.saturating_duration_since(self.begun).as_micros() / 4;
        Seq((self.secret.hash_one((guest, remote)) as u32).wrapping_add(ticks as u32))
    }

    /// Notes an event of the host's.
    pub(crate) fn on_event(&mut self, id: Id, event: &Event) {
        if let Some(flow) = self.flows.get_mut(id) {
            flow.on_event(event);
            self.queue(id);
        }
    }

    /// Looks after the flows whose time has come.
    pub(crate) fn expire(&mut self, context: &mut Context<'_, '_>) {
        while let Some(id) = self.timers.pop(context.now) {
            self.on_deadline(id, context);
        }
    }

    /// The next time at which a flow is to be looked after.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    fn on_deadline(&mut self, id: Id, context: &mut Context<'_, '_>) {
        let Some(flow) = self.flows.get_mut(id) else { return };
        flow.armed.popped();
        match flow.on_deadline(context.now, context.life) {
            Due::Nothing => {
                let deadline = flow.deadline();
                self.timers.arm(id, &mut flow.armed, deadline);
            }
            Due::Serve => self.queue(id),
            Due::End(end) => self.end(id, end, context),
        }
    }

    /// The guest's Ethernet address is known now.
    pub(crate) fn on_neighbour(&mut self, guest: std::net::IpAddr, mac: Mac) {
        for id in std::mem::take(&mut self.nameless) {
            match self.flows.get_mut(id) {
                Some(flow) if flow.guest.ip() == guest => {
                    flow.mac = Some(mac);
                    flow.waits.address = false;
                    self.queue(id);
                }
                Some(_) => self.nameless.push(id),
                None => {}
            }
        }
    }

    fn queue(&mut self, id: Id) {
        let Some(flow) = self.flows.get_mut(id) else { return };
        if !flow.queued {
            flow.queued = true;
            self.ready.push_back(id);
        }
    }

    /// Serves every flow that has something to do, once. Says whether one has more.
    pub(crate) fn serve(&mut self, context: &mut Context<'_, '_>) -> bool {
        if self.pool.has_returned() {
            for id in std::mem::take(&mut self.starved) {
                if let Some(flow) = self.flows.get_mut(id) {
                    flow.waits.memory = false;
                }
                self.queue(id);
            }
        }
        // One look at a device that still has no room is enough for all.
        for _ in 0..self.blocked.len() {
            if context.link.is_full() {
                break;
            }
            let Some(id) = self.blocked.pop_front() else { break };
            if let Some(flow) = self.flows.get_mut(id) {
                flow.waits.room = false;
                self.serve_flow(id, context);
            }
        }
        for _ in 0..self.ready.len() {
            let Some(id) = self.ready.pop_front() else { break };
            if let Some(flow) = self.flows.get_mut(id) {
                flow.queued = false;
                self.serve_flow(id, context);
            }
        }
        !self.ready.is_empty()
    }

    fn serve_flow(&mut self, id: Id, context: &mut Context<'_, '_>) {
        let Some(flow) = self.flows.get_mut(id) else { return };
        let state = match flow.serve_host(&mut self.pool, TURN) {
            Ok(state) => state,
            Err(end) => return self.end(id, end, context),
        };
        if flow.mac.is_none() {
            park(&mut self.nameless, &mut flow.waits.address, id);
            context.outbox.push(super::arp::request(flow.guest.ip()));
        }
        let mut output = Output {
            link: context.link,
            header: &mut self.header,
            mss: context.mtu.saturating_sub(40),
            now: context.now,
        };
        flow.output(&mut output);
        if flow.is_done() {
            return self.end(id, End::Done, context);
        }
        if flow.is_broken_off() {
            return self.end(id, End::ResetGuest, context);
        }
        let deadline = flow.deadline();
        self.timers.arm(id, &mut flow.armed, deadline);
        if context.link.is_full() && flow.wants_output() {
            park(&mut self.blocked, &mut flow.waits.room, id);
        }
        match state {
            HostState::Idle => {}
            HostState::More => self.queue(id),
            HostState::Starved => park(&mut self.starved, &mut flow.waits.memory, id),
        }
    }

    /// Ends a flow and says so to whom it concerns.
    fn end(&mut self, id: Id, end: End, context: &mut Context<'_, '_>) {
        let Some(mut flow) = self.flows.remove(id) else { return };
        self.by_ends.remove(&(flow.guest, flow.remote));
        self.timers.disarm(id, flow.armed);
        flow.clear(&mut self.pool);
        let _ = context.registry.deregister(&mut flow.host.stream);
        if matches!(end, End::ResetHost | End::ResetBoth) {
            flow.reset_host();
        }
        let Some(mac) = flow.mac else { return };
        let route = Route { mac, from: flow.remote.ip(), to: flow.guest.ip() };
        match end {
            End::Done | End::ResetHost => {}
            End::ResetGuest | End::ResetBoth => {
                let header = Header {
                    ports: (flow.remote.port(), flow.guest.port()),
                    seq: flow.transmit.end(),
                    ack: flow.receive.next,
                    flags: flags::RST | flags::ACK,
                    window: 0,
                    options: Options::default(),
                };
                context.outbox.push(bare(route, &header));
            }
            End::Unreachable => {
                let mut quoted = Vec::with_capacity(8);
                quoted.extend_from_slice(&flow.guest.port().to_be_bytes());
                quoted.extend_from_slice(&flow.remote.port().to_be_bytes());
                quoted.extend_from_slice(&(flow.receive.next - 1).0.to_be_bytes());
                let frame = icmp::unreachable_later(route, layout::TCP, &quoted, Unreachable::Host);
                context.outbox.push(frame);
            }
        }
    }
}

/// Puts a flow on a list of those that wait, once.
fn park(list: &mut impl Extend<Id>, waits: &mut bool, id: Id) {
    if !std::mem::replace(waits, true) {
        list.extend([id]);
    }
}

/// The reset that answers a segment of no connection (RFC 9293 §3.5.2).
fn reset_of(packet: &Packet<'_>, segment: &Segment<'_>) -> Vec<u8> {
    let (seq, ack, flags) = if segment.has(flags::ACK) {
        (segment.ack, Seq(0), flags::RST)
    } else {
        (Seq(0), segment.seq + segment.len(), flags::RST | flags::ACK)
    };
    let ports = (segment.remote.port(), segment.guest.port());
    bare(packet.back(), &Header { ports, seq, ack, flags, window: 0, options: Options::default() })
}

/// A segment without data, in a frame.
fn bare(route: Route, header: &Header) -> Vec<u8> {
    let mut plain = Vec::with_capacity(20);
    header.write(&mut plain, [0, 0]);
    let mut sum = Sum::pseudo(route.from, route.to, layout::TCP, plain.len());
    sum.add(&plain);
    let mut segment = Vec::with_capacity(20);
    header.write(&mut segment, sum.checksum());
    emit::packet(route, layout::TCP, &segment)
}
