//! TCP through the NAT, between a guest's stack and real servers on the loopback.
// Helpers of tests count as no tests for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use kasane_host_net::nat::{Nat, NatConfig};
use kasane_ports::{NetBackend, NetGuestOffloads};
use smoltcp::socket::tcp::State;
use support::guest::{GATEWAY6, Guest, host};
use support::server::{noise, once, read_all, write_all};
use support::{ALL_OFFLOADS, FakeDevice};

const BUFFER: usize = 256 << 10;

fn guest_with(offloads: NetGuestOffloads, config: &NatConfig) -> Guest {
    let nat: Arc<dyn NetBackend> = Arc::new(Nat::start(config).unwrap());
    Guest::new(FakeDevice::on(&*nat, offloads), nat)
}

fn guest() -> Guest {
    guest_with(ALL_OFFLOADS, &NatConfig::default())
}

fn download(mut guest: Guest, len: usize) {
    let bytes = noise(len);
    let sent = bytes.clone();
    let (port, server) = once(move |stream| write_all(&stream, &sent));
    let handle = guest.connect(host(port), BUFFER);
    let received = guest.receive_all(handle);
    assert_eq!(received.len(), bytes.len());
    assert!(received == bytes);
    server.join().unwrap();
}

fn upload(mut guest: Guest, len: usize) {
    let bytes = noise(len);
    let (port, server) = once(|stream| read_all(&stream));
    let handle = guest.connect(host(port), BUFFER);
    guest.send_all(handle, &bytes);
    guest.tcp(handle).close();
    guest.until(|guest| (guest.tcp(handle).send_queue() == 0).then_some(()));
    let received = server.join().unwrap();
    assert_eq!(received.len(), bytes.len());
    assert!(received == bytes);
}

#[test]
fn much_comes_down_in_long_frames() {
    download(guest(), 64 << 20);
}

#[test]
fn much_comes_down_in_plain_frames() {
    download(guest_with(NetGuestOffloads::default(), &NatConfig::default()), 64 << 20);
}

#[test]
fn much_goes_up() {
    upload(guest(), 64 << 20);
}

#[test]
fn much_goes_up_in_jumbo_frames() {
    upload(guest_with(ALL_OFFLOADS, &NatConfig { mtu: 65_520, ..NatConfig::default() }), 64 << 20);
}

#[test]
fn both_ways_at_once() {
    let mut guest = guest();
    let bytes = noise(8 << 20);
    let sent = bytes.clone();
    let (port, server) = once(move |stream| {
        let writer = stream.try_clone().unwrap();
        let thread = std::thread::spawn(move || write_all(&writer, &sent));
        let read = read_all(&stream);
        thread.join().unwrap();
        read
    });
    let handle = guest.connect(host(port), BUFFER);
    let (mut up, mut down) = (&bytes[..], Vec::new());
    guest.until(|guest| {
        let socket = guest.tcp(handle);
        if socket.can_send() && !up.is_empty() {
            up = &up[socket.send_slice(up).unwrap()..];
            if up.is_empty() {
                socket.close();
            }
        }
        while socket.can_recv() {
            socket.recv(|part| (part.len(), down.extend_from_slice(part))).unwrap();
        }
        (up.is_empty() && socket.send_queue() == 0 && !socket.may_recv()).then_some(())
    });
    assert!(down == bytes);
    assert!(server.join().unwrap() == bytes);
}

#[test]
fn the_guest_closes_first_and_still_gets_the_answer() {
    let mut guest = guest();
    let (port, server) = once(|stream| {
        let question = read_all(&stream);
        write_all(&stream, &[&question[..], b" yourself"].concat());
    });
    let handle = guest.connect(host(port), BUFFER);
    guest.send_all(handle, b"hello");
    guest.tcp(handle).close();
    assert_eq!(guest.receive_all(handle), b"hello yourself");
    server.join().unwrap();
    let closed = [State::Closed, State::TimeWait];
    guest.until(|guest| closed.contains(&guest.tcp(handle).state()).then_some(()));
}

#[test]
fn the_server_closes_first_and_still_gets_the_rest() {
    let mut guest = guest();
    let (port, server) = once(|stream| {
        stream.shutdown(Shutdown::Write).unwrap();
        read_all(&stream)
    });
    let handle = guest.connect(host(port), BUFFER);
    assert!(guest.receive_all(handle).is_empty());
    guest.send_all(handle, b"after the end");
    guest.tcp(handle).close();
    guest.until(|guest| (guest.tcp(handle).state() == State::Closed).then_some(()));
    assert_eq!(server.join().unwrap(), b"after the end");
}

#[test]
fn a_closed_port_refuses() {
    let mut guest = guest();
    // Bound and not listening, so that no other test gets the port meanwhile.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    let handle = guest.begin(host(port), BUFFER);
    guest.until(|guest| (guest.tcp(handle).state() == State::Closed).then_some(()));
}

