//! Packets from the guest, taken apart.

use std::net::{IpAddr, SocketAddr};

use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet, UdpPacket};

use super::emit::Route;
use crate::frame::Mac;

/// An IP packet of the guest's, whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    /// Who sent the frame.
    pub(crate) mac: Mac,
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) protocol: u8,
    /// How far it may still go.
    pub(crate) hop_limit: u8,
    /// What follows the IP headers.
    pub(crate) body: &'a [u8],
    /// The guest has left the checksum of the transport's header to us, or says that it is right.
    pub(crate) sums: Sums,
    /// The IP header and the first bytes behind it, to be quoted in an error.
    pub(crate) quote: &'a [u8],
}

/// Whether checksums are to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sums {
    /// They are in the packet.
    Present,
    /// They are left to who takes the packet (checksum offload).
    Left,
}

/// What a frame's IPv4 packet is.
pub(crate) enum Ipv4<'a> {
    /// A whole one.
    Whole(Packet<'a>),
    /// A part of one.
    Part(Packet<'a>, Part),
}

/// Which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) ident: u16,
    /// Bytes before it.
    pub(crate) offset: u16,
    /// Others follow.
    pub(crate) more: bool,
}

/// How much of a packet is quoted in an error: its headers and 8 bytes at least (RFC 792), no more
/// than fits the least MTU (RFC 4443 §2.4).
const QUOTE_MAX: usize = 548;

impl<'a> Packet<'a> {
    /// Reads an IPv4 packet. Packets with wrong checksums or lengths are no packets.
    pub(crate) fn ipv4(mac: Mac, bytes: &'a [u8], sums: Sums) -> Option<Ipv4<'a>> {
        let ip = Ipv4Packet::new_checked(bytes).ok()?;
        if ip.version() != 4 || ip.header_len() < 20 || !ip.verify_checksum() {
            return None;
        }
        let packet = Self {
            mac,
            from: ip.src_addr().into(),
            to: ip.dst_addr().into(),
            protocol: ip.next_header().into(),
            hop_limit: ip.hop_limit(),
            body: ip.payload(),
            sums,
            quote: bytes.get(..bytes.len().min(QUOTE_MAX))?,
        };
        let part = Part { ident: ip.ident(), offset: ip.frag_offset(), more: ip.more_frags() };
        let whole = part.offset == 0 && !part.more;
        Some(if whole { Ipv4::Whole(packet) } else { Ipv4::Part(packet, part) })
    }

    /// Reads an IPv6 packet. Of extension headers only hop-by-hop and destination options are
    /// stepped over; a fragment or any other is no packet for us.
    pub(crate) fn ipv6(mac: Mac, bytes: &'a [u8], sums: Sums) -> Option<Self> {
        let ip = Ipv6Packet::new_checked(bytes).ok()?;
        if ip.version() != 6 {
            return None;
        }
        let mut protocol = ip.next_header();
        let mut body = ip.payload();
        while matches!(protocol, IpProtocol::HopByHop | IpProtocol::Ipv6Opts) {
            let len = usize::from(*body.get(1)?) * 8 + 8;
            protocol = IpProtocol::from(*body.first()?);
            body = body.get(len..)?;
        }
        Some(Self {
            mac,
            from: ip.src_addr().into(),
            to: ip.dst_addr().into(),
            protocol: protocol.into(),
            hop_limit: ip.hop_limit(),
            body,
            sums,
            quote: bytes.get(..bytes.len().min(QUOTE_MAX))?,
        })
    }

    /// The way back to the sender.
    pub(crate) fn back(&self) -> Route {
        Route { mac: self.mac, from: self.to, to: self.from }
    }
}

/// A UDP datagram of the guest's.
pub(crate) struct Datagram<'a> {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) data: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Reads the datagram of a packet.
    pub(crate) fn of(packet: &Packet<'a>) -> Option<Self> {
        let udp = UdpPacket::new_checked(packet.body).ok()?;
        let sums = packet.sums == Sums::Left
            || udp.verify_checksum(&packet.from.into(), &packet.to.into());
        if !sums || udp.src_port() == 0 || udp.dst_port() == 0 {
            return None;
        }
        Some(Self {
            from: SocketAddr::new(packet.from, udp.src_port()),
            to: SocketAddr::new(packet.to, udp.dst_port()),
            data: udp.payload(),
        })
    }
}
