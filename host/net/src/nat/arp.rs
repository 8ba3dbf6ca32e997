//! ARP (RFC 826): the gateway answers for its own addresses and asks for the guest's.

use std::net::{IpAddr, Ipv4Addr};

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress};

use super::plan::{self, BROADCAST_MAC, GATEWAY, GATEWAY_MAC};
use crate::frame::Mac;

const ETHER_TYPE: [u8; 2] = [0x08, 0x06];

/// What an ARP packet of the guest's tells.
pub(super) struct Heard {
    /// Who it is.
    pub(super) address: Ipv4Addr,
    pub(super) mac: Mac,
    /// The frame that answers it.
    pub(super) answer: Option<Vec<u8>>,
}

/// Reads an ARP packet.
pub(super) fn input(bytes: &[u8]) -> Option<Heard> {
    let packet = ArpPacket::new_checked(bytes).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(mac),
        source_protocol_addr: address,
        target_protocol_addr: target,
        ..
    } = ArpRepr::parse(&packet).ok()?
    else {
        return None;
    };
    let asked = operation == ArpOperation::Request && plan::is_ours(target.into());
    let answer = asked.then(|| {
        frame(&ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: EthernetAddress(GATEWAY_MAC),
            source_protocol_addr: target,
            target_hardware_addr: EthernetAddress(mac),
            target_protocol_addr: address,
        })
    });
    Some(Heard { address, mac, answer })
}

/// Asks who has an address. IPv6 addresses are only ever those of guests that have sent something.
pub(super) fn request(address: IpAddr) -> Vec<u8> {
    let target = match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => return Vec::new(),
    };
    frame(&ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(GATEWAY_MAC),
        source_protocol_addr: GATEWAY,
        target_hardware_addr: EthernetAddress(BROADCAST_MAC),
        target_protocol_addr: target,
    })
}

fn frame(repr: &ArpRepr) -> Vec<u8> {
    let ArpRepr::EthernetIpv4 { target_hardware_addr, .. } = repr else { return Vec::new() };
    let mut frame = target_hardware_addr.0.to_vec();
    frame.extend_from_slice(&GATEWAY_MAC);
    frame.extend_from_slice(&ETHER_TYPE);
    let mut body = vec![0; repr.buffer_len()];
    repr.emit(&mut ArpPacket::new_unchecked(&mut body));
    frame.extend_from_slice(&body);
    frame
}
