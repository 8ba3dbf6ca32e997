//! What is not TCP: addresses, names, datagrams, errors, forwards.
// Helpers of tests count as no tests for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use kasane_host_net::NetError;
use kasane_host_net::nat::{NameServers, Nat, NatConfig, Reach};
use kasane_ports::{FrameOffload, NetBackend, PartialChecksum, Segmentation, SegmentationKind};
use smoltcp::socket::{dhcpv4, tcp, udp};
use smoltcp::wire::{DhcpRepr, IpCidr};
use support::guest::{ADDRESS, GATEWAY, GATEWAY6, Guest, Identity, MAC};
use support::raw::{self, Ip, Raw, Tcp};
use support::{ALL_OFFLOADS, FakeDevice, PATIENCE};

fn start(config: &NatConfig) -> Arc<dyn NetBackend> {
    Arc::new(Nat::start(config).unwrap())
}

fn raw() -> Raw {
    Raw::new(start(&NatConfig::default()))
}

fn guest_on(nat: Arc<dyn NetBackend>) -> Guest {
    Guest::new(FakeDevice::on(&*nat, ALL_OFFLOADS), nat)
}

fn gateway(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(GATEWAY, port)
}

fn host_socket() -> (UdpSocket, u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// Answers one datagram with `answer` of it.
fn answer_once(answer: impl FnOnce(&[u8]) -> Vec<u8> + Send + 'static) -> u16 {
    let (socket, port) = host_socket();
    std::thread::spawn(move || {
        let mut buffer = [0; 65_536];
        let (len, from) = socket.recv_from(&mut buffer).unwrap();
        socket.send_to(&answer(&buffer[..len]), from).unwrap();
    });
    port
}

#[test]
fn dhcp_gives_the_address_that_everybody_knows() {
    let nat = start(&NatConfig::default());
    let device = FakeDevice::on(&*nat, ALL_OFFLOADS);
    let mut guest = Guest::of(device, nat, Identity { mac: MAC, address: None });
    let handle = guest.sockets.add(dhcpv4::Socket::new());
    let (address, router, servers) =
        guest.until(|guest| match guest.sockets.get_mut::<dhcpv4::Socket<'_>>(handle).poll() {
            Some(dhcpv4::Event::Configured(lease)) => {
                Some((lease.address, lease.router, lease.dns_servers.to_vec()))
            }
            _ => None,
        });
    assert_eq!(IpCidr::from(address), IpCidr::new(ADDRESS.into(), 24));
    assert_eq!(router, Some(GATEWAY));
    assert_eq!(servers, [Ipv4Addr::new(10, 0, 2, 3)]);
}

