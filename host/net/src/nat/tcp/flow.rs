//! One TCP connection: the guest at one end, a socket of the host at the other.
//!
//! There is no second TCP in between. To the guest this *is* the other end: what the guest sends
//! is acknowledged once the host's socket, or the flow's queue before it, has it, and the window
//! is the queue's free space. What the host's socket gives is kept until the guest has
//! acknowledged it. The link to the guest neither loses nor reorders, so a segment that is out of
//! order is simply sent again by its sender; but the guest may drop what it took, so there are
//! timers for sending again.
//!
//! Each side's close and reset becomes the same on the other side.

use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use socket2::SockRef;

use super::super::timers::Armed;
use super::input::Receive;
use super::output::Transmit;
use super::queue::Pool;
use super::seq::Seq;
use crate::frame::Mac;

/// Bytes that wait for the guest, at most.
pub(super) const TRANSMIT_MAX: usize = 1 << 20;

/// A guest that was silent for so long is asked whether it still has the connection.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(300);
/// How long it has for an answer, and how often it is asked.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
pub(super) const PROBES_MAX: u32 = 6;
/// How often something is sent again before the guest counts as gone. With [`super::rtt`]'s times
/// that is more than 10 minutes (RFC 9293 §3.8.3 asks for 100 seconds).
const RETRIES_MAX: u32 = 15;
/// The same for the SYN of a port forward: about half a minute.
const SYN_RETRIES_MAX: u32 = 5;

/// How far the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The guest's SYN waits until the host's socket is connected.
    Connecting,
    /// Our SYN-ACK waits for the guest's ACK.
    SynReceived,
    /// Our SYN, for a port forward, waits for the guest's SYN-ACK.
    SynSent,
    /// Both ends are connected; their closes are in [`Host`], [`Receive`] and [`Transmit`].
    Open,
}

/// How a flow ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides have closed, or the guest knows that it is over: nothing is said.
    Done,
    /// The guest gets a reset.
    ResetGuest,
    /// The host's peer gets a reset.
    ResetHost,
    /// Both.
    ResetBoth,
    /// The guest's SYN gets an ICMP error: there is no way.
    Unreachable,
}

/// The host's end.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) stream: TcpStream,
    /// It may have something to read; told by events, which only come when that changes.
    pub(super) readable: bool,
    /// It may take something.
    pub(super) writable: bool,
    /// The peer has closed its side.
    pub(super) eof: bool,
    /// Our side is closed, as the guest has closed its.
    pub(super) shut: bool,
    /// The peer has reset the connection: the guest gets what had come before, then a reset too.
    pub(super) broken: bool,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(super) guest: SocketAddr,
    /// The other end, as the guest sees it.
    pub(super) remote: SocketAddr,
    /// `None` until it was found out.
    pub(super) mac: Option<Mac>,
    pub(super) phase: Phase,
    pub(super) host: Host,
    pub(super) transmit: Transmit,
    pub(super) receive: Receive,
    pub(super) clocks: Clocks,
    /// It stands in the table's queue.
    pub(super) queued: bool,
    pub(super) waits: Waits,
    pub(super) armed: Armed,
}

/// On which lists of the table a flow stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waits {
    /// For the device's room.
    pub(super) room: bool,
    /// For memory.
    pub(super) memory: bool,
    /// For the guest's Ethernet address.
    pub(super) address: bool,
}

/// What a flow waits for, in time.
#[derive(Debug)]
pub(super) struct Clocks {
    /// The last segment of the guest's.
    pub(super) heard: Instant,
    /// When what is not acknowledged is sent again.
    pub(super) resend: Option<Instant>,
    /// How often that was done in vain.
    pub(super) retries: u32,
    /// When the guest is probed: whether it is there, or its window open.
    pub(super) probe: Option<Instant>,
    pub(super) probes: u32,
    /// How much the guest had sent, on any flow, at the last attempt: attempts on a guest that is
    /// paused don't count.
    pub(super) life: u64,
}

