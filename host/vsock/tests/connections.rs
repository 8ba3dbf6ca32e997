//! The guest's sockets and the host's, by a device that is a pair of lists.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // tests may panic

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use kasane_host_vsock::{Vsock, VsockError};
use kasane_ports::{Given, VsockBackend, VsockDevice, VsockOperation as Op, VsockPacket};

/// A guest's side: packets from it, and packets to it with room for so many.
#[derive(Default)]
struct Guest {
    out: Mutex<VecDeque<(VsockPacket, Vec<u8>)>>,
    got: Mutex<VecDeque<(VsockPacket, Vec<u8>)>>,
    news: Condvar,
    epoch: AtomicU64,
}

const ROOM: usize = 4;
const CHUNK: usize = 1000;

impl VsockDevice for Guest {
    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }
    fn take(&self, data: &mut Vec<u8>) -> Option<VsockPacket> {
        let (packet, bytes) = self.out.lock().unwrap().pop_front()?;
        *data = bytes;
        Some(packet)
    }
    fn give(&self, packet: VsockPacket, data: &[u8]) -> (Given, usize) {
        let mut got = self.got.lock().unwrap();
        if got.len() >= ROOM {
            return (Given::NoRoom, 0);
        }
        let len = data.len().min(CHUNK);
        got.push_back((packet, data[..len].to_vec()));
        self.news.notify_all();
        (Given::Taken, len)
    }
    fn flush(&self) {}
}

struct World {
    guest: Arc<Guest>,
    vsock: Vsock,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

const PACKET: VsockPacket = VsockPacket {
    peer_cid: 2,
    guest_port: 1024,
    peer_port: 80,
    operation: Op::Request,
    buffer_len: 1 << 16,
    forwarded: 0,
};

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v.sock");
        let vsock = Vsock::start(&path).unwrap();
        let guest = Arc::new(Guest::default());
        let device: Arc<dyn VsockDevice> = guest.clone();
        vsock.connect(Arc::downgrade(&device));
        Self { guest, vsock, path, _folder: folder }
    }
    fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(format!("{}_{port}", self.path.display())).unwrap()
    }
    fn say(&self, packet: VsockPacket, data: &[u8]) {
        self.guest.out.lock().unwrap().push_back((packet, data.to_vec()));
        self.vsock.wake();
    }
    /// Waits for the next packet for the guest.
    fn hear(&self) -> (VsockPacket, Vec<u8>) {
        let got = self.guest.got.lock().unwrap();
        let mut got = self.guest.news.wait_while(got, |got| got.is_empty()).unwrap();
        let next = got.pop_front().unwrap();
        drop(got);
        self.vsock.wake();
        next
    }
    fn hear_operation(&self) -> Op {
        self.hear().0.operation
    }
    /// The guest connects to port 80, where a program of the host accepts.
    fn connected(&self) -> UnixStream {
        let listener = self.listen(80);
        self.say(PACKET, &[]);
        assert_eq!(self.hear_operation(), Op::Response);
        listener.accept().unwrap().0
    }
}

fn of(operation: Op) -> VsockPacket {
    VsockPacket { operation, ..PACKET }
}

#[test]
fn a_guest_talks_to_a_program_of_the_host_and_hears_its_end() {
    let world = World::new();
    let mut host = world.connected();
    world.say(of(Op::Data), b"ping");
    let mut bytes = [0; 4];
    host.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"ping");
    host.write_all(b"pong").unwrap();
    let (packet, data) = world.hear();
    assert_eq!((packet.operation, packet.forwarded, &data[..]), (Op::Data, 4, &b"pong"[..]));
    host.shutdown(Shutdown::Write).unwrap();
    assert_eq!(world.hear_operation(), Op::Shutdown { receive: false, send: true });
    // The other half is still open.
    world.say(of(Op::Data), b"more");
    host.read_exact(&mut bytes).unwrap();
    world.say(of(Op::Shutdown { receive: true, send: true }), &[]);
    assert_eq!(world.hear_operation(), Op::Reset);
    assert_eq!(host.read(&mut bytes).unwrap(), 0);
}

