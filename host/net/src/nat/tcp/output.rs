//! Segments to the guest.

use std::io::IoSlice;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use kasane_ports::{FrameOffload, Given, PartialChecksum, Segmentation, SegmentationKind};

use super::super::emit::{self, Fragment, Payload, Route};
use super::flow::{Flow, Phase};
use super::input::WINDOW_SCALE;
use super::queue::{ByteQueue, CHUNK, Pool};
use super::rtt::RoundTrip;
use super::segment::{Header, Options, Segment, flags};
use super::seq::Seq;
use crate::frame::checksum::Sum;
use crate::frame::layout;
use crate::link::Link;

/// The payload of a frame that the guest cuts itself: with all headers it is less than 64 KiB.
const LONG_PAYLOAD: usize = 64_000;

/// Slices that such a payload is made of, at most: it begins and ends inside of a chunk.
const SLICES: usize = LONG_PAYLOAD / CHUNK + 2;

/// The segment size of a peer that says none (RFC 9293 §3.7.1), and the least that we believe.
const MSS_DEFAULT: u16 = 536;
const MSS_MIN: u16 = 64;

/// A closed window is asked about after this time, should its opening have been lost.
const PERSIST: Duration = Duration::from_secs(5);

/// Our direction.
#[derive(Debug)]
pub(super) struct Transmit {
    /// What the guest has not acknowledged: first what was sent, then what was not.
    pub(super) queue: ByteQueue,
    /// The number of the queue's first byte; in the handshake, of the SYN.
    start: Seq,
    /// How much of the sequence space from `start` on was sent and counts as on the way. The FIN
    /// stands behind the queue's last byte.
    sent: usize,
    /// The same, as far as it ever was: the guest may acknowledge so much.
    sent_max: usize,
    /// The FIN was acknowledged.
    fin_acknowledged: bool,
    /// The guest's window, from `start` on, and its scale.
    window: usize,
    scale: u8,
    /// Payload of a segment, at most.
    mss: u16,
    round_trip: RoundTrip,
    duplicates: u8,
    /// Everything up to here is sent again because of a loss: another is not looked for before.
    recovered: Seq,
    /// Our SYN, or SYN-ACK, is to be sent.
    pub(super) syn_due: bool,
    /// A segment is to be sent that the guest has to answer.
    pub(super) probe_due: bool,
    /// The guest refused a long frame.
    only_short: bool,
}

/// What an acknowledgement has brought.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    pub(super) acknowledged: bool,
    pub(super) window_opened: bool,
}

impl Transmit {
    pub(super) fn new(initial: Seq) -> Self {
        Self {
            queue: ByteQueue::default(),
            start: initial,
            sent: 0,
            sent_max: 0,
            fin_acknowledged: false,
            window: 0,
            scale: 0,
            mss: MSS_DEFAULT,
            round_trip: RoundTrip::new(),
            duplicates: 0,
            recovered: initial,
            syn_due: false,
            probe_due: false,
            only_short: false,
        }
    }

    /// In the handshake, the number of our SYN.
    pub(super) fn first(&self) -> Seq {
        self.start
    }

    /// The number behind everything that was ever sent.
    pub(super) fn end(&self) -> Seq {
        self.start + self.sent_max
    }

    /// Whether the guest has all of it, the close too.
    pub(super) fn is_all_acknowledged(&self) -> bool {
        self.fin_acknowledged && self.queue.is_empty()
    }

    /// What the guest's SYN asks for.
    pub(super) fn set_options(&mut self, options: Options) {
        self.mss = options.mss.unwrap_or(MSS_DEFAULT).max(MSS_MIN);
        self.scale = options.window_scale.unwrap_or(0);
    }