#[test]
fn dhcp_refuses_an_address_that_is_anothers() {
    let raw = raw();
    let repr = DhcpRepr {
        message_type: smoltcp::wire::DhcpMessageType::Request,
        transaction_id: 7,
        secs: 0,
        client_hardware_address: smoltcp::wire::EthernetAddress(MAC),
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: false,
        requested_ip: Some(Ipv4Addr::new(192, 168, 0, 7)),
        client_identifier: None,
        server_identifier: None,
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let mut body = vec![0; repr.buffer_len()];
    repr.emit(&mut smoltcp::wire::DhcpPacket::new_unchecked(&mut body[..])).unwrap();
    raw.send(raw::udp(68, SocketAddrV4::new(Ipv4Addr::BROADCAST, 67), &body));
    let answer = raw.expect(|frame| raw::parse(frame).is_some_and(|(_, kind, _)| kind == 17));
    let packet = smoltcp::wire::DhcpPacket::new_checked(&answer[42..]).unwrap();
    let answer = DhcpRepr::parse(&packet).unwrap();
    assert_eq!(answer.message_type, smoltcp::wire::DhcpMessageType::Nak);
}

#[test]
fn arp_is_answered_for_the_gateway_and_nobody_else() {
    let raw = raw();
    let ask = |last: u8| {
        let body =
            [&[0, 1, 8, 0, 6, 4, 0, 1][..], &MAC, &[10, 0, 2, 15], &[0; 6], &[10, 0, 2, last]]
                .concat();
        raw.send(raw::ethernet([8, 6], &body));
    };
    ask(99);
    ask(3);
    let answer = raw.expect(|frame| frame[12..14] == [8, 6]);
    assert_eq!(answer[28..32], [10, 0, 2, 3]);
    assert_eq!(answer[22..28], raw::GATEWAY_MAC);
}

#[test]
fn the_gateway_answers_an_echo_request() {
    raw().assert_alive();
}

#[test]
fn a_datagram_reaches_the_loopback_and_comes_back() {
    let raw = raw();
    let port = answer_once(|question| [question, b"!"].concat());
    raw.send(raw::udp(4000, gateway(port), b"hello"));
    let answer = raw.expect(|frame| raw::parse(frame).is_some_and(|(_, kind, _)| kind == 17));
    let (from, _, body) = raw::parse(&answer).unwrap();
    assert_eq!(from, GATEWAY);
    assert_eq!(body[..4], [port.to_be_bytes(), 4000_u16.to_be_bytes()].concat());
    assert_eq!(&body[8..], b"hello!");
}

#[test]
fn one_port_of_the_guest_is_one_port_of_the_host() {
    let raw = raw();
    let (one, one_port) = host_socket();
    let (other, other_port) = host_socket();
    raw.send(raw::udp(4000, gateway(one_port), b"1"));
    raw.send(raw::udp(4000, gateway(other_port), b"2"));
    let (_, first) = one.recv_from(&mut [0; 8]).unwrap();
    let (_, second) = other.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(first, second);
}

#[test]
fn a_long_datagram_comes_in_fragments() {
    let raw = raw();
    let port = answer_once(|_| vec![7; 5000]);
    raw.send(raw::udp(4000, gateway(port), b"x"));
    let mut whole = Vec::new();
    raw.expect(|frame| {
        let Some((_, 17, body)) = raw::parse(frame) else { return false };
        let field = u16::from_be_bytes([frame[20], frame[21]]);
        assert_eq!(usize::from(field & 0x1FFF) * 8, whole.len());
        whole.extend_from_slice(body);
        field & 0x2000 == 0
    });
    assert_eq!(whole.len(), 5008);
    assert_eq!(&whole[8..], [7; 5000]);
}

#[test]
fn fragments_of_the_guests_are_put_together() {
    let raw = raw();
    let (socket, port) = host_socket();
    let data: Vec<u8> = (0..3000_u16).map(|n| n as u8).collect();
    let body = raw::udp_body(4000, gateway(port), &data);
    let part = |from: usize, to: usize, more: u16| {
        let fragment = (from / 8) as u16 | more;
        raw::ipv4(Ip { to: GATEWAY, protocol: 17, fragment, ttl: 64 }, &body[from..to])
    };
    raw.send(part(1480, 2960, 0x2000));
    raw.send(part(0, 1480, 0x2000));
    raw.send(part(2960, 3008, 0));
    let mut buffer = [0; 4096];
    let (len, _) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(buffer[..len], data);
}

#[cfg(target_os = "linux")]
#[test]
fn a_closed_udp_port_is_said_to_be_unreachable() {
    let raw = raw();
    let (socket, port) = host_socket();
    drop(socket);
    raw.send(raw::udp(4000, gateway(port), b"x"));
    let error = raw.expect(|frame| raw::parse(frame).is_some_and(|(_, kind, _)| kind == 1));
    let (_, _, body) = raw::parse(&error).unwrap();
    assert_eq!(body[..2], [3, 3]);
    // The quoted packet is ours: from the guest, to that port.
    assert_eq!(body[8 + 12..8 + 16], ADDRESS.octets());
    assert_eq!(body[28..32], [4000_u16.to_be_bytes(), port.to_be_bytes()].concat());
}

#[test]
fn a_neighbour_that_is_not_there_is_unreachable() {
    let raw = raw();
    raw.send(raw::udp(4000, SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 99), 9), b"x"));
    let error = raw.expect(|frame| raw::parse(frame).is_some_and(|(_, kind, _)| kind == 1));
    assert_eq!(raw::parse(&error).unwrap().2[..2], [3, 1]);
}

#[test]
fn the_last_hop_is_the_gateway() {
    let raw = raw();
    let to = Ipv4Addr::new(192, 0, 2, 1);
    let body = raw::udp_body(4000, SocketAddrV4::new(to, 33_434), b"x");
    raw.send(raw::ipv4(Ip { to, protocol: 17, fragment: 0, ttl: 1 }, &body));
    let error = raw.expect(|frame| raw::parse(frame).is_some_and(|(_, kind, _)| kind == 1));
    let (from, _, body) = raw::parse(&error).unwrap();
    assert_eq!((from, &body[..2]), (GATEWAY.into(), &[11, 0][..]));
}

#[test]
fn a_restricted_guest_is_refused() {
    let (socket, port) = host_socket();
    let raw =
        Raw::new(start(&NatConfig { reach: Reach::HostPorts(vec![port]), ..NatConfig::default() }));
    raw.send(raw::udp(4000, gateway(port), b"allowed"));
    socket.recv_from(&mut [0; 8]).unwrap();
    raw.send(raw::udp(4000, SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 9), b"x"));
    raw.expect(|frame| raw::parse(frame).is_some_and(|(_, kind, body)| kind == 1 && body[0] == 3));
}