#[test]
fn a_program_of_the_host_connects_to_the_guest() {
    let world = World::new();
    let mut host = UnixStream::connect(&world.path).unwrap();
    host.write_all(b"CONNECT 1024\nearly").unwrap();
    let (asked, _) = world.hear();
    assert_eq!((asked.operation, asked.guest_port, asked.peer_cid), (Op::Request, 1024, 2));
    let answer = VsockPacket { operation: Op::Response, ..asked };
    world.say(VsockPacket { buffer_len: 1 << 16, forwarded: 0, ..answer }, &[]);
    assert_eq!(world.hear().1, b"early");
    let mut line = vec![0; format!("OK {}\n", asked.peer_port).len()];
    host.read_exact(&mut line).unwrap();
    assert_eq!(line, format!("OK {}\n", asked.peer_port).as_bytes());
    world.say(VsockPacket { operation: Op::Reset, ..asked }, &[]);
    assert_eq!(host.read(&mut line).unwrap(), 0);
}

#[test]
fn where_nobody_listens_the_connection_is_reset() {
    let world = World::new();
    world.say(PACKET, &[]);
    assert_eq!(world.hear_operation(), Op::Reset);
    let mut host = UnixStream::connect(&world.path).unwrap();
    host.write_all(b"CONNECT 7\n").unwrap();
    let (asked, _) = world.hear();
    world.say(VsockPacket { operation: Op::Reset, ..asked }, &[]);
    assert_eq!(host.read(&mut [0; 9]).unwrap(), 0);
}

#[test]
fn packets_that_make_no_sense_are_answered_by_a_reset() {
    let world = World::new();
    let cases = [
        of(Op::Data),
        of(Op::Response),
        of(Op::Unknown),
        of(Op::CreditRequest),
        VsockPacket { peer_cid: 7, ..PACKET },
    ];
    for packet in cases {
        world.say(packet, b"");
        let (answer, _) = world.hear();
        assert_eq!((answer.operation, answer.peer_cid), (Op::Reset, packet.peer_cid));
    }
    world.say(of(Op::Reset), &[]);
    let mut host = UnixStream::connect(&world.path).unwrap();
    host.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    // Closed with bytes unread, which the host's kernel may call a reset.
    assert_eq!(host.read(&mut [0; 9]).unwrap_or(0), 0);
}

#[test]
fn much_data_goes_through_small_buffers_both_ways() {
    let world = World::new();
    let mut host = world.connected();
    let sent: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let echo = std::thread::spawn(move || {
        let (mut total, mut bytes) = (0, vec![0; 7000]);
        while total < 1_000_000 {
            let len = host.read(&mut bytes).unwrap();
            host.write_all(&bytes[..len]).unwrap();
            total += len;
        }
        host
    });
    let (mut at, mut got, mut forwarded) = (0, Vec::new(), 0u32);
    while got.len() < sent.len() {
        // As much as the host has room for: its buffer of 128 KiB, and what it has forwarded.
        while at < sent.len() && at - (forwarded as usize) + 1000 <= 128 << 10 {
            let packet = VsockPacket { forwarded: got.len() as u32, ..of(Op::Data) };
            world.say(packet, &sent[at..at + 1000]);
            at += 1000;
        }
        let (packet, data) = world.hear();
        assert_ne!(packet.operation, Op::Reset);
        forwarded = packet.forwarded;
        got.extend(data);
        world.say(VsockPacket { forwarded: got.len() as u32, ..of(Op::CreditUpdate) }, &[]);
    }
    assert!(got == sent, "the same bytes come back");
    drop(echo.join().unwrap());
}

#[test]
fn a_guest_that_sends_more_than_its_credit_loses_the_connection() {
    let world = World::new();
    let _host = world.connected();
    for _ in 0..64 {
        world.say(of(Op::Data), &[0; 60_000]);
    }
    while world.hear_operation() != Op::Reset {}
}

#[test]
fn a_reset_of_the_device_ends_all_connections_silently() {
    let world = World::new();
    let mut host = world.connected();
    world.guest.epoch.store(1, Ordering::SeqCst);
    world.vsock.wake();
    assert_eq!(host.read(&mut [0; 9]).unwrap(), 0);
    assert!(world.guest.got.lock().unwrap().is_empty());
}

#[test]
fn a_socket_in_use_is_left_alone_and_a_dead_one_replaced() {
    let world = World::new();
    assert!(matches!(Vsock::start(&world.path), Err(VsockError::InUse { .. })));
    let dead = world.path.with_extension("dead");
    drop(UnixListener::bind(&dead).unwrap());
    let vsock = Vsock::start(&dead).unwrap();
    drop(vsock);
    assert!(!dead.exists());
}
