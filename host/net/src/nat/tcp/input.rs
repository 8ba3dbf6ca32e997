//! Segments from the guest (RFC 9293 §3.10.7).

use std::time::Instant;

use super::flow::{End, Flow, Phase};
use super::queue::{ByteQueue, Pool};
use super::segment::{Segment, flags};
use super::seq::Seq;

/// Bytes of the guest's that may wait for the host: the window.
const RECEIVE_MAX: usize = 512 << 10;

/// The scale of our window: 64 KiB << 5 is more than [`RECEIVE_MAX`].
pub(super) const WINDOW_SCALE: u8 = 5;

/// A smaller window is said to be none (silly window syndrome, RFC 9293 §3.8.6.2.2).
const WINDOW_MIN: usize = 2048;

/// The guest's direction.
#[derive(Debug, Default)]
pub(super) struct Receive {
    /// What waits for the host.
    pub(super) queue: ByteQueue,
    /// The next byte of the guest's.
    pub(super) next: Seq,
    /// The end of the window that the guest was told; it never goes back.
    pub(super) edge: Seq,
    /// The guest scales windows, so we do.
    pub(super) scaled: bool,
    /// The guest has closed its side.
    pub(super) closed: bool,
    /// The guest is to be told how far we are.
    pub(super) ack_due: bool,
}

impl Receive {
    /// The guest's SYN.
    pub(super) fn start(&mut self, syn: &Segment<'_>) {
        self.next = syn.seq + 1;
        self.scaled = syn.options.window_scale.is_some();
        // The window of our SYN, which is never scaled.
        self.edge = self.next + usize::from(u16::MAX);
    }

    /// The window as it stands in the next header; the promise is kept in [`Self::edge`].
    pub(super) fn window(&mut self, syn: bool) -> u16 {
        let shift = if self.scaled && !syn { WINDOW_SCALE } else { 0 };
        let free = self.free().min(usize::from(u16::MAX) << shift);
        let free = if free < WINDOW_MIN { 0 } else { free >> shift << shift };
        self.edge = self.edge.max(self.next + free);
        let left = usize::try_from(self.edge.since(self.next)).unwrap_or(0) >> shift;
        u16::try_from(left).unwrap_or(u16::MAX)
    }

    fn free(&self) -> usize {
        RECEIVE_MAX.saturating_sub(self.queue.len())
    }

    /// Has the guest told of room that it would wait for.
    pub(super) fn offer_room(&mut self) {
        let told = usize::try_from(self.edge.since(self.next)).unwrap_or(0);
        let gain = self.free().saturating_sub(told);
        let reachable = if self.scaled { RECEIVE_MAX } else { usize::from(u16::MAX) };
        self.ack_due |= told < reachable / 4 && gain > reachable / 4;
    }
}

impl Flow {
    /// Takes a segment of the guest's.
    pub(super) fn input(
        &mut self,
        segment: &Segment<'_>,
        pool: &mut Pool,
        now: Instant,
    ) -> Result<(), End> {
        self.clocks.heard = now;
        self.clocks.probe = None;
        self.clocks.probes = 0;
        match self.phase {
            Phase::Connecting => self.input_connecting(segment),
            Phase::SynSent => self.input_syn_sent(segment, now),
            Phase::SynReceived | Phase::Open => self.input_synchronized(segment, pool, now),
        }
    }

    /// The guest waits for its SYN-ACK: it may only repeat itself or give up.
    fn input_connecting(&self, segment: &Segment<'_>) -> Result<(), End> {
        let gives_up = segment.has(flags::RST) && segment.seq == self.receive.next;
        if gives_up { Err(End::ResetHost) } else { Ok(()) }
    }

    /// The guest answers the SYN of a port forward.
    fn input_syn_sent(&mut self, segment: &Segment<'_>, now: Instant) -> Result<(), End> {
        let answers = segment.has(flags::ACK) && segment.ack == self.transmit.first() + 1;
        if !answers {
            return Ok(());
        }
        if segment.has(flags::RST) {
            return Err(End::ResetHost);
        }
        if segment.has(flags::SYN) {
            self.receive.start(segment);
            self.transmit.set_options(segment.options);
            self.open(segment, now);
            self.receive.ack_due = true;
        }
        Ok(())
    }

    /// The guest has acknowledged our SYN.
    fn open(&mut self, segment: &Segment<'_>, now: Instant) {
        self.phase = Phase::Open;
        self.transmit.open(segment, now);
        self.clocks.resend = None;
        self.clocks.retries = 0;
    }

    fn input_synchronized(
        &mut self,
        segment: &Segment<'_>,
        pool: &mut Pool,
        now: Instant,
    ) -> Result<(), End> {
        if segment.has(flags::RST) {
            return self.input_reset(segment);
        }
        if segment.has(flags::SYN) {
            // The guest's first one again, or a connection that it has forgotten: the answer makes
            // it send a reset then (RFC 5961 §4).
            self.transmit.syn_due |= self.phase == Phase::SynReceived;
            self.receive.ack_due |= self.phase == Phase::Open;
            return Ok(());
        }
        if !segment.has(flags::ACK) {
            return Ok(());
        }
        if self.phase == Phase::SynReceived {
            if segment.ack != self.transmit.first() + 1 {
                return Err(End::ResetBoth);
            }
            self.open(segment, now);
        }
        self.input_ack(segment, pool, now);
        self.input_data(segment, pool);
        Ok(())
    }

    /// A reset counts if it is exactly in place; elsewhere in the window it is asked back
    /// (RFC 5961 §3).
    fn input_reset(&mut self, segment: &Segment<'_>) -> Result<(), End> {
        if segment.seq == self.receive.next {
            return Err(End::ResetHost);
        }
        let inside =
            !segment.seq.is_before(self.receive.next) && segment.seq.is_before(self.receive.edge);
        self.receive.ack_due |= inside;
        Ok(())
    }

    fn input_ack(&mut self, segment: &Segment<'_>, pool: &mut Pool, now: Instant) {
        // What the guest can't have seen is not acknowledged; it is told where we are.
        if self.transmit.end().is_before(segment.ack) {
            self.receive.ack_due = true;
            return;
        }
        let progress = self.transmit.acknowledge(segment, pool, now);
        if progress.acknowledged || progress.window_opened {
            self.clocks.retries = 0;
            self.clocks.resend = None;
        }
    }

    /// Takes the data that comes next; what lies before it is known, what lies behind it will come
    /// again.
    fn input_data(&mut self, segment: &Segment<'_>, pool: &mut Pool) {
        let known = self.receive.next.since(segment.seq);
        let Ok(known) = usize::try_from(known) else {
            self.receive.ack_due = true;
            return;
        };
        if segment.len() == 0 {
            // An empty segment in its place says nothing new; one that is not is a probe.
            self.receive.ack_due |= known > 0;
            return;
        }
        self.receive.ack_due = true;
        if self.receive.closed {
            return;
        }
        let Some(fresh) = segment.payload.get(known..) else { return };
        let window = usize::try_from(self.receive.edge.since(self.receive.next)).unwrap_or(0);
        let wanted = fresh.get(..fresh.len().min(window)).unwrap_or_default();
        let mut taken = self.write_through(wanted);
        if let Some(rest) = wanted.get(taken..).filter(|rest| !rest.is_empty()) {
            taken += self.receive.queue.push(rest, pool);
        }
        self.receive.next = self.receive.next + taken;
        if segment.has(flags::FIN) && taken == fresh.len() {
            self.receive.next = self.receive.next + 1;
            self.receive.closed = true;
        }
    }
}
