//! Where the headers of a TCP frame are.

use super::ETHERNET;
use super::layout::TCP;

/// The version of a frame's IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The headers of a TCP frame, from the frame's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpLayout {
    pub(crate) version: IpVersion,
    /// Where the TCP header begins.
    pub(crate) tcp: usize,
    /// Where the payload begins.
    pub(crate) payload: usize,
    /// Where the packet ends: padding may follow.
    pub(crate) end: usize,
}

impl TcpLayout {
    /// Finds the headers of a TCP segment in a frame that came from anyone; `None` if it is
    /// something else, a fragment, or not whole. IPv6's extension headers are not followed.
    pub(crate) fn of(frame: &[u8]) -> Option<Self> {
        let ip = frame.get(ETHERNET..)?;
        let (version, header, len, protocol) = match *frame.get(12..ETHERNET)? {
            [0x08, 0x00] => {
                let header = usize::from(*ip.first()? & 0xF) * 4;
                let fragment = u16::from_be_bytes([*ip.get(6)?, *ip.get(7)?]) & 0x3FFF;
                if *ip.first()? >> 4 != 4 || header < 20 || fragment != 0 {
                    return None;
                }
                let len = usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]));
                (IpVersion::V4, header, len, *ip.get(9)?)
            }
            [0x86, 0xDD] => {
                let len = usize::from(u16::from_be_bytes([*ip.get(4)?, *ip.get(5)?]));
                (IpVersion::V6, 40, 40 + len, *ip.get(6)?)
            }
            _ => return None,
        };
        let segment = ip.get(header..len)?;
        let offset = usize::from(*segment.get(12)? >> 4) * 4;
        if protocol != TCP || offset < 20 || segment.len() < offset {
            return None;
        }
        let tcp = ETHERNET + header;
        Some(Self { version, tcp, payload: tcp + offset, end: ETHERNET + len })
    }
}
