//! How fast the NAT is, and what a thousand idle connections cost: `cargo run --release -p
//! kasane-host-net --example nat_speed`. The guest is a device that makes and takes long frames by
//! itself, so that only the NAT and the host's sockets are measured.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpListener};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use kasane_host_net::nat::{Nat, NatConfig};
use kasane_ports::{
    FrameOffload, Given, NetBackend, NetDevice, NetGuestOffloads, PartialChecksum, Segmentation,
    SegmentationKind,
};
use parking_lot::Mutex;
use support::guest::{GATEWAY, Guest, host};
use support::raw::{Tcp, tcp};
use support::{ALL_OFFLOADS, FakeDevice};

/// What is moved in each direction, in bytes.
const TOTAL: u64 = 8 << 30;

/// The payload of a frame.
const FRAME: usize = 62_780;

const FLOWS: usize = 1000;

/// One connection's guest.
struct Blaster {
    backend: OnceLock<Weak<Nat>>,
    state: Mutex<State>,
    offloads: NetGuestOffloads,
}

struct State {
    to: SocketAddrV4,
    /// Bytes that are still to be sent.
    left: u64,
    open: bool,
    seq: u32,
    edge: u32,
    next: u32,
    due: Option<u8>,
    data: Vec<u8>,
}

impl Blaster {
    fn start(nat: &Arc<Nat>, port: u16, left: u64, offloads: NetGuestOffloads) -> Arc<Self> {
        let state = State {
            to: SocketAddrV4::new(GATEWAY, port),
            left,
            open: false,
            seq: 0,
            edge: 0,
            next: 0,
            due: Some(2),
            data: vec![7; FRAME],
        };
        let blaster =
            Arc::new(Self { backend: OnceLock::new(), state: Mutex::new(state), offloads });
        blaster.backend.get_or_init(|| Arc::downgrade(nat));
        nat.connect(Arc::downgrade(&(blaster.clone() as Arc<dyn NetDevice>)));
        blaster
    }
}

impl NetDevice for Blaster {
    fn take(&self, frame: &mut Vec<u8>) -> Option<FrameOffload> {
        let mut state = self.state.lock();
        let window = state.edge.wrapping_sub(state.seq) as i32;
        let len = if state.open && window > 0 {
            state.left.min(FRAME as u64).min(window as u64) as usize
        } else {
            0
        };
        if len == 0 && state.due.is_none() {
            return None;
        }
        let flags = state.due.take().unwrap_or(0x10);
        let head = Tcp {
            from: 4000,
            to: state.to,
            seq: state.seq,
            ack: state.next,
            flags,
            window: 65_000,
        };
        *frame = tcp(head, &state.data[..len]);
        if flags == 2 {
            // A window scale of 5.
            frame[46] = 6 << 4;
            frame[17] += 4;
            frame[24..26].fill(0);
            support::complete(&mut frame[14..34], 0, 10);
            frame.extend([1, 3, 3, 5]);
            state.seq = 1;
        }
        state.seq = state.seq.wrapping_add(len as u32);
        state.left -= len as u64;
        let cut =
            Segmentation { kind: SegmentationKind::Tcp4, size: 1460, header_len: 54, ecn: false };
        Some(FrameOffload {
            checksum: Some(PartialChecksum { start: 34, offset: 16 }),
            checked: false,
            segmentation: (len > 1460).then_some(cut),
        })
    }

    fn give(&self, parts: &[&[u8]], _: FrameOffload) -> Given {
        let header = parts[0];
        if header[12..14] != [8, 0] || header[23] != 6 {
            return Given::Taken;
        }
        let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        let mut state = self.state.lock();
        let payload: usize = parts[1..].iter().map(|part| part.len()).sum();
        let window = u32::from(u16::from_be_bytes([header[48], header[49]]));
        if header[47] & 2 != 0 {
            state.open = true;
            state.next = word(38).wrapping_add(1);
            state.edge = word(42).wrapping_add(window);
            state.due = Some(0x10);
            return Given::Taken;
        }
        state.edge = word(42).wrapping_add(window << 5);
        if payload > 0 {
            state.next = word(38).wrapping_add(payload as u32);
            state.due = Some(0x10);
        }
        Given::Taken
    }

    fn flush(&self) {
        let state = self.state.lock();
        let more = state.due.is_some() || (state.left > 0 && state.edge != state.seq);
        if more && let Some(nat) = self.backend.get().and_then(Weak::upgrade) {
            nat.wake();
        }
    }

    fn guest_offloads(&self) -> NetGuestOffloads {
        self.offloads
    }

    fn is_up(&self) -> bool {
        true
    }
}

fn rate(what: &str, begun: Instant, cpu: f64, bytes: u64) {
    let seconds = begun.elapsed().as_secs_f64();
    let gigabits = bytes as f64 * 8.0 / seconds / 1e9;
    println!(
        "{what:42} {gigabits:6.2} Gbit/s, {:4.0} % of a core",
        (cpu_seconds() - cpu) / seconds * 100.0
    );
}

/// Processor time of the NAT's threads so far, in seconds.
fn cpu_seconds() -> f64 {
    let mut total = 0.0;
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        if let Some((_, rest)) = stat.split_once("(nat) ") {
            let fields: Vec<&str> = rest.split(' ').collect();
            let ticks: f64 =
                fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
            total += ticks / 100.0;
        }
    }
    total
}

fn upload() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nat = Arc::new(Nat::start(&NatConfig::default()).unwrap());
    let port = listener.local_addr().unwrap().port();
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let _guest = Blaster::start(&nat, port, TOTAL, ALL_OFFLOADS);
    let mut stream = listener.accept().unwrap().0;
    let mut buffer = vec![0; 1 << 20];
    let mut left = TOTAL;
    while left > 0 {
        left -= stream.read(&mut buffer).unwrap() as u64;
    }
    rate("from the guest, long frames:", begun, cpu, TOTAL);
}

fn download(what: &str, offloads: NetGuestOffloads) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nat = Arc::new(Nat::start(&NatConfig::default()).unwrap());
    let port = listener.local_addr().unwrap().port();
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let guest = Blaster::start(&nat, port, 0, offloads);
    let mut stream = listener.accept().unwrap().0;
    let buffer = vec![0; 1 << 20];
    let mut left = TOTAL;
    while left > 0 {
        left -= stream.write(&buffer[..left.min(1 << 20) as usize]).unwrap() as u64;
    }
    rate(what, begun, cpu, TOTAL);
    drop(guest);
}

fn idle() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    socket2::SockRef::from(&listener).listen(4096).unwrap();
    let port = listener.local_addr().unwrap().port();
    let nat: Arc<dyn NetBackend> = Arc::new(Nat::start(&NatConfig::default()).unwrap());
    let mut guest = Guest::new(FakeDevice::on(&*nat, ALL_OFFLOADS), nat);
    let handles: Vec<_> = (0..FLOWS).map(|_| guest.begin(host(port), 256)).collect();
    guest.until(|guest| handles.iter().all(|handle| guest.tcp(*handle).may_send()).then_some(()));
    let streams: Vec<_> = (0..FLOWS).map(|_| listener.accept().unwrap().0).collect();
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    std::thread::sleep(Duration::from_secs(10));
    let share = (cpu_seconds() - cpu) / begun.elapsed().as_secs_f64() * 100.0;
    println!("{} idle connections: {share:.2} % of a core", streams.len());
}

fn main() {
    upload();
    download("to the guest, long frames:", ALL_OFFLOADS);
    download("to the guest, plain frames with sums:", NetGuestOffloads::default());
    idle();
}
