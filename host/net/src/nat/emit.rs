//! Frames to the guest: headers are made here, in one buffer that is used again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::plan::GATEWAY_MAC;
use crate::frame::checksum::Sum;
use crate::frame::{ETHERNET, Mac, layout};

/// Protocol number of ICMP.
pub(crate) const ICMP: u8 = 1;
/// Protocol number of ICMPv6.
pub(crate) const ICMP6: u8 = 58;
/// Next header of an IPv6 fragment.
const FRAGMENT6: u8 = 44;

/// How far our packets go. Neighbour discovery demands 255 (RFC 4861 §6.1).
const HOP_LIMIT: u8 = 64;
const HOP_LIMIT_LOCAL: u8 = 255;

/// From whom to whom a packet goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    /// The guest's Ethernet address.
    pub(crate) mac: Mac,
    /// The sender, as the guest sees it.
    pub(crate) from: IpAddr,
    /// The guest.
    pub(crate) to: IpAddr,
}

/// Bytes of an IP header to this address.
pub(crate) fn ip_header_len(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    }
}

/// What an IP header says of its payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payload {
    pub(crate) protocol: u8,
    pub(crate) len: usize,
    pub(crate) fragment: Fragment,
}

/// Which part of a packet it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fragment {
    /// All of it, and it must not be cut.
    Whole,
    /// A part, of the packet with this identification.
    Part { ident: u16, offset: u16, more: bool },
}

/// Writes the Ethernet and IP headers of a packet.
pub(crate) fn headers(out: &mut Vec<u8>, route: Route, payload: Payload) {
    out.extend_from_slice(&route.mac);
    out.extend_from_slice(&GATEWAY_MAC);
    match (route.from, route.to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.extend_from_slice(&layout::IPV4);
            ipv4(out, from, to, payload);
        }
        (from, to) => {
            out.extend_from_slice(&layout::IPV6);
            ipv6(out, v6(from), v6(to), payload);
        }
    }
}

/// A route has two addresses of one version; a mixed one could only come of a mistake here.
fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn ipv4(out: &mut Vec<u8>, from: Ipv4Addr, to: Ipv4Addr, payload: Payload) {
    let [l0, l1] = (20 + payload.len as u16).to_be_bytes();
    // A packet that is not cut needs no identification (RFC 6864 §4.1).
    let ([i0, i1], [f0, f1]) = match payload.fragment {
        Fragment::Whole => ([0, 0], [0x40, 0]),
        Fragment::Part { ident, offset, more } => {
            let more = if more { 0x2000 } else { 0 };
            (ident.to_be_bytes(), ((offset / 8) | more).to_be_bytes())
        }
    };
    let mut header = [
        0x45,
        0,
        l0,
        l1,
        i0,
        i1,
        f0,
        f1,
        HOP_LIMIT,
        payload.protocol,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    if let Some((_, addresses)) = header.split_last_chunk_mut::<8>() {
        let (source, destination) = addresses.split_at_mut(4);
        source.copy_from_slice(&from.octets());
        destination.copy_from_slice(&to.octets());
    }
    let mut sum = Sum::default();
    sum.add(&header);
    if let Some(field) = header.get_mut(10..12) {
        field.copy_from_slice(&sum.checksum());
    }
    out.extend_from_slice(&header);
}

fn ipv6(out: &mut Vec<u8>, from: Ipv6Addr, to: Ipv6Addr, payload: Payload) {
    let (extra, next) = match payload.fragment {
        Fragment::Whole => (0, payload.protocol),
        Fragment::Part { .. } => (8, FRAGMENT6),
    };
    let hop_limit = if payload.protocol == ICMP6 { HOP_LIMIT_LOCAL } else { HOP_LIMIT };
    out.extend_from_slice(&[0x60, 0, 0, 0]);
    out.extend_from_slice(&(payload.len as u16 + extra).to_be_bytes());
    out.extend_from_slice(&[next, hop_limit]);
    out.extend_from_slice(&from.octets());
    out.extend_from_slice(&to.octets());
    if let Fragment::Part { ident, offset, more } = payload.fragment {
        out.extend_from_slice(&[payload.protocol, 0]);
        out.extend_from_slice(&((offset & !7) | u16::from(more)).to_be_bytes());
        out.extend_from_slice(&u32::from(ident).to_be_bytes());
    }
}

/// A whole packet in a frame of its own. `body` has its checksum.
pub(crate) fn packet(route: Route, protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET + 40 + body.len());
    headers(&mut frame, route, Payload { protocol, len: body.len(), fragment: Fragment::Whole });
    frame.extend_from_slice(body);
    frame
}

/// A UDP datagram with its checksum, without an IP header. `data` is 65,507 bytes at most.
pub(crate) fn udp(out: &mut Vec<u8>, route: Route, ports: (u16, u16), data: &[u8]) {
    let len = 8 + data.len();
    out.extend_from_slice(&ports.0.to_be_bytes());
    out.extend_from_slice(&ports.1.to_be_bytes());
    out.extend_from_slice(&(len as u16).to_be_bytes());
    let mut sum = Sum::pseudo(route.from, route.to, layout::UDP, len);
    sum.add(&ports.0.to_be_bytes());
    sum.add(&ports.1.to_be_bytes());
    sum.add(&(len as u16).to_be_bytes());
    sum.add(data);
    out.extend_from_slice(&sum.udp_checksum());
    out.extend_from_slice(data);
}

/// Sets the checksum of an ICMP message (at bytes 2 and 3, which are 0) for its route.
pub(crate) fn fill_icmp(message: &mut [u8], route: Route) {
    let mut sum = match route.to {
        IpAddr::V4(_) => Sum::default(),
        IpAddr::V6(_) => Sum::pseudo(route.from, route.to, ICMP6, message.len()),
    };
    sum.add(message);
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&sum.checksum());
    }
}

/// The frames of an IP payload: one, or fragments if it is longer than the link takes.
pub(crate) fn fragments(
    route: Route,
    protocol: u8,
    body: &[u8],
    mtu: u16,
    ident: u16,
) -> Vec<Vec<u8>> {
    let header = ip_header_len(route.to);
    if header + body.len() <= usize::from(mtu) {
        return vec![packet(route, protocol, body)];
    }
    // Each part but the last is a multiple of 8 bytes (RFC 791 §3.2, RFC 8200 §4.5).
    let size = usize::from(mtu).saturating_sub(header + 8).max(8) & !7;
    let parts = body.chunks(size).count();
    body.chunks(size)
        .enumerate()
        .map(|(index, part)| {
            let offset = (index * size) as u16;
            let fragment = Fragment::Part { ident, offset, more: index + 1 < parts };
            let mut frame = Vec::with_capacity(ETHERNET + header + 8 + part.len());
            headers(&mut frame, route, Payload { protocol, len: part.len(), fragment });
            frame.extend_from_slice(part);
            frame
        })
        .collect()
}
