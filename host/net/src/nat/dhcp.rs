//! DHCP (RFC 2131): the first guest is 10.0.2.15, others on the same link get what follows.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use smoltcp::wire::{DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress};

use super::emit::{self, Route};
use super::packet::Datagram;
use super::plan::{BROADCAST_MAC, DNS, GATEWAY, GUEST, MASK};
use crate::frame::{Mac, layout};

/// The server's port.
pub(super) const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;

/// Seconds that an address is lent for.
const LEASE: u32 = 86_400;

/// The option that tells the MTU (RFC 2132 §5.1).
const MTU_OPTION: u8 = 26;

/// Addresses that are lent at most: from .15 on.
const LEASES_MAX: u8 = 200;

/// Which Ethernet address has which IP address.
#[derive(Debug, Default)]
pub(super) struct Leases(HashMap<Mac, Ipv4Addr>);

impl Leases {
    fn of(&mut self, mac: Mac) -> Option<Ipv4Addr> {
        let taken = u8::try_from(self.0.len()).ok()?;
        if let Some(address) = self.0.get(&mac) {
            return Some(*address);
        }
        if taken >= LEASES_MAX {
            return None;
        }
        let [a, b, c, first] = GUEST.octets();
        let address = Ipv4Addr::new(a, b, c, first.checked_add(taken)?);
        self.0.insert(mac, address);
        Some(address)
    }

    /// Answers a client. `mtu` is told if it is not Ethernet's usual.
    pub(super) fn input(&mut self, datagram: &Datagram<'_>, mtu: u16) -> Option<Vec<u8>> {
        let packet = DhcpPacket::new_checked(datagram.data).ok()?;
        let request = DhcpRepr::parse(&packet).ok()?;
        let mac = request.client_hardware_address.0;
        let ours = request.server_identifier.is_none_or(|server| server == GATEWAY);
        if !ours || !EthernetAddress(mac).is_unicast() {
            return None;
        }
        let lease = self.of(mac)?;
        let kind = match request.message_type {
            DhcpMessageType::Discover => DhcpMessageType::Offer,
            DhcpMessageType::Request => {
                let wanted = request.requested_ip.unwrap_or(request.client_ip);
                if wanted == lease { DhcpMessageType::Ack } else { DhcpMessageType::Nak }
            }
            DhcpMessageType::Inform => DhcpMessageType::Ack,
            _ => return None,
        };
        let inform = request.message_type == DhcpMessageType::Inform;
        reply(&request, kind, (!inform).then_some(lease), mtu)
    }
}

fn reply(
    request: &DhcpRepr<'_>,
    kind: DhcpMessageType,
    lease: Option<Ipv4Addr>,
    mtu: u16,
) -> Option<Vec<u8>> {
    let refused = kind == DhcpMessageType::Nak;
    let mtu_bytes = mtu.to_be_bytes();
    let mtu_option = [DhcpOption { kind: MTU_OPTION, data: &mtu_bytes }];
    let servers = std::iter::once(DNS).collect();
    let repr = DhcpRepr {
        message_type: kind,
        transaction_id: request.transaction_id,
        secs: 0,
        client_hardware_address: request.client_hardware_address,
        client_ip: if refused { Ipv4Addr::UNSPECIFIED } else { request.client_ip },
        your_ip: lease.filter(|_| !refused).unwrap_or(Ipv4Addr::UNSPECIFIED),
        server_ip: GATEWAY,
        router: (!refused).then_some(GATEWAY),
        subnet_mask: (!refused).then_some(MASK),
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: request.broadcast,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(GATEWAY),
        parameter_request_list: None,
        dns_servers: (!refused).then_some(servers),
        max_size: None,
        lease_duration: lease.filter(|_| !refused).map(|_| LEASE),
        renew_duration: None,
        rebind_duration: None,
        additional_options: if mtu == 1500 || refused { &[] } else { &mtu_option },
    };
    let mut body = vec![0; repr.buffer_len()];
    repr.emit(&mut DhcpPacket::new_unchecked(&mut body)).ok()?;
    // A client that has its address is answered there; any other takes a broadcast.
    let known = !request.client_ip.is_unspecified() && !refused;
    let route = Route {
        mac: if known { request.client_hardware_address.0 } else { BROADCAST_MAC },
        from: GATEWAY.into(),
        to: if known { request.client_ip } else { Ipv4Addr::BROADCAST }.into(),
    };
    let mut datagram = Vec::with_capacity(8 + body.len());
    emit::udp(&mut datagram, route, (SERVER_PORT, CLIENT_PORT), &body);
    Some(emit::packet(route, layout::UDP, &datagram))
}