#[test]
fn names_are_asked_of_the_hosts_server() {
    let port = answer_once(|query| [query, b" answered"].concat());
    let server = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let servers = NameServers::These(vec![server]);
    let raw = Raw::new(start(&NatConfig { name_servers: servers, ..NatConfig::default() }));
    let dns = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 3), 53);
    raw.send(raw::udp(4000, dns, b"query"));
    let answer = raw.expect(|frame| raw::parse(frame).is_some_and(|(_, kind, _)| kind == 17));
    let (from, _, body) = raw::parse(&answer).unwrap();
    assert_eq!(from, *dns.ip());
    assert_eq!((&body[..2], &body[8..]), (&[0, 53][..], &b"query answered"[..]));
}

#[test]
fn a_dead_name_server_is_followed_by_the_next() {
    let (dead, dead_port) = host_socket();
    drop(dead);
    let port = answer_once(<[u8]>::to_vec);
    let of = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let servers = NameServers::These(vec![of(dead_port), of(port)]);
    let raw = Raw::new(start(&NatConfig { name_servers: servers, ..NatConfig::default() }));
    let dns = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 3), 53);
    let mut wanted = |frame: &[u8]| raw::parse(frame).is_some_and(|(_, kind, _)| kind == 17);
    let answered = (0..50).any(|_| {
        raw.send(raw::udp(4000, dns, b"query"));
        let patience = Duration::from_millis(200);
        raw.device.try_expect(&*raw.backend, patience, &mut wanted).is_some()
    });
    assert!(answered);
}

#[test]
fn names_are_asked_over_tcp_too() {
    let (port, server) = support::server::once(|mut stream| {
        let mut query = [0; 5];
        stream.read_exact(&mut query).unwrap();
        stream.write_all(&query).unwrap();
    });
    let server_address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let servers = NameServers::These(vec![server_address]);
    let mut guest = guest_on(start(&NatConfig { name_servers: servers, ..NatConfig::default() }));
    let handle = guest.connect("10.0.2.3:53".parse().unwrap(), 4096);
    guest.send_all(handle, b"query");
    assert_eq!(guest.receive_all(handle), b"query");
    server.join().unwrap();
}

fn forwarded(text: &str) -> (Arc<dyn NetBackend>, SocketAddr) {
    let config = NatConfig { forwards: vec![text.parse().unwrap()], ..NatConfig::default() };
    let nat = Nat::start(&config).unwrap();
    let host = nat.forwards()[0].host;
    (Arc::new(nat), host)
}

#[test]
fn a_forward_leads_into_the_guest() {
    let (nat, host) = forwarded("tcp:0:22");
    let mut guest = guest_on(nat);
    let mut socket = tcp::Socket::new(
        tcp::SocketBuffer::new(vec![0; 4096]),
        tcp::SocketBuffer::new(vec![0; 4096]),
    );
    socket.listen(22).unwrap();
    let handle = guest.sockets.add(socket);
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(host).unwrap();
        stream.write_all(b"hello").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    });
    guest.until(|guest| (guest.tcp(handle).recv_queue() == 5).then_some(()));
    assert_eq!(guest.tcp(handle).remote_endpoint().unwrap().addr, GATEWAY.into());
    guest.send_all(handle, b"hello to you");
    guest.tcp(handle).close();
    guest.until(|_| client.is_finished().then_some(()));
    assert_eq!(client.join().unwrap(), b"hello to you");
}

#[test]
fn a_forward_to_a_closed_port_is_reset() {
    let (nat, host) = forwarded("tcp:0:22");
    let mut guest = guest_on(nat);
    let client = std::thread::spawn(move || {
        TcpStream::connect(host).unwrap().read(&mut [0; 8]).unwrap_err().kind()
    });
    guest.until(|_| client.is_finished().then_some(()));
    assert_eq!(client.join().unwrap(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_udp_forward_has_clients_of_its_own() {
    let (nat, host) = forwarded("udp:0:53");
    let mut guest = guest_on(nat);
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 1024]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(53).unwrap();
    let handle = guest.sockets.add(socket);
    let clients = [host_socket().0, host_socket().0];
    let mut answered = 0;
    let mut tries = 0;
    guest.until(|guest| {
        // The first ones may get lost, until the guest is known.
        if tries % 50 == 0 {
            for (index, client) in clients.iter().enumerate() {
                client.send_to(&[b'0' + index as u8], host).unwrap();
            }
        }
        tries += 1;
        let socket = guest.sockets.get_mut::<udp::Socket<'_>>(handle);
        while let Ok((data, from)) = socket.recv() {
            let answer = [data, b"!"].concat();
            socket.send_slice(&answer, from.endpoint).unwrap();
            answered += 1;
        }
        (answered >= 4).then_some(())
    });
    guest.poll();
    for (index, client) in clients.iter().enumerate() {
        let mut buffer = [0; 8];
        let (len, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from), (&[b'0' + index as u8, b'!'][..], host));
    }
}

#[test]
fn a_port_that_is_taken_is_said_by_whom() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let forward = format!("tcp:{}:22", listener.local_addr().unwrap()).parse().unwrap();
    let config = NatConfig { forwards: vec![forward], ..NatConfig::default() };
    let error = Nat::start(&config).err().unwrap();
    assert!(matches!(error, NetError::Forward { .. }));
    let process = format!("(process {})", std::process::id());
    assert!(error.to_string().contains(&process), "{error}");
    assert!(error.help().unwrap().contains("tcp:127.0.0.1:0:22"));
}