/// What a deadline asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// It was not time yet.
    Nothing,
    /// To be served: something is to be sent.
    Serve,
    /// The guest is gone.
    End(End),
}

impl Flow {
    /// A connection that the guest began, or one for a port forward.
    pub(super) fn new(ends: Ends, phase: Phase, stream: TcpStream, now: Instant) -> Self {
        let host = Host {
            stream,
            readable: phase == Phase::SynSent,
            writable: phase == Phase::SynSent,
            eof: false,
            shut: false,
            broken: false,
        };
        let clocks =
            Clocks { heard: now, resend: None, retries: 0, probe: None, probes: 0, life: 0 };
        Self {
            guest: ends.guest,
            remote: ends.remote,
            mac: ends.mac,
            phase,
            host,
            transmit: Transmit::new(ends.initial),
            receive: Receive::default(),
            clocks,
            queued: false,
            waits: Waits::default(),
            armed: Armed::default(),
        }
    }

    /// Notes what the host's poll said.
    pub(super) fn on_event(&mut self, event: &Event) {
        let broken = event.is_error();
        self.host.readable |= event.is_readable() || event.is_read_closed() || broken;
        self.host.writable |= event.is_writable() || event.is_write_closed() || broken;
    }

    /// Does what the host's socket allows: connects, writes, closes, reads.
    pub(super) fn serve_host(&mut self, pool: &mut Pool, limit: usize) -> Result<HostState, End> {
        if self.phase == Phase::Connecting && !self.finish_connecting()? {
            return Ok(HostState::Idle);
        }
        self.write_host(pool);
        if self.phase != Phase::Open {
            return Ok(HostState::Idle);
        }
        Ok(self.read_host(pool, limit))
    }

    /// Whether the host's socket is connected now.
    fn finish_connecting(&mut self) -> Result<bool, End> {
        if !self.host.writable {
            return Ok(false);
        }
        let stream = &self.host.stream;
        if let Ok(Some(error)) | Err(error) = stream.take_error() {
            return Err(refusal(&error));
        }
        match stream.peer_addr() {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotConnected => {
                self.host.writable = false;
                return Ok(false);
            }
            Err(error) => return Err(refusal(&error)),
        }
        // Both make the host's end behave better; a system that can't do them works all the same.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(stream).set_keepalive(true);
        self.phase = Phase::SynReceived;
        self.transmit.syn_due = true;
        Ok(true)
    }

    /// Writes what waits for the host, and closes when that was all.
    fn write_host(&mut self, pool: &mut Pool) {
        while self.host.writable && !self.receive.queue.is_empty() {
            match self.receive.queue.drain(&mut self.host.stream, pool) {
                Ok(_) => {}
                Err(error) => self.host.on_error(&error, Direction::Write),
            }
        }
        if self.host.broken {
            self.receive.queue.clear(pool);
        }
        if self.receive.closed && self.receive.queue.is_empty() && !self.host.shut {
            self.host.shut = true;
            // A peer that is gone already shows up when it is read from.
            let _ = self.host.stream.shutdown(Shutdown::Write);
        }
        self.receive.offer_room();
    }

    /// Writes the guest's bytes to the host without a detour; returns how many. Those that nobody
    /// will read any more are dropped.
    pub(super) fn write_through(&mut self, bytes: &[u8]) -> usize {
        if self.host.broken {
            return bytes.len();
        }
        if bytes.is_empty() || !self.host.writable || !self.receive.queue.is_empty() {
            return 0;
        }
        match self.host.stream.write(bytes) {
            Ok(written) => written,
            Err(error) => {
                self.host.on_error(&error, Direction::Write);
                0
            }
        }
    }

    /// Reads from the host as much as may wait for the guest.
    fn read_host(&mut self, pool: &mut Pool, limit: usize) -> HostState {
        let mut left = limit;
        while self.host.readable && !self.host.eof {
            let room = TRANSMIT_MAX.saturating_sub(self.transmit.queue.len()).min(left);
            if room == 0 {
                return if left == 0 { HostState::More } else { HostState::Idle };
            }
            match self.transmit.queue.fill(&mut self.host.stream, room, pool) {
                None => return HostState::Starved,
                Some(Ok(0)) => self.host.eof = true,
                Some(Ok(count)) => left = left.saturating_sub(count),
                Some(Err(error)) => self.host.on_error(&error, Direction::Read),
            }
        }
        HostState::Idle
    }