    /// Our SYN was acknowledged.
    pub(super) fn open(&mut self, segment: &Segment<'_>, now: Instant) {
        self.round_trip.acknowledged(segment.ack, now);
        self.start = segment.ack;
        self.recovered = self.start;
        self.syn_due = false;
        // The window of a SYN is not scaled (RFC 7323 §2.2).
        let scale = if segment.has(flags::SYN) { 0 } else { self.scale };
        self.window = usize::from(segment.window) << scale;
    }

    /// Takes an acknowledgement of something that was sent, or of nothing new.
    pub(super) fn acknowledge(
        &mut self,
        segment: &Segment<'_>,
        pool: &mut Pool,
        now: Instant,
    ) -> Progress {
        let before = self.window;
        let window = usize::from(segment.window) << self.scale;
        let Ok(count) = usize::try_from(segment.ack.since(self.start)) else {
            return Progress::default();
        };
        if count == 0 {
            self.window = window;
            let duplicate = segment.payload.is_empty() && window == before && self.sent > 0;
            self.on_duplicate(duplicate && !segment.has(flags::FIN));
            return Progress { acknowledged: false, window_opened: before == 0 && window > 0 };
        }
        self.round_trip.acknowledged(segment.ack, now);
        self.start = segment.ack;
        // What is more than the queue has is the FIN.
        self.fin_acknowledged |= count > self.queue.len();
        self.queue.consume(count, pool);
        self.sent = self.sent.saturating_sub(count);
        self.sent_max = self.sent_max.saturating_sub(count);
        self.window = window;
        self.duplicates = 0;
        Progress { acknowledged: true, window_opened: true }
    }

    /// The third acknowledgement of the same means that a segment is missing (RFC 5681 §3.2). All
    /// is sent again from there: the link is fast, and it does not lose.
    fn on_duplicate(&mut self, duplicate: bool) {
        if !duplicate {
            return;
        }
        self.duplicates = self.duplicates.saturating_add(1);
        if self.duplicates == 3 && !self.start.is_before(self.recovered) {
            self.recovered = self.end();
            self.sent = 0;
            self.round_trip.sent_again();
        }
    }

    /// The time for an answer is over.
    pub(super) fn send_again(&mut self, phase: Phase) {
        self.round_trip.sent_again();
        self.round_trip.back_off();
        self.recovered = self.end();
        self.sent = 0;
        self.syn_due |= matches!(phase, Phase::SynReceived | Phase::SynSent);
    }
}

/// What sending needs.
pub(super) struct Output<'a, 'd> {
    pub(super) link: &'a mut Link<'d>,
    /// Room for headers.
    pub(super) header: &'a mut Vec<u8>,
    /// Our largest segment, by the link's MTU: IPv4's. IPv6's is 20 less.
    pub(super) mss: u16,
    pub(super) now: Instant,
}

/// A segment that is to be sent.
#[derive(Clone, Copy)]
struct Outgoing {
    seq: Seq,
    flags: u8,
    options: Options,
    /// Where in the queue its payload is.
    offset: usize,
    len: usize,
}

impl Flow {
    /// Sends what is to be sent, as far as the guest's window and the device's room allow.
    pub(super) fn output(&mut self, out: &mut Output<'_, '_>) {
        if self.transmit.syn_due {
            self.output_syn(out);
        }
        if self.phase != Phase::Open {
            return;
        }
        while !out.link.is_full() {
            let Some(next) = self.next_segment(out) else { break };
            if !self.send_data(out, next) {
                break;
            }
        }
        if (self.receive.ack_due || self.transmit.probe_due) && !out.link.is_full() {
            self.output_ack(out);
        }
        self.set_clocks(out.now);
    }

    /// Whether there is something that the guest has no window, or the device no room for.
    pub(super) fn wants_output(&self) -> bool {
        self.transmit.syn_due
            || self.receive.ack_due
            || self.transmit.probe_due
            || self.unsent() > 0
    }

    /// How much of the sequence space was not sent.
    fn unsent(&self) -> usize {
        let fin = usize::from(self.host.has_closed() && !self.transmit.fin_acknowledged);
        (self.transmit.queue.len() + fin).saturating_sub(self.transmit.sent)
    }

