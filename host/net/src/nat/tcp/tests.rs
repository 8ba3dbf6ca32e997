//! What a flow does when time passes.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use kasane_ports::{FrameOffload, Given, NetDevice, NetGuestOffloads};
use mio::net::TcpStream;
use parking_lot::Mutex;

use super::flow::{Due, End, Ends, Flow, Phase};
use super::output::Output;
use super::queue::Pool;
use super::segment::{Options, Segment, flags};
use super::seq::Seq;
use crate::link::Link;

const FIRST: Seq = Seq(u32::MAX - 10);

/// A guest that keeps the flags, the number and the length of what it was given.
#[derive(Default)]
struct Guest(Mutex<Vec<(u8, Seq, usize)>>);

impl NetDevice for Guest {
    fn take(&self, _: &mut Vec<u8>) -> Option<FrameOffload> {
        None
    }
    fn give(&self, parts: &[&[u8]], _: FrameOffload) -> Given {
        let frame = parts.concat();
        let seq = u32::from_be_bytes(frame[38..42].try_into().unwrap());
        let header = 34 + usize::from(frame[46] >> 4) * 4;
        self.0.lock().push((frame[47], Seq(seq), frame.len() - header));
        Given::Taken
    }
    fn flush(&self) {}
    fn guest_offloads(&self) -> NetGuestOffloads {
        NetGuestOffloads::default()
    }
    fn is_up(&self) -> bool {
        true
    }
}

struct Bench {
    flow: Flow,
    pool: Pool,
    guest: Guest,
    now: Instant,
    life: u64,
    _listener: TcpListener,
}

impl Bench {
    /// A flow that is connected at both ends.
    fn open(window: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let now = Instant::now();
        let ends = Ends { guest: guest(), remote: remote(), mac: Some([2; 6]), initial: FIRST };
        let mut flow = Flow::new(ends, Phase::SynReceived, stream, now);
        let syn = segment(flags::SYN, Seq(99), Seq(0), window);
        flow.receive.start(&syn);
        flow.transmit.set_options(syn.options);
        let mut pool = Pool::new(1 << 20);
        let ack = segment(flags::ACK, Seq(100), FIRST + 1, window);
        flow.input(&ack, &mut pool, now).unwrap();
        let guest = Guest::default();
        Self { flow, pool, guest, now, life: 1, _listener: listener }
    }

    fn acknowledge(&mut self, ack: Seq, window: u16) {
        let ack = segment(flags::ACK, Seq(100), ack, window);
        self.flow.input(&ack, &mut self.pool, self.now).unwrap();
    }

    /// Sends what is to be sent; returns that.
    fn output(&mut self) -> Vec<(u8, Seq, usize)> {
        let mut link = Link::new(Some(&self.guest));
        let mut header = Vec::new();
        let mut output = Output { link: &mut link, header: &mut header, mss: 1460, now: self.now };
        self.flow.output(&mut output);
        std::mem::take(&mut self.guest.0.lock())
    }

    /// Lets time pass till the flow's deadline; `life` more frames come of the guest's other flows.
    fn pass(&mut self, life: u64) -> Due {
        self.life += life;
        self.now = self.flow.deadline().unwrap().max(self.now);
        self.flow.on_deadline(self.now, self.life)
    }
}

fn guest() -> SocketAddr {
    (Ipv4Addr::new(10, 0, 2, 15), 4000).into()
}

fn remote() -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, 1), 80).into()
}

fn segment(flags: u8, seq: Seq, ack: Seq, window: u16) -> Segment<'static> {
    let options = Options { mss: Some(1000), window_scale: None };
    Segment { guest: guest(), remote: remote(), seq, ack, flags, window, options, payload: &[] }
}

#[test]
fn what_is_not_acknowledged_is_sent_again_later_and_later() {
    let mut bench = Bench::open(8000);
    bench.flow.transmit.queue.push(&[7; 1500], &mut bench.pool);
    let first = bench.output();
    assert_eq!(first.iter().map(|sent| sent.2).collect::<Vec<_>>(), [1000, 500]);
    let mut before = Duration::ZERO;
    for _ in 0..4 {
        let since = bench.now;
        assert_eq!(bench.pass(1), Due::Serve);
        assert!(bench.now - since > before);
        before = bench.now - since;
        assert_eq!(bench.output(), first);
    }
    bench.acknowledge(FIRST + 1501, 8000);
    assert!(bench.output().is_empty());
    assert_eq!(bench.pool.used(), 0);
}

#[test]
fn a_guest_that_is_gone_ends_the_flow_and_one_that_is_paused_does_not() {
    let mut bench = Bench::open(8000);
    bench.flow.transmit.queue.push(&[7; 10], &mut bench.pool);
    bench.output();
    for _ in 0..100 {
        assert_eq!(bench.pass(0), Due::Serve);
        assert_eq!(bench.output().len(), 1);
    }
    let ends = (0..30).any(|_| {
        let due = bench.pass(1);
        bench.output();
        due == Due::End(End::ResetBoth)
    });
    assert!(ends);
}

#[test]
fn a_closed_window_is_probed() {
    let mut bench = Bench::open(0);
    bench.flow.transmit.queue.push(&[7; 10], &mut bench.pool);
    assert!(bench.output().is_empty());
    assert_eq!(bench.pass(1), Due::Serve);
    assert_eq!(bench.output(), [(flags::ACK, FIRST, 0)]);
    bench.acknowledge(FIRST + 1, 100);
    assert_eq!(bench.output(), [(flags::ACK | flags::PSH, FIRST + 1, 10)]);
}

#[test]
fn an_idle_guest_is_asked_whether_it_is_there() {
    let mut bench = Bench::open(8000);
    bench.output();
    let since = bench.now;
    assert_eq!(bench.pass(1), Due::Serve);
    assert!(bench.now - since >= Duration::from_secs(120));
    assert_eq!(bench.output(), [(flags::ACK, FIRST, 0)]);
    bench.acknowledge(FIRST + 1, 8000);
    assert!(bench.output().is_empty());
    let answered = bench.now;
    let ends = (0..20).any(|_| {
        let due = bench.pass(1);
        bench.output();
        due == Due::End(End::ResetBoth)
    });
    assert!(ends && bench.now - answered > Duration::from_secs(300));
}

#[test]
fn three_times_the_same_acknowledgement_is_a_loss() {
    let mut bench = Bench::open(8000);
    bench.flow.transmit.queue.push(&[7; 3000], &mut bench.pool);
    let sent = bench.output();
    for _ in 0..3 {
        bench.acknowledge(FIRST + 1, 8000);
    }
    assert_eq!(bench.output(), sent);
    // It is looked for once.
    for _ in 0..5 {
        bench.acknowledge(FIRST + 1, 8000);
    }
    assert!(bench.output().is_empty());
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_counts_for_nothing() {
    let mut bench = Bench::open(8000);
    bench.flow.transmit.queue.push(&[7; 10], &mut bench.pool);
    bench.output();
    bench.acknowledge(FIRST + 5000, 8000);
    assert_eq!(bench.flow.transmit.queue.len(), 10);
    assert_eq!(bench.output(), [(flags::ACK, FIRST + 11, 0)]);
}