    /// Whether the peer has reset the connection and the guest has all that had come before.
    pub(super) fn is_broken_off(&self) -> bool {
        let all_read = self.host.eof || !self.host.readable;
        self.host.broken && all_read && self.transmit.queue.is_empty()
    }

    /// Whether both sides have closed and know it of each other.
    pub(super) fn is_done(&self) -> bool {
        self.host.shut
            && self.host.eof
            && self.transmit.is_all_acknowledged()
            && !self.receive.ack_due
    }

    /// The time at which something is to be done at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match (self.clocks.resend, self.clocks.probe) {
            (Some(resend), _) => Some(resend),
            (None, Some(probe)) => Some(probe),
            (None, None) if self.phase == Phase::Connecting => None,
            (None, None) => Some(self.clocks.heard + KEEPALIVE_IDLE),
        }
    }

    /// Its deadline has come, or an older one. `life` counts the frames of the guest.
    pub(super) fn on_deadline(&mut self, now: Instant, life: u64) -> Due {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return Due::Nothing;
        }
        let alive = self.clocks.life != life;
        self.clocks.life = life;
        let clocks = &mut self.clocks;
        if clocks.resend.is_some() {
            clocks.resend = None;
            clocks.retries += u32::from(alive || self.phase == Phase::SynSent);
            match self.phase {
                Phase::SynSent if clocks.retries > SYN_RETRIES_MAX => {
                    return Due::End(End::ResetHost);
                }
                _ if clocks.retries > RETRIES_MAX => return Due::End(End::ResetBoth),
                Phase::Connecting | Phase::SynReceived | Phase::SynSent | Phase::Open => {}
            }
            self.transmit.send_again(self.phase);
        } else {
            clocks.probes += u32::from(alive);
            if clocks.probes > PROBES_MAX {
                return Due::End(End::ResetBoth);
            }
            clocks.probe = Some(now + KEEPALIVE_INTERVAL);
            self.transmit.probe_due = true;
        }
        Due::Serve
    }

    /// Gives the memory back.
    pub(super) fn clear(&mut self, pool: &mut Pool) {
        self.transmit.queue.clear(pool);
        self.receive.queue.clear(pool);
    }

    /// Makes the host's socket end with a reset instead of a close.
    pub(super) fn reset_host(&self) {
        let _ = SockRef::from(&self.host.stream).set_linger(Some(Duration::ZERO));
    }
}

/// The ends of a new flow.
pub(super) struct Ends {
    pub(super) guest: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) mac: Option<Mac>,
    /// Our first sequence number.
    pub(super) initial: Seq,
}

/// How the host's side stands after it was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostState {
    /// There is nothing to do until an event.
    Idle,
    /// There is more to read.
    More,
    /// There is more to read, but no memory for it.
    Starved,
}

/// What a socket was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
}

impl Host {
    fn on_error(&mut self, error: &io::Error, direction: Direction) {
        match (error.kind(), direction) {
            (ErrorKind::Interrupted, _) => {}
            (ErrorKind::WouldBlock, Direction::Read) => self.readable = false,
            (ErrorKind::WouldBlock, Direction::Write) => self.writable = false,
            (_, Direction::Read) => (self.broken, self.readable) = (true, false),
            // There may still be something to read.
            (_, Direction::Write) => (self.broken, self.writable) = (true, false),
        }
    }

    /// Whether the guest is to be told that the peer has closed its side.
    pub(super) fn has_closed(&self) -> bool {
        self.eof && !self.broken
    }
}

/// What a connect that failed is for the guest.
pub(super) fn refusal(error: &io::Error) -> End {
    match error.kind() {
        ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::AddrNotAvailable
        | ErrorKind::TimedOut => End::Unreachable,
        _ => End::ResetGuest,
    }
}
