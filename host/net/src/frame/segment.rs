//! Cutting a long TCP frame into segments, for a guest that doesn't take it whole.

use kasane_ports::FrameOffload;

use super::checksum::{self, Sum};
use super::layout::TCP;
use super::tcp::{IpVersion, TcpLayout};
use super::{ETHERNET, Mac};

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// Makes of one frame those that a link without offloads carries, with whole checksums; nothing
/// if the frame is not what its offload says.
pub(crate) fn plain_frames(mut frame: Vec<u8>, offload: &FrameOffload) -> Vec<Vec<u8>> {
    let Some(segmentation) = offload.segmentation else {
        if let Some(partial) = offload.checksum
            && checksum::complete(&mut frame, partial).is_none()
        {
            return Vec::new();
        }
        return vec![frame];
    };
    let size = usize::from(segmentation.size);
    let Some(layout) = TcpLayout::of(&frame) else { return Vec::new() };
    let (Some(headers), Some(payload)) =
        (frame.get(..layout.payload), frame.get(layout.payload..layout.end))
    else {
        return Vec::new();
    };
    if size == 0 {
        return Vec::new();
    }
    let pieces = payload.len().div_ceil(size).max(1);
    (0..pieces)
        .filter_map(|index| {
            let from = index * size;
            let data = payload.get(from..payload.len().min(from + size))?;
            let place = Place { index, first: index == 0, last: index + 1 == pieces, from };
            piece(headers, data, layout, place)
        })
        .collect()
}

/// Which piece of a frame it is.
#[derive(Clone, Copy)]
struct Place {
    index: usize,
    first: bool,
    last: bool,
    /// Offset of its payload.
    from: usize,
}

/// One segment: the headers, changed for its place.
fn piece(headers: &[u8], data: &[u8], layout: TcpLayout, place: Place) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(headers.len() + data.len());
    out.extend_from_slice(headers);
    out.extend_from_slice(data);
    let ip_len = u16::try_from(out.len().checked_sub(ETHERNET)?).ok()?;
    let (ip, tcp) = out.get_mut(ETHERNET..)?.split_at_mut_checked(layout.tcp - ETHERNET)?;
    adapt_tcp(tcp, place)?;
    let tcp_len = tcp.len();
    let mut sum = match layout.version {
        IpVersion::V4 => {
            ip.get_mut(2..4)?.copy_from_slice(&ip_len.to_be_bytes());
            let ident = u16::from_be_bytes([*ip.get(4)?, *ip.get(5)?]);
            let ident = ident.wrapping_add(place.index as u16);
            ip.get_mut(4..6)?.copy_from_slice(&ident.to_be_bytes());
            ip.get_mut(10..12)?.fill(0);
            let mut header = Sum::default();
            header.add(ip);
            ip.get_mut(10..12)?.copy_from_slice(&header.checksum());
            let mut sum = Sum::default();
            sum.add(ip.get(12..20)?);
            sum
        }
        IpVersion::V6 => {
            ip.get_mut(4..6)?.copy_from_slice(&ip_len.checked_sub(40)?.to_be_bytes());
            let mut sum = Sum::default();
            sum.add(ip.get(8..40)?);
            sum
        }
    };
    sum.add(&[0, TCP]);
    sum.add(&u16::try_from(tcp_len).ok()?.to_be_bytes());
    tcp.get_mut(16..18)?.fill(0);
    sum.add(tcp);
    tcp.get_mut(16..18)?.copy_from_slice(&sum.checksum());
    Some(out)
}

fn adapt_tcp(tcp: &mut [u8], place: Place) -> Option<()> {
    let seq = tcp.get_mut(4..8)?;
    let number = u32::from_be_bytes(seq.first_chunk::<4>().copied()?);
    seq.copy_from_slice(&number.wrapping_add(place.from as u32).to_be_bytes());
    let flags = tcp.get_mut(13)?;
    if !place.last {
        *flags &= !(FIN | PSH);
    }
    if !place.first {
        *flags &= !CWR;
    }
    Some(())
}

/// The frame's destination.
pub(crate) fn destination(frame: &[u8]) -> Option<Mac> {
    frame.first_chunk::<6>().copied()
}

/// The frame's source.
pub(crate) fn source(frame: &[u8]) -> Option<Mac> {
    frame.get(6..)?.first_chunk::<6>().copied()
}