fn ipv6(to: &str, next: u8, hop_limit: u8, body: &[u8]) -> Vec<u8> {
    let from: std::net::Ipv6Addr = "fec0::15".parse().unwrap();
    let to: std::net::Ipv6Addr = to.parse().unwrap();
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((body.len() as u16).to_be_bytes());
    packet.extend([next, hop_limit]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(body);
    raw::ethernet([0x86, 0xDD], &packet)
}

#[test]
fn a_router_solicitation_is_answered_with_prefix_and_name_server() {
    let raw = raw();
    raw.send(ipv6("ff02::2", 58, 255, &[133, 0, 0, 0, 0, 0, 0, 0]));
    let answer = raw.expect(|frame| frame.get(54) == Some(&134));
    let packet = smoltcp::wire::Icmpv6Packet::new_checked(&answer[54..]).unwrap();
    let (from, to) = ("fe80::2".parse().unwrap(), "ff02::1".parse().unwrap());
    assert!(packet.verify_checksum(&from, &to));
    let dns: std::net::Ipv6Addr = "fec0::3".parse().unwrap();
    assert!(answer.windows(16).any(|window| window == dns.octets()));
}

#[test]
fn a_datagram_over_ipv6_comes_back() {
    let nat = start(&NatConfig::default());
    let mut guest = guest_on(nat);
    let server = UdpSocket::bind("[::1]:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let mut buffer = [0; 64];
        let (len, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to(&buffer[..len], from).unwrap();
    });
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 1024]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(4000).unwrap();
    let to = (smoltcp::wire::IpAddress::from(GATEWAY6), port);
    socket.send_slice(b"six", to).unwrap();
    let handle = guest.sockets.add(socket);
    let answer = guest.until(|guest| {
        guest.sockets.get_mut::<udp::Socket<'_>>(handle).recv().ok().map(|(data, _)| data.to_vec())
    });
    assert_eq!(answer, b"six");
    thread.join().unwrap();
}

#[test]
fn a_long_frame_of_the_guests_is_taken_whole() {
    let raw = raw();
    let (port, server) = support::server::once(|stream| support::server::read_all(&stream));
    let head = Tcp { from: 4000, to: gateway(port), seq: 99, ack: 0, flags: 2, window: 65_000 };
    let left = FrameOffload {
        checksum: Some(PartialChecksum { start: 34, offset: 16 }),
        ..FrameOffload::default()
    };
    raw.send_with(raw::tcp(head, &[]), left);
    let answer = raw.expect(|frame| frame.get(47) == Some(&0x12));
    let ack = u32::from_be_bytes(answer[38..42].try_into().unwrap()).wrapping_add(1);
    let data = support::server::noise(60_000);
    let cut = Segmentation { kind: SegmentationKind::Tcp4, size: 1460, header_len: 54, ecn: false };
    let long = FrameOffload { segmentation: Some(cut), ..left };
    // PSH, ACK and FIN at once: the data counts first.
    let head = Tcp { seq: 100, ack, flags: 0x19, ..head };
    raw.send_with(raw::tcp(head, &data), long);
    assert!(server.join().unwrap() == data);
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "needs net.ipv4.ping_group_range to name the user's group, and 192.0.2.1 to be there"]
fn an_echo_request_goes_through() {
    let raw = raw();
    raw.send(raw::ping(Ipv4Addr::new(192, 0, 2, 1), 0x1234));
    let answer = raw.expect(|frame| raw::parse(frame).is_some_and(|(_, kind, _)| kind == 1));
    let (from, _, body) = raw::parse(&answer).unwrap();
    assert_eq!(from, Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!((&body[..2], &body[4..]), (&[0, 0][..], &b"\x12\x34\0\x01ping"[..]));
}
