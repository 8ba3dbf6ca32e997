//! A frame's header: what is still to be done to it (virtio 1.2 §5.1.6).

use kasane_ports::{FrameOffload, PartialChecksum, Segmentation, SegmentationKind};
use kasane_spec_virtio::net::{feature, header};

/// EtherTypes.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86DD;
const VLAN_TAGS: [u16; 2] = [0x8100, 0x88A8];
/// Where TCP's checksum is in its header.
const TCP_CHECKSUM: u16 = 16;
/// Where TCP's header length is, in the upper half of the byte.
const TCP_DATA_OFFSET: usize = 12;

/// The fields that come before `num_buffers`.
pub(super) type Bytes = [u8; header::LEGACY_LEN];

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// The EtherType of a frame behind its VLAN tags, of which there may be two.
pub(super) fn ether_type(frame: &[u8]) -> Option<(u16, usize)> {
    let mut at = 12;
    for _ in 0..2 {
        if VLAN_TAGS.contains(&u16_at(frame, at)?) {
            at += 4;
        }
    }
    Some((u16_at(frame, at)?, at + 2))
}

/// The VLAN of a frame that has one.
pub(super) fn vlan(frame: &[u8]) -> Option<u16> {
    VLAN_TAGS.contains(&u16_at(frame, 12)?).then(|| u16_at(frame, 14).map(|tag| tag & 0xFFF))?
}

/// What the header of a frame from a driver with `features` asks for; `None` if the frame makes no
/// sense with it.
pub(super) fn decode(bytes: &Bytes, features: u64, frame: &[u8]) -> Option<FrameOffload> {
    let [flags, gso, _, _, z0, z1, s0, s1, o0, o1] = *bytes;
    let sum = PartialChecksum {
        start: u16::from_le_bytes([s0, s1]),
        offset: u16::from_le_bytes([o0, o1]),
    };
    let checksum = (flags & header::NEEDS_CSUM != 0).then_some(sum);
    if let Some(sum) = checksum {
        let end = usize::from(sum.start) + usize::from(sum.offset) + 2;
        if features & feature::CSUM == 0 || end > frame.len() {
            return None;
        }
    }
    let kind = match gso & !header::GSO_ECN {
        header::GSO_NONE => {
            return Some(FrameOffload { checksum, checked: false, segmentation: None });
        }
        header::GSO_TCPV4 => SegmentationKind::Tcp4,
        header::GSO_TCPV6 => SegmentationKind::Tcp6,
        _ => return None,
    };
    let (needed, wanted_type) = match kind {
        SegmentationKind::Tcp4 => (feature::HOST_TSO4, IPV4),
        SegmentationKind::Tcp6 => (feature::HOST_TSO6, IPV6),
        SegmentationKind::Udp => return None,
    };
    let ecn = gso & header::GSO_ECN != 0;
    let size = u16::from_le_bytes([z0, z1]);
    if features & needed == 0 || (ecn && features & feature::HOST_ECN == 0) || size == 0 {
        return None;
    }
    let header_len = tcp_payload(frame, checksum?, wanted_type)?;
    Some(FrameOffload {
        checksum,
        checked: false,
        segmentation: Some(Segmentation { kind, size, header_len, ecn }),
    })
}

/// Where the payload of a TCP frame begins. The driver's `hdr_len` is a hint that may be wrong
/// (§5.1.6.2.2), so it is found in the frame: TCP's header begins where its checksum does.
fn tcp_payload(frame: &[u8], sum: PartialChecksum, wanted_type: u16) -> Option<u16> {
    let (found, ip) = ether_type(frame)?;
    let tcp = usize::from(sum.start);
    let ip_len = if wanted_type == IPV4 { 20 } else { 40 };
    if found != wanted_type || sum.offset != TCP_CHECKSUM || tcp < ip + ip_len {
        return None;
    }
    let words = usize::from(frame.get(tcp + TCP_DATA_OFFSET)? >> 4);
    let payload = tcp + words * 4;
    (words >= 5 && payload < frame.len()).then(|| u16::try_from(payload).ok())?
}

/// The header of a frame for a driver that takes `offloads` (of the features); `None` if it
/// doesn't take this one.
pub(super) fn encode(offload: &FrameOffload, offloads: u64) -> Option<Bytes> {
    let mut flags = 0;
    let (mut start, mut offset) = (0, 0);
    if let Some(sum) = offload.checksum {
        if offloads & feature::GUEST_CSUM == 0 {
            return None;
        }
        flags = header::NEEDS_CSUM;
        (start, offset) = (sum.start, sum.offset);
    } else if offload.checked && offloads & feature::GUEST_CSUM != 0 {
        flags = header::DATA_VALID;
    }
    let (mut gso, mut header_len, mut size) = (header::GSO_NONE, 0, 0);
    if let Some(cut) = offload.segmentation {
        let (needed, kind) = match cut.kind {
            SegmentationKind::Tcp4 => (feature::GUEST_TSO4, header::GSO_TCPV4),
            SegmentationKind::Tcp6 => (feature::GUEST_TSO6, header::GSO_TCPV6),
            SegmentationKind::Udp => return None,
        };
        if offloads & needed == 0 {
            return None;
        }
        // A driver that doesn't know the bit gets the frame without it rather than no frame.
        let ecn = cut.ecn && offloads & feature::GUEST_ECN != 0;
        gso = kind | if ecn { header::GSO_ECN } else { 0 };
        (header_len, size) = (cut.header_len, cut.size);
    }
    let ([h0, h1], [z0, z1]) = (u16::to_le_bytes(header_len), u16::to_le_bytes(size));
    let ([s0, s1], [o0, o1]) = (u16::to_le_bytes(start), u16::to_le_bytes(offset));
    Some([flags, gso, h0, h1, z0, z1, s0, s1, o0, o1])
}
