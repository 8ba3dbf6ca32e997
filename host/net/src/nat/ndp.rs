//! Neighbour discovery (RFC 4861): the gateway as IPv6 router. It tells the prefix, so that a guest
//! gives itself an address, and the name server (RFC 8106).

use std::net::{IpAddr, Ipv6Addr};

use super::emit::Route;
use super::icmp;
use super::packet::Packet;
use super::plan::{self, DNS6, GATEWAY_MAC, PREFIX6, ROUTER6};

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// Seconds between advertisements that nobody asked for, and how long one holds.
pub(super) const ADVERTISE_EVERY: u64 = 200;
const LIFETIME: u32 = 1800;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 0, 1);

/// Answers a message of the guest's; `None` if it needs none, or is something else.
pub(super) fn input(packet: &Packet<'_>, mtu: u16) -> Option<Vec<u8>> {
    // One that has come through a router is a forgery (RFC 4861 §6.1, §7.1).
    if packet.hop_limit != 255 {
        return None;
    }
    match *packet.body.first()? {
        ROUTER_SOLICITATION => Some(advertisement(packet.mac, mtu)),
        NEIGHBOUR_SOLICITATION => neighbour(packet),
        _ => None,
    }
}

/// Tells the guest of prefix, MTU and name server.
pub(super) fn advertisement(mac: crate::frame::Mac, mtu: u16) -> Vec<u8> {
    // Hop limit 64, no flags: addresses are not given by DHCPv6.
    let mut body = vec![64, 0];
    body.extend_from_slice(&(LIFETIME as u16).to_be_bytes());
    body.extend_from_slice(&[0; 8]);
    body.extend_from_slice(&[1, 1]);
    body.extend_from_slice(&GATEWAY_MAC);
    body.extend_from_slice(&[5, 1, 0, 0]);
    body.extend_from_slice(&u32::from(mtu).to_be_bytes());
    // On-link, and for addresses of one's own making.
    body.extend_from_slice(&[3, 4, 64, 0xC0]);
    body.extend_from_slice(&86_400_u32.to_be_bytes());
    body.extend_from_slice(&14_400_u32.to_be_bytes());
    body.extend_from_slice(&[0; 4]);
    body.extend_from_slice(&PREFIX6.octets());
    body.extend_from_slice(&[25, 3, 0, 0]);
    body.extend_from_slice(&LIFETIME.to_be_bytes());
    body.extend_from_slice(&DNS6.octets());
    let route = Route { mac, from: ROUTER6.into(), to: ALL_NODES.into() };
    icmp::message(route, [ROUTER_ADVERTISEMENT, 0], &body)
}

fn neighbour(packet: &Packet<'_>) -> Option<Vec<u8>> {
    let target = Ipv6Addr::from(*packet.body.get(8..)?.first_chunk::<16>()?);
    if !plan::is_ours(target.into()) {
        return None;
    }
    // Router, override; solicited, but for one that has no address yet and asks whether ours is
    // free (RFC 4861 §7.2.4).
    let (to, flags) = match packet.from {
        IpAddr::V6(from) if !from.is_unspecified() => (from, 0xE0),
        IpAddr::V4(_) | IpAddr::V6(_) => (ALL_NODES, 0xA0),
    };
    let mut body = vec![flags, 0, 0, 0];
    body.extend_from_slice(&target.octets());
    body.extend_from_slice(&[2, 1]);
    body.extend_from_slice(&GATEWAY_MAC);
    let route = Route { mac: packet.mac, from: target.into(), to: to.into() };
    Some(icmp::message(route, [NEIGHBOUR_ADVERTISEMENT, 0], &body))
}
