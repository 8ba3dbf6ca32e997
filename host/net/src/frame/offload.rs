//! [`FrameOffload`] as bytes: `struct virtio_net_hdr` (virtio 1.2 §5.1.6), which the kernel's TAP
//! speaks too, and the members of a LAN among themselves. Little-endian.

use kasane_ports::{FrameOffload, PartialChecksum, Segmentation, SegmentationKind};

/// Bytes of the header without `num_buffers`.
pub(crate) const HEADER: usize = 10;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// Writes the header.
pub(crate) fn encode(offload: &FrameOffload) -> [u8; HEADER] {
    let flags = match (offload.checksum, offload.checked) {
        (Some(_), _) => NEEDS_CSUM,
        (None, true) => DATA_VALID,
        (None, false) => 0,
    };
    let (gso, header_len, size) = offload.segmentation.map_or((0, 0, 0), |segmentation| {
        let kind = match segmentation.kind {
            SegmentationKind::Tcp4 => GSO_TCPV4,
            SegmentationKind::Tcp6 => GSO_TCPV6,
            SegmentationKind::Udp => GSO_UDP_L4,
        };
        let ecn = if segmentation.ecn { GSO_ECN } else { 0 };
        (kind | ecn, segmentation.header_len, segmentation.size)
    });
    let (start, offset) = offload.checksum.map_or((0, 0), |sum| (sum.start, sum.offset));
    let [h0, h1] = header_len.to_le_bytes();
    let [z0, z1] = size.to_le_bytes();
    let [s0, s1] = start.to_le_bytes();
    let [o0, o1] = offset.to_le_bytes();
    [flags, gso, h0, h1, z0, z1, s0, s1, o0, o1]
}

/// Reads the header; `None` if it says what no frame can be.
pub(crate) fn decode(header: &[u8; HEADER]) -> Option<FrameOffload> {
    let [flags, gso, h0, h1, z0, z1, s0, s1, o0, o1] = *header;
    let checksum = (flags & NEEDS_CSUM != 0).then(|| PartialChecksum {
        start: u16::from_le_bytes([s0, s1]),
        offset: u16::from_le_bytes([o0, o1]),
    });
    let kind = match gso & !GSO_ECN {
        0 => None,
        GSO_TCPV4 => Some(SegmentationKind::Tcp4),
        GSO_TCPV6 => Some(SegmentationKind::Tcp6),
        GSO_UDP_L4 => Some(SegmentationKind::Udp),
        _ => return None,
    };
    let segmentation = kind.map(|kind| Segmentation {
        kind,
        size: u16::from_le_bytes([z0, z1]),
        header_len: u16::from_le_bytes([h0, h1]),
        ecn: gso & GSO_ECN != 0,
    });
    if segmentation.is_some_and(|cut| cut.size == 0 || checksum.is_none()) {
        return None;
    }
    Some(FrameOffload { checksum, checked: flags & DATA_VALID != 0, segmentation })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(header: [u8; HEADER]) {
            if let Some(offload) = decode(&header) {
                let again = decode(&encode(&offload)).unwrap();
                prop_assert_eq!(again.checksum, offload.checksum);
                prop_assert_eq!(again.segmentation, offload.segmentation);
            }
        }
    }
}
