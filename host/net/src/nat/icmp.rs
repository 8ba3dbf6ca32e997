//! ICMP errors to the guest, and echoes of the gateway's own (RFC 792, RFC 4443).

use std::net::IpAddr;

use super::emit::{self, Fragment, ICMP, ICMP6, Payload, Route};
use super::packet::Packet;
use super::plan::{GATEWAY, GATEWAY6};
use crate::frame::ETHERNET;

/// Why a packet was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// There is no way there.
    Host,
    /// Nobody listens there.
    Port,
    /// The host doesn't let us.
    Prohibited,
}

/// Type and code of an echo request.
pub(crate) fn echo_request(version: IpAddr) -> [u8; 2] {
    match version {
        IpAddr::V4(_) => [8, 0],
        IpAddr::V6(_) => [128, 0],
    }
}

/// Type and code of an echo reply.
pub(crate) fn echo_reply(version: IpAddr) -> [u8; 2] {
    match version {
        IpAddr::V4(_) => [0, 0],
        IpAddr::V6(_) => [129, 0],
    }
}

/// The error that answers a packet.
pub(crate) fn unreachable(packet: &Packet<'_>, why: Unreachable) -> Vec<u8> {
    error(packet.back(), codes(packet.to, why), packet.quote)
}

/// The error for a packet that is long gone: `route` is the way to its sender, `head` the first
/// bytes behind its IP header.
pub(crate) fn unreachable_later(
    route: Route,
    protocol: u8,
    head: &[u8],
    why: Unreachable,
) -> Vec<u8> {
    let back = Route { mac: route.mac, from: route.to, to: route.from };
    let mut quoted = Vec::with_capacity(ETHERNET + 40 + head.len());
    let payload = Payload { protocol, len: head.len(), fragment: Fragment::Whole };
    emit::headers(&mut quoted, back, payload);
    quoted.extend_from_slice(head);
    error(route, codes(route.from, why), quoted.get(ETHERNET..).unwrap_or_default())
}

/// The packet has made its last hop.
pub(crate) fn time_exceeded(packet: &Packet<'_>) -> Vec<u8> {
    let codes = match packet.to {
        IpAddr::V4(_) => [11, 0],
        IpAddr::V6(_) => [3, 0],
    };
    error(packet.back(), codes, packet.quote)
}

/// Type and code.
fn codes(version: IpAddr, why: Unreachable) -> [u8; 2] {
    match (version, why) {
        (IpAddr::V4(_), Unreachable::Host) => [3, 1],
        (IpAddr::V4(_), Unreachable::Port) => [3, 3],
        (IpAddr::V4(_), Unreachable::Prohibited) => [3, 13],
        (IpAddr::V6(_), Unreachable::Host) => [1, 0],
        (IpAddr::V6(_), Unreachable::Prohibited) => [1, 1],
        (IpAddr::V6(_), Unreachable::Port) => [1, 4],
    }
}

fn error(route: Route, codes: [u8; 2], quote: &[u8]) -> Vec<u8> {
    let from = match route.to {
        IpAddr::V4(_) => GATEWAY.into(),
        IpAddr::V6(_) => GATEWAY6.into(),
    };
    let mut body = vec![0; 4];
    body.extend_from_slice(quote);
    message(Route { from, ..route }, codes, &body)
}

/// A message in a frame: type and code, and what follows the checksum.
pub(crate) fn message(route: Route, [kind, code]: [u8; 2], body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(4 + body.len());
    message.extend_from_slice(&[kind, code, 0, 0]);
    message.extend_from_slice(body);
    emit::fill_icmp(&mut message, route);
    emit::packet(route, protocol(route.to), &message)
}

/// The protocol number of ICMP.
pub(crate) fn protocol(version: IpAddr) -> u8 {
    match version {
        IpAddr::V4(_) => ICMP,
        IpAddr::V6(_) => ICMP6,
    }
}
