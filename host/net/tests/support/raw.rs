//! Frames that a guest makes by hand.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use kasane_ports::{FrameOffload, NetBackend};

use super::guest::{ADDRESS, MAC};
use super::{FakeDevice, complete};

pub const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];

/// A device and its network.
pub struct Raw {
    pub device: Arc<FakeDevice>,
    pub backend: Arc<dyn NetBackend>,
}

impl Raw {
    pub fn new(backend: Arc<dyn NetBackend>) -> Self {
        Self { device: FakeDevice::on(&*backend, super::ALL_OFFLOADS), backend }
    }

    pub fn send(&self, frame: Vec<u8>) {
        self.send_with(frame, FrameOffload::default());
    }

    pub fn send_with(&self, frame: Vec<u8>, offload: FrameOffload) {
        self.device.send(frame, offload);
        self.backend.wake();
    }

    pub fn expect(&self, wanted: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
        self.device.expect(&*self.backend, wanted)
    }

    /// The network still answers, though an answer may get lost when there is no room for it.
    pub fn assert_alive(&self) {
        let mut answers =
            |frame: &[u8]| frame.get(34) == Some(&0) && frame.get(38..40) == Some(&[0x77; 2][..]);
        let answered = (0..300).any(|_| {
            self.send(ping([10, 0, 2, 2].into(), 0x7777));
            let patience = std::time::Duration::from_millis(200);
            self.device.try_expect(&*self.backend, patience, &mut answers).is_some()
        });
        assert!(answered);
    }
}

pub fn ethernet(kind: [u8; 2], body: &[u8]) -> Vec<u8> {
    [&GATEWAY_MAC[..], &MAC, &kind, body].concat()
}

/// Where an IPv4 packet goes, and which part of one it is.
#[derive(Clone, Copy)]
pub struct Ip {
    pub to: Ipv4Addr,
    pub protocol: u8,
    /// The field with flags and offset.
    pub fragment: u16,
    pub ttl: u8,
}

pub fn ip(to: Ipv4Addr, protocol: u8) -> Ip {
    Ip { to, protocol, fragment: 0, ttl: 64 }
}

pub fn ipv4(head: Ip, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend(((20 + body.len()) as u16).to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(head.fragment.to_be_bytes());
    packet.extend([head.ttl, head.protocol, 0, 0]);
    packet.extend(ADDRESS.octets());
    packet.extend(head.to.octets());
    complete(&mut packet, 0, 10);
    packet.extend(body);
    ethernet([8, 0], &packet)
}

pub fn udp_body(from: u16, to: SocketAddrV4, data: &[u8]) -> Vec<u8> {
    let mut body = [from.to_be_bytes(), to.port().to_be_bytes()].concat();
    body.extend(((8 + data.len()) as u16).to_be_bytes());
    body.extend([0, 0]);
    body.extend(data);
    body
}

pub fn udp(from: u16, to: SocketAddrV4, data: &[u8]) -> Vec<u8> {
    ipv4(ip(*to.ip(), 17), &udp_body(from, to, data))
}

pub fn ping(to: Ipv4Addr, ident: u16) -> Vec<u8> {
    let mut body = vec![8, 0, 0, 0];
    body.extend(ident.to_be_bytes());
    body.extend([0, 1, b'p', b'i', b'n', b'g']);
    complete(&mut body, 0, 2);
    ipv4(ip(to, 1), &body)
}

/// A TCP header.
#[derive(Clone, Copy)]
pub struct Tcp {
    pub from: u16,
    pub to: SocketAddrV4,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
}

/// A segment whose checksum is left to who takes it.
pub fn tcp(head: Tcp, data: &[u8]) -> Vec<u8> {
    let mut body = [head.from.to_be_bytes(), head.to.port().to_be_bytes()].concat();
    body.extend(head.seq.to_be_bytes());
    body.extend(head.ack.to_be_bytes());
    body.extend([5 << 4, head.flags]);
    body.extend(head.window.to_be_bytes());
    body.extend([0; 4]);
    body.extend(data);
    ipv4(ip(*head.to.ip(), 6), &body)
}

/// The source of a frame's IPv4 packet, its protocol and its body.
pub fn parse(frame: &[u8]) -> Option<(IpAddr, u8, &[u8])> {
    let ip = frame.get(14..)?;
    if frame.get(12..14)? != [8, 0] {
        return None;
    }
    let source: [u8; 4] = ip.get(12..16)?.try_into().ok()?;
    Some((source.into(), *ip.get(9)?, ip.get(20..)?))
}
