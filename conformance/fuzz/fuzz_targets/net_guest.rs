//! A guest that sends anything to the NAT: frames of any form, connections to a server of our own
//! in any order of segments, with and without room for answers. The network goes on.
#![no_main]

use std::net::TcpListener;
use std::sync::OnceLock;

use arbitrary::Arbitrary;
use kasane_fuzz::net::Card;
use kasane_host_net::nat::{Nat, NatConfig, Reach};
use kasane_ports::{
    FrameOffload, NetGuestOffloads, PartialChecksum, Segmentation, SegmentationKind,
};
use libfuzzer_sys::fuzz_target;

const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const GUEST: [u8; 4] = [10, 0, 2, 15];

#[derive(Arbitrary, Debug)]
enum Step {
    /// Any bytes.
    Frame { bytes: Vec<u8>, offload: Offload },
    /// A frame for the gateway.
    Ethernet { kind: Kind, body: Vec<u8>, offload: Offload },
    /// A packet for the gateway or the name server.
    Ip { protocol: Protocol, dns: bool, fragment: u16, ttl: u8, body: Vec<u8> },
    /// A segment to the server, near the numbers that are right.
    Tcp { from: u8, flags: u8, seq: i16, ack: i16, window: u16, len: u16, options: [u8; 4] },
    /// Room for so many frames.
    Room(u8),
    /// All that was sent so far is taken.
    Settle,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Kind {
    Arp,
    Ipv4,
    Ipv6,
    Other([u8; 2]),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Protocol {
    Icmp,
    Tcp,
    Udp,
    Icmp6,
    Other(u8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Offload {
    None,
    Checked,
    Partial { start: u16, offset: u16 },
    Cut { start: u16, offset: u16, size: u16, header_len: u16 },
}

impl From<Offload> for FrameOffload {
    fn from(offload: Offload) -> Self {
        let (checksum, segmentation) = match offload {
            Offload::None | Offload::Checked => (None, None),
            Offload::Partial { start, offset } => (Some(PartialChecksum { start, offset }), None),
            Offload::Cut { start, offset, size, header_len } => (
                Some(PartialChecksum { start, offset }),
                Some(Segmentation { kind: SegmentationKind::Tcp4, size, header_len, ecn: false }),
            ),
        };
        Self { checksum, checked: matches!(offload, Offload::Checked), segmentation }
    }
}

/// A server that says something and goes.
fn port() -> u16 {
    static PORT: OnceLock<u16> = OnceLock::new();
    *PORT.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a loopback");
        let port = listener.local_addr().expect("it is bound").port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                use std::io::Write;
                let _ = (&stream).write_all(&[7; 5000]);
            }
        });
        port
    })
}

fn ethernet(kind: [u8; 2], body: &[u8]) -> Vec<u8> {
    [&GATEWAY_MAC[..], &MAC, &kind, body].concat()
}

fn ipv4(protocol: u8, last: u8, (fragment, ttl): (u16, u8), body: &[u8]) -> Vec<u8> {
    let len = (20 + body.len()).min(65_535) as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([ttl, protocol, 0, 0]);
    packet.extend(GUEST);
    packet.extend([10, 0, 2, last]);
    packet.extend(body);
    ethernet([8, 0], &packet)
}

/// Sends what a step says.
fn take_step(step: Step, card: &Card, nat: &Nat, port: u16) {
    use kasane_ports::NetBackend;
    match step {
        Step::Frame { bytes, offload } => card.send(bytes, offload.into()),
        Step::Ethernet { kind, body, offload } => {
            let kind = match kind {
                Kind::Arp => [8, 6],
                Kind::Ipv4 => [8, 0],
                Kind::Ipv6 => [0x86, 0xDD],
                Kind::Other(kind) => kind,
            };
            card.send(ethernet(kind, &body), offload.into());
        }
        Step::Ip { protocol, dns, fragment, ttl, body } => {
            let protocol = match protocol {
                Protocol::Icmp => 1,
                Protocol::Tcp => 6,
                Protocol::Udp => 17,
                Protocol::Icmp6 => 58,
                Protocol::Other(number) => number,
            };
            let last = if dns { 3 } else { 2 };
            let place = (fragment & 0x20FF, ttl);
            card.send(ipv4(protocol, last, place, &body), FrameOffload::default());
        }
        Step::Tcp { from, flags, seq, ack, window, len, options } => {
            let (theirs, ours) = card.last();
            let mut body =
                [(4000 + u16::from(from % 4)).to_be_bytes(), port.to_be_bytes()].concat();
            body.extend(ours.wrapping_add_signed(seq.into()).to_be_bytes());
            body.extend(theirs.wrapping_add_signed(ack.into()).to_be_bytes());
            body.extend([6 << 4, flags]);
            body.extend(window.to_be_bytes());
            body.extend([0; 4]);
            body.extend(options);
            body.resize(body.len() + usize::from(len % 4096), 1);
            card.send(ipv4(6, 2, (0, 64), &body), FrameOffload::default());
        }
        Step::Room(room) => card.set_room(if room == 255 { u64::MAX } else { room.into() }),
        Step::Settle => card.settle(nat),
    }
    nat.wake();
}

fuzz_target!(|input: (bool, Vec<Step>)| {
    let (offloads, steps) = input;
    let port = port();
    let reach = Reach::HostPorts(vec![port]);
    let nat = Nat::start(&NatConfig { reach, ..NatConfig::default() }).expect("a network");
    let offloads = NetGuestOffloads { partial_checksum: offloads, tcp4: offloads, tcp6: offloads };
    let card = Card::on(&nat, offloads);
    for step in steps {
        take_step(step, &card, &nat, port);
    }
    card.set_room(u64::MAX);
    card.settle(&nat);
    // It still answers: an echo request to the gateway.
    let given = card.given();
    let echo = ipv4(1, 2, (0, 64), &[8, 0, 0xF7, 0xFD, 0, 1, 0, 1]);
    card.send(echo, FrameOffload::default());
    card.settle(&nat);
    assert!(card.given() > given, "the network is silent");
});