    fn output_syn(&mut self, out: &mut Output<'_, '_>) {
        let flags = if self.phase == Phase::SynSent { flags::SYN } else { flags::SYN | flags::ACK };
        // A SYN-ACK scales only if the guest's SYN does.
        let scales = self.phase == Phase::SynSent || self.receive.scaled;
        let options =
            Options { mss: Some(self.our_mss(out)), window_scale: scales.then_some(WINDOW_SCALE) };
        let seq = self.transmit.start;
        let given = self.give(out, Outgoing { seq, flags, options, offset: 0, len: 0 });
        if given == Given::NoRoom {
            return;
        }
        self.transmit.syn_due = false;
        self.transmit.round_trip.sent(seq + 1, out.now);
        self.clocks.resend = Some(out.now + self.transmit.round_trip.timeout());
    }

    fn our_mss(&self, out: &Output<'_, '_>) -> u16 {
        match self.guest.ip() {
            IpAddr::V4(_) => out.mss,
            IpAddr::V6(_) => out.mss.saturating_sub(20),
        }
    }

    /// The next segment with data or FIN, if the guest's window takes one.
    fn next_segment(&self, out: &Output<'_, '_>) -> Option<Outgoing> {
        let transmit = &self.transmit;
        let unsent = self.unsent();
        let room = transmit.window.saturating_sub(transmit.sent);
        if unsent == 0 || room == 0 {
            return None;
        }
        let data = transmit.queue.len().saturating_sub(transmit.sent);
        let mss = usize::from(transmit.mss.min(self.our_mss(out)));
        let long = if self.takes_long(out) { LONG_PAYLOAD / mss * mss } else { mss };
        let len = data.min(room).min(long.max(mss));
        // A window that cuts a segment short is waited for, unless nothing is on the way that would
        // open it (RFC 9293 §3.8.6.2.1).
        if len < mss && len < data && transmit.sent > 0 {
            return None;
        }
        let last = len == data;
        let fin = last && self.host.has_closed() && room > len;
        if len == 0 && !fin {
            return None;
        }
        let mut flags = flags::ACK;
        flags |= if last && len > 0 { flags::PSH } else { 0 };
        flags |= if fin { flags::FIN } else { 0 };
        let seq = transmit.start + transmit.sent;
        Some(Outgoing { seq, flags, options: Options::default(), offset: transmit.sent, len })
    }

    fn takes_long(&self, out: &Output<'_, '_>) -> bool {
        let offloads = out.link.offloads();
        let version = match self.guest.ip() {
            IpAddr::V4(_) => offloads.tcp4,
            IpAddr::V6(_) => offloads.tcp6,
        };
        version && offloads.partial_checksum && !self.transmit.only_short
    }

    /// Sends a segment with data or FIN; says whether another may follow.
    fn send_data(&mut self, out: &mut Output<'_, '_>, next: Outgoing) -> bool {
        let given = self.give(out, next);
        if given == Given::NoRoom {
            return false;
        }
        let transmit = &mut self.transmit;
        // A frame that was refused counts as lost: it is sent again in time.
        transmit.only_short |= given == Given::Refused && next.len > usize::from(transmit.mss);
        let fresh = transmit.sent >= transmit.sent_max;
        transmit.sent += next.len + usize::from(next.flags & flags::FIN != 0);
        transmit.sent_max = transmit.sent_max.max(transmit.sent);
        if fresh {
            transmit.round_trip.sent(transmit.start + transmit.sent, out.now);
        }
        let timeout = transmit.round_trip.timeout();
        self.clocks.resend.get_or_insert(out.now + timeout);
        given == Given::Taken
    }

