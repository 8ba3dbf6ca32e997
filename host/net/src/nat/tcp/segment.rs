//! TCP segments: the guest's, read; ours, written.

use std::net::SocketAddr;

use smoltcp::wire::TcpPacket;

use super::super::packet::{Packet, Sums};
use super::seq::Seq;

/// Flags of the header (RFC 9293 §3.1).
pub(crate) mod flags {
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const SYN: u8 = 0x02;
    pub(crate) const RST: u8 = 0x04;
    pub(crate) const PSH: u8 = 0x08;
    pub(crate) const ACK: u8 = 0x10;
}

/// A segment of the guest's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    pub(crate) guest: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) seq: Seq,
    pub(crate) ack: Seq,
    pub(crate) flags: u8,
    /// As in the header: to be scaled.
    pub(crate) window: u16,
    pub(crate) options: Options,
    pub(crate) payload: &'a [u8],
}

/// The options of a SYN.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    pub(crate) mss: Option<u16>,
    pub(crate) window_scale: Option<u8>,
}

impl<'a> Segment<'a> {
    /// Reads the segment of a packet.
    pub(crate) fn of(packet: &Packet<'a>) -> Option<Self> {
        let tcp = TcpPacket::new_checked(packet.body).ok()?;
        let sums = packet.sums == Sums::Left
            || tcp.verify_checksum(&packet.from.into(), &packet.to.into());
        if !sums || tcp.src_port() == 0 || tcp.dst_port() == 0 {
            return None;
        }
        let mut segment = Self {
            guest: SocketAddr::new(packet.from, tcp.src_port()),
            remote: SocketAddr::new(packet.to, tcp.dst_port()),
            seq: Seq(tcp.seq_number().0 as u32),
            ack: Seq(tcp.ack_number().0 as u32),
            flags: *packet.body.get(13)?,
            window: tcp.window_len(),
            options: Options::default(),
            payload: tcp.payload(),
        };
        if segment.has(flags::SYN) {
            // Options that make no sense count as none.
            let summary = tcp.options_summary().unwrap_or_default();
            segment.options = Options {
                mss: summary.max_segment_size,
                window_scale: summary.window_scale.map(|scale| scale.min(14)),
            };
        }
        Some(segment)
    }

    /// Whether a flag is set.
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// How much of the sequence space it takes.
    pub(crate) fn len(&self) -> usize {
        self.payload.len() + usize::from(self.has(flags::SYN)) + usize::from(self.has(flags::FIN))
    }
}

/// A header of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) ports: (u16, u16),
    pub(crate) seq: Seq,
    pub(crate) ack: Seq,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) options: Options,
}

impl Header {
    /// Bytes of it.
    pub(crate) fn len(&self) -> usize {
        20 + self.options.mss.map_or(0, |_| 4) + self.options.window_scale.map_or(0, |_| 4)
    }

    /// Writes it with this in the checksum's place.
    pub(crate) fn write(&self, out: &mut Vec<u8>, checksum: [u8; 2]) {
        out.extend_from_slice(&self.ports.0.to_be_bytes());
        out.extend_from_slice(&self.ports.1.to_be_bytes());
        out.extend_from_slice(&self.seq.0.to_be_bytes());
        out.extend_from_slice(&self.ack.0.to_be_bytes());
        out.extend_from_slice(&[(self.len() as u8 / 4) << 4, self.flags]);
        out.extend_from_slice(&self.window.to_be_bytes());
        out.extend_from_slice(&checksum);
        out.extend_from_slice(&[0, 0]);
        if let Some(mss) = self.options.mss {
            out.extend_from_slice(&[2, 4]);
            out.extend_from_slice(&mss.to_be_bytes());
        }
        if let Some(scale) = self.options.window_scale {
            out.extend_from_slice(&[1, 3, 3, scale]);
        }
    }
}