#[test]
fn a_server_that_resets_resets_the_guest() {
    let mut guest = guest();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (port, server) = once(move |stream| {
        wait.recv().unwrap();
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let handle = guest.connect(host(port), BUFFER);
    go.send(()).unwrap();
    server.join().unwrap();
    guest.until(|guest| (guest.tcp(handle).state() == State::Closed).then_some(()));
}

#[test]
fn a_guest_that_resets_resets_the_server() {
    let mut guest = guest();
    let (port, server) = once(|mut stream| stream.read(&mut [0; 16]).unwrap_err().kind());
    let handle = guest.connect(host(port), BUFFER);
    guest.tcp(handle).abort();
    guest.poll();
    assert_eq!(server.join().unwrap(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_slow_server_holds_the_guest_back() {
    let mut guest = guest();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let bytes = noise(48 << 20);
    let (port, server) = once(move |stream| {
        wait.recv().unwrap();
        read_all(&stream)
    });
    let handle = guest.connect(host(port), BUFFER);
    let mut left = &bytes[..];
    // Until nothing goes any more: then all windows on the way are closed.
    let mut still = 0;
    while still < 50 {
        let before = left.len();
        guest.within(Duration::from_millis(20), &mut |guest| {
            let socket = guest.tcp(handle);
            if socket.can_send() && !left.is_empty() {
                left = &left[socket.send_slice(left).unwrap()..];
            }
            None::<()>
        });
        still = if left.len() == before { still + 1 } else { 0 };
    }
    let taken = bytes.len() - left.len();
    assert!(taken < 24 << 20, "{taken} bytes were taken from the guest");
    go.send(()).unwrap();
    guest.send_all(handle, left);
    guest.tcp(handle).close();
    guest.until(|guest| (guest.tcp(handle).send_queue() == 0).then_some(()));
    assert!(server.join().unwrap() == bytes);
}

#[test]
fn a_slow_guest_holds_the_server_back() {
    let mut guest = guest();
    let bytes = noise(48 << 20);
    let sent = bytes.clone();
    let progress = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let written = progress.clone();
    let (port, server) = once(move |mut stream| {
        use std::io::Write;
        for part in sent.chunks(64 << 10) {
            stream.write_all(part).unwrap();
            written.fetch_add(part.len(), std::sync::atomic::Ordering::SeqCst);
        }
    });
    let handle = guest.connect(host(port), BUFFER);
    // The guest's stack runs, but nobody reads from the socket.
    guest.within(Duration::from_secs(1), &mut |_| None::<()>);
    let taken = progress.load(std::sync::atomic::Ordering::SeqCst);
    assert!(taken < 24 << 20, "{taken} bytes were taken from the server");
    assert!(guest.receive_all(handle) == bytes);
    server.join().unwrap();
}

#[test]
fn ipv6_reaches_the_loopback_too() {
    let mut guest = guest();
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let bytes = noise(4 << 20);
    let sent = bytes.clone();
    let server = std::thread::spawn(move || write_all(&listener.accept().unwrap().0, &sent));
    let handle = guest.connect((GATEWAY6, port).into(), BUFFER);
    assert!(guest.receive_all(handle) == bytes);
    server.join().unwrap();
}

#[test]
fn a_thousand_connections_at_once() {
    const FLOWS: usize = 1000;
    let mut guest = guest();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    socket2::SockRef::from(&listener).listen(4096).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let streams: Vec<_> = (0..FLOWS).map(|_| listener.accept().unwrap().0).collect();
        for mut stream in streams {
            let mut word = [0; 8];
            stream.read_exact(&mut word).unwrap();
            write_all(&stream, &word);
        }
    });
    let handles: Vec<_> = (0..FLOWS).map(|_| guest.begin(host(port), 1024)).collect();
    guest.until(|guest| handles.iter().all(|handle| guest.tcp(*handle).may_send()).then_some(()));
    for (index, handle) in handles.iter().enumerate() {
        guest.tcp(*handle).send_slice(&index.to_le_bytes()).unwrap();
    }
    for (index, handle) in handles.iter().enumerate() {
        assert_eq!(guest.receive_all(*handle), index.to_le_bytes());
        guest.tcp(*handle).close();
    }
    server.join().unwrap();
}

#[test]
fn a_guest_that_refuses_long_frames_gets_short_ones() {
    let guest = guest();
    guest.card.device.longest.store(1514, std::sync::atomic::Ordering::SeqCst);
    download(guest, 256 << 10);
}

#[test]
fn what_the_guest_loses_is_sent_again() {
    for one_in in [5, 23] {
        let guest = guest_with(NetGuestOffloads::default(), &NatConfig::default());
        guest.card.device.loses_one_in.store(one_in, std::sync::atomic::Ordering::SeqCst);
        download(guest, 128 << 10);
    }
}

#[test]
fn what_the_guest_loses_on_the_way_up_does_no_harm() {
    let guest = guest();
    guest.card.device.loses_one_in.store(4, std::sync::atomic::Ordering::SeqCst);
    upload(guest, 512 << 10);
}

#[test]
fn an_early_answer_comes_through_though_the_server_resets() {
    let mut guest = guest();
    let bytes = noise(20 << 10);
    let answer = bytes.clone();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (port, server) = once(move |mut stream| {
        use std::io::Write;
        wait.recv().unwrap();
        stream.write_all(&answer).unwrap();
        // What the guest has sent is not read: the close is a reset.
    });
    let handle = guest.connect(host(port), BUFFER);
    guest.send_all(handle, &noise(64 << 10));
    guest.until(|guest| (guest.tcp(handle).send_queue() == 0).then_some(()));
    go.send(()).unwrap();
    server.join().unwrap();
    guest.tcp(handle).send_slice(b"more").unwrap();
    assert!(guest.receive_all(handle) == bytes);
    guest.until(|guest| (guest.tcp(handle).state() == State::Closed).then_some(()));
}
