//! The addresses of the NAT's network, and what of the host stands behind each.
//!
//! The plan is that of QEMU's user network, so that what people know of it holds here: the guest
//! is 10.0.2.15, the gateway 10.0.2.2, the name server 10.0.2.3; in IPv6 the prefix is fec0::/64,
//! the gateway fec0::2, the name server fec0::3. As there, the gateway's address leads to the
//! host's loopback: a server on the host's 127.0.0.1:8000 is 10.0.2.2:8000 for the guest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::frame::Mac;

/// The gateway's Ethernet address (a local one; QEMU's has the same form).
pub(crate) const GATEWAY_MAC: Mac = [0x52, 0x55, 10, 0, 2, 2];
/// All stations.
pub(crate) const BROADCAST_MAC: Mac = [0xFF; 6];
/// The gateway; the host's loopback is behind it.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The name server.
pub(crate) const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// The first guest.
pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The network's mask.
pub(crate) const MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
/// The gateway in IPv6; the host's `::1` is behind it.
pub(crate) const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xFEC0, 0, 0, 0, 0, 0, 0, 2);
/// The name server in IPv6.
pub(crate) const DNS6: Ipv6Addr = Ipv6Addr::new(0xFEC0, 0, 0, 0, 0, 0, 0, 3);
/// The router's link-local address.
pub(crate) const ROUTER6: Ipv6Addr = Ipv6Addr::new(0xFE80, 0, 0, 0, 0, 0, 0, 2);
/// The network's prefix in IPv6, of 64 bits.
pub(crate) const PREFIX6: Ipv6Addr = Ipv6Addr::new(0xFEC0, 0, 0, 0, 0, 0, 0, 0);

/// The port of name servers.
pub(crate) const DNS_PORT: u16 = 53;

/// What of the host a guest may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// All that the host reaches, and its loopback through the gateway.
    #[default]
    All,
    /// Only these ports of the host's loopback, through the gateway; no name server.
    HostPorts(Vec<u16>),
}

/// What stands behind an address and port that the guest asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// This of the host's world.
    Host(SocketAddr),
    /// The host's resolver.
    Resolver,
    /// Nothing: the guest is told so.
    Nowhere,
    /// Not for us, or for nobody: no answer.
    Ignored,
}

/// Whether the gateway answers for this address itself.
pub(crate) fn is_ours(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address == GATEWAY || address == DNS,
        IpAddr::V6(address) => [GATEWAY6, DNS6, ROUTER6].contains(&address),
    }
}

/// Whether an address lies in the guest's own network.
pub(crate) fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address & MASK == GUEST & MASK,
        IpAddr::V6(address) => {
            address.segments().first_chunk::<4>() == PREFIX6.segments().first_chunk::<4>()
                || address.is_unicast_link_local()
        }
    }
}

/// What stands behind `address`.
pub(crate) fn target(reach: &Reach, address: SocketAddr) -> Target {
    let (ip, port) = (address.ip(), address.port());
    let nobody = ip.is_multicast()
        || ip.is_unspecified()
        || matches!(ip, IpAddr::V4(ip) if ip.is_broadcast() || is_directed_broadcast(ip));
    if nobody {
        return Target::Ignored;
    }
    let loopback = match ip {
        IpAddr::V4(ip) if ip == GATEWAY => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        IpAddr::V6(ip) if ip == GATEWAY6 => Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    };
    match (reach, loopback) {
        (Reach::HostPorts(ports), Some(host)) if ports.contains(&port) => {
            Target::Host(SocketAddr::new(host, port))
        }
        (Reach::HostPorts(_), Some(_) | None) => Target::Nowhere,
        (Reach::All, Some(host)) => Target::Host(SocketAddr::new(host, port)),
        (Reach::All, None) if is_ours(ip) && port == DNS_PORT => Target::Resolver,
        // A loopback address on a network is nobody's (RFC 1122 §3.2.1.3): the host's own would
        // take it for its.
        (Reach::All, None) if is_local(ip) || is_loopback(ip) => Target::Nowhere,
        (Reach::All, None) => Target::Host(SocketAddr::new(ip, port)),
    }
}

fn is_directed_broadcast(address: Ipv4Addr) -> bool {
    address == (GUEST & MASK) | !MASK
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback() || address.to_canonical().is_unspecified()
}

/// How the guest sees an address of the host's world.
pub(crate) fn shown(address: IpAddr, guest: IpAddr) -> IpAddr {
    let address = address.to_canonical();
    match (guest, address) {
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_))
            if !address.is_loopback() && !is_local(address) =>
        {
            address
        }
        (IpAddr::V4(_), _) => GATEWAY.into(),
        (IpAddr::V6(_), _) => GATEWAY6.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Target {
        target(&Reach::All, text.parse().unwrap())
    }

    fn host(text: &str) -> Target {
        Target::Host(text.parse().unwrap())
    }

    #[test]
    fn the_gateway_leads_to_the_hosts_loopback() {
        assert_eq!(of("10.0.2.2:8000"), host("127.0.0.1:8000"));
        assert_eq!(of("[fec0::2]:8000"), host("[::1]:8000"));
    }

    #[test]
    fn the_name_server_is_the_hosts_resolver() {
        assert_eq!(of("10.0.2.3:53"), Target::Resolver);
        assert_eq!(of("[fec0::3]:53"), Target::Resolver);
        assert_eq!(of("10.0.2.3:80"), Target::Nowhere);
    }

    #[test]
    fn the_hosts_own_loopback_is_not_reached_by_its_name() {
        for text in ["127.0.0.1:80", "[::1]:80", "[::ffff:127.0.0.1]:80", "10.0.2.99:80"] {
            assert_eq!(of(text), Target::Nowhere);
        }
    }

    #[test]
    fn nobody_is_nobody() {
        for text in ["0.0.0.0:1", "255.255.255.255:67", "10.0.2.255:138", "224.0.0.251:5353"] {
            assert_eq!(of(text), Target::Ignored);
        }
    }

    #[test]
    fn a_restricted_guest_reaches_the_named_ports_only() {
        let reach = Reach::HostPorts(vec![8000]);
        assert_eq!(target(&reach, "10.0.2.2:8000".parse().unwrap()), host("127.0.0.1:8000"));
        for text in ["10.0.2.2:22", "192.0.2.1:8000", "10.0.2.3:53"] {
            assert_eq!(target(&reach, text.parse().unwrap()), Target::Nowhere);
        }
    }
}