    /// An empty segment: how far we are, or one that is out of place so that it is answered
    /// (RFC 9293 §3.8.4), which tells of an open window too.
    fn output_ack(&mut self, out: &mut Output<'_, '_>) {
        let transmit = &self.transmit;
        let seq = if transmit.probe_due {
            transmit.start - 1
        } else {
            transmit.start + transmit.sent.max(transmit.sent_max)
        };
        let options = Options::default();
        let next = Outgoing { seq, flags: flags::ACK, options, offset: 0, len: 0 };
        if self.give(out, next) != Given::NoRoom {
            self.transmit.probe_due = false;
        }
    }

    /// Sets what is waited for now.
    fn set_clocks(&mut self, now: Instant) {
        let transmit = &self.transmit;
        let stuck = transmit.sent == 0 && transmit.window == 0 && self.unsent() > 0;
        if stuck {
            self.clocks.resend = None;
            self.clocks.probe.get_or_insert(now + PERSIST);
        } else if transmit.sent_max > 0 {
            let timeout = transmit.round_trip.timeout();
            self.clocks.resend.get_or_insert(now + timeout);
        } else {
            self.clocks.resend = None;
        }
    }

    /// Gives the guest a segment. An acknowledgement rides on each.
    fn give(&mut self, out: &mut Output<'_, '_>, next: Outgoing) -> Given {
        let Some(mac) = self.mac else { return Given::Refused };
        let syn = next.flags & flags::SYN != 0;
        let header = Header {
            ports: (self.remote.port(), self.guest.port()),
            seq: next.seq,
            ack: if next.flags & flags::ACK != 0 { self.receive.next } else { Seq(0) },
            flags: next.flags,
            window: self.receive.window(syn),
            options: next.options,
        };
        let route = Route { mac, from: self.remote.ip(), to: self.guest.ip() };
        let mss = self.transmit.mss.min(self.our_mss(out));
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = self.transmit.queue.slices(next.offset, next.len, &mut slices);
        let payload = slices.get(..count).unwrap_or_default();
        let offload = write_headers(out, route, &header, payload, mss);
        let mut parts: [&[u8]; SLICES + 1] = [&[]; SLICES + 1];
        for (part, bytes) in parts
            .iter_mut()
            .zip(std::iter::once(&out.header[..]).chain(payload.iter().map(|s| &**s)))
        {
            *part = bytes;
        }
        let given = out.link.give(parts.get(..=count).unwrap_or_default(), offload);
        self.receive.ack_due &= given == Given::NoRoom;
        given
    }
}

/// Writes all headers of a segment and says what is left to the guest.
fn write_headers(
    out: &mut Output<'_, '_>,
    route: Route,
    header: &Header,
    payload: &[IoSlice<'_>],
    mss: u16,
) -> FrameOffload {
    let data: usize = payload.iter().map(|part| part.len()).sum();
    let len = header.len() + data;
    out.header.clear();
    let protocol = layout::TCP;
    emit::headers(out.header, route, Payload { protocol, len, fragment: Fragment::Whole });
    let start = out.header.len();
    let sum = Sum::pseudo(route.from, route.to, layout::TCP, len);
    if out.link.offloads().partial_checksum {
        header.write(out.header, sum.stored());
        let checksum = PartialChecksum { start: start as u16, offset: 16 };
        let kind = match route.to {
            IpAddr::V4(_) => SegmentationKind::Tcp4,
            IpAddr::V6(_) => SegmentationKind::Tcp6,
        };
        let header_len = out.header.len() as u16;
        let cut = Segmentation { kind, size: mss, header_len, ecn: false };
        let segmentation = (data > usize::from(mss)).then_some(cut);
        return FrameOffload { checksum: Some(checksum), checked: false, segmentation };
    }
    header.write(out.header, [0, 0]);
    let mut sum = sum;
    sum.add(out.header.get(start..).unwrap_or_default());
    for part in payload {
        sum.add(part);
    }
    if let Some(field) = out.header.get_mut(start + 16..start + 18) {
        field.copy_from_slice(&sum.checksum());
    }
    FrameOffload::default()
}
