//! A guest that sends anything: the network goes on, and what it keeps is bounded.
// Helpers of tests count as no tests for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::net::{SocketAddrV4, TcpListener};
use std::sync::Arc;

use kasane_host_net::nat::{Nat, NatConfig, Reach};
use kasane_ports::{FrameOffload, PartialChecksum, Segmentation, SegmentationKind};
use proptest::prelude::*;
use support::guest::GATEWAY;
use support::raw::{self, Ip, Raw, Tcp};

/// Only a port that is the test's own can be reached, so that nobody else's server is met.
fn network(port: u16) -> Raw {
    let reach = Reach::HostPorts(vec![port]);
    Raw::new(Arc::new(Nat::start(&NatConfig { reach, ..NatConfig::default() }).unwrap()))
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..300);
    let kind = prop_oneof![Just([8, 0]), Just([8, 6]), Just([0x86, 0xDD]), any::<[u8; 2]>(),];
    let protocol = prop_oneof![Just(1), Just(6), Just(17), any::<u8>()];
    let ip = (protocol, any::<u16>(), any::<u8>(), bytes()).prop_map(
        |(protocol, fragment, ttl, body)| {
            raw::ipv4(Ip { to: GATEWAY, protocol, fragment: fragment & 0x20FF, ttl }, &body)
        },
    );
    let ip6 = (any::<u8>(), any::<u8>(), bytes()).prop_map(|(next, hops, body)| {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((body.len() as u16).to_be_bytes());
        packet.extend([next, hops]);
        packet.extend([0xFE, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        packet.extend([0xFE, 0xC0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        packet.extend(body);
        raw::ethernet([0x86, 0xDD], &packet)
    });
    prop_oneof![
        bytes(),
        (kind, bytes()).prop_map(|(kind, body)| raw::ethernet(kind, &body)),
        ip,
        ip6,
    ]
}

fn offload() -> impl Strategy<Value = FrameOffload> {
    let checksum = proptest::option::of(
        (any::<u16>(), any::<u16>()).prop_map(|(start, offset)| PartialChecksum { start, offset }),
    );
    let segmentation =
        proptest::option::of((any::<u16>(), any::<u16>()).prop_map(|(size, header_len)| {
            Segmentation { kind: SegmentationKind::Tcp4, size, header_len, ecn: true }
        }));
    (checksum, any::<bool>(), segmentation).prop_map(|(checksum, checked, segmentation)| {
        FrameOffload { checksum, checked, segmentation }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_frame_breaks_the_network(
        frames in proptest::collection::vec((frame(), offload()), 1..60)
    ) {
        let raw = network(9);
        for (frame, offload) in frames {
            raw.send_with(frame, offload);
        }
        raw.assert_alive();
    }

    #[test]
    fn no_segment_breaks_a_connection_but_its_own(
        segments in proptest::collection::vec(
            (0_u16..3, any::<u8>(), -3000_i32..3000, -3000_i32..3000, any::<u16>(), 0_usize..2000),
            1..80),
    ) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let raw = network(port);
        let left = FrameOffload { checked: true, ..FrameOffload::default() };
        let to = SocketAddrV4::new(GATEWAY, port);
        for from in 0..3 {
            let syn = Tcp { from: 4000 + from, to, seq: 999, ack: 0, flags: 2, window: 9000 };
            raw.send_with(raw::tcp(syn, &[]), left);
        }
        let mut first = [0_u32; 3];
        let mut answered = 0;
        raw.expect(|frame| {
            let Some((_, 6, body)) = raw::parse(frame) else { return false };
            let from = u16::from_be_bytes([body[2], body[3]]) - 4000;
            first[usize::from(from)] = u32::from_be_bytes(body[4..8].try_into().unwrap());
            answered += 1;
            answered == 3
        });
        for (from, flags, seq, ack, window, len) in segments {
            let head = Tcp {
                from: 4000 + from,
                to,
                seq: 1000_u32.wrapping_add_signed(seq / 100),
                ack: first[usize::from(from)].wrapping_add(1).wrapping_add_signed(ack / 100),
                flags,
                window,
            };
            raw.send_with(raw::tcp(head, &vec![1; len]), left);
        }
        raw.assert_alive();
    }
}

#[test]
fn more_ports_than_there_are_sockets_for() {
    let host = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = host.local_addr().unwrap().port();
    let raw = network(port);
    for from in 1..3000 {
        raw.send(raw::udp(from, SocketAddrV4::new(GATEWAY, port), b"x"));
    }
    raw.assert_alive();
}

#[test]
fn more_addresses_than_are_remembered() {
    let raw = network(9);
    for index in 0..1000_u16 {
        let [high, low] = index.to_be_bytes();
        let sender = [2, 0, 0, 0, high, low, 10, 9, high, low];
        let body = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &sender, &[0; 6], &[10, 0, 2, 2]];
        raw.send(raw::ethernet([8, 6], &body.concat()));
    }
    raw.assert_alive();
}

#[test]
fn more_connections_than_there_may_be() {
    const SYN: u8 = 2;
    const RST: u8 = 4;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let raw = network(port);
    let left = FrameOffload { checked: true, ..FrameOffload::default() };
    let to = SocketAddrV4::new(GATEWAY, port);
    let open = |from| {
        let syn = Tcp { from, to, seq: 999, ack: 0, flags: SYN, window: 9000 };
        raw.send_with(raw::tcp(syn, &[]), left);
    };
    for from in 1..=4096 {
        open(from);
    }
    let mut refused = |frame: &[u8]| {
        raw::parse(frame).is_some_and(|(_, kind, body)| {
            kind == 6 && body[2..4] == [0x20, 0] && body[13] & RST != 0
        })
    };
    let told = (0..100).any(|_| {
        open(0x2000);
        let patience = std::time::Duration::from_millis(200);
        raw.device.try_expect(&*raw.backend, patience, &mut refused).is_some()
    });
    assert!(told);
}
