//! Fragmented IPv4 packets of the guest's, put together again (RFC 791 §3.2), within bounds: a few
//! packets at a time, the oldest goes first, and a packet whose parts overlap is dropped, since no
//! honest sender makes one (RFC 5722 says so for IPv6). IPv6 fragments are dropped: their senders
//! know the path's MTU.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::packet::{Packet, Part};

/// Packets that are being put together, at most.
const PACKETS_MAX: usize = 16;

/// Parts of one, at most: as many as a 64 KiB packet has at the least MTU of a sensible link.
const PARTS_MAX: usize = 128;

/// Packets of which something is missing.
#[derive(Debug, Default)]
pub(super) struct Reassembly(VecDeque<Partial>);

#[derive(Debug)]
struct Partial {
    key: (IpAddr, IpAddr, u16, u8),
    bytes: Vec<u8>,
    /// Beginnings and ends of what is there.
    parts: Vec<(usize, usize)>,
    /// Where the last part ends, when it is there.
    end: Option<usize>,
}

impl Reassembly {
    /// Takes a part; returns the body of the packet that it completes.
    pub(super) fn input(&mut self, packet: &Packet<'_>, part: Part) -> Option<Vec<u8>> {
        let key = (packet.from, packet.to, part.ident, packet.protocol);
        let index = match self.0.iter().position(|partial| partial.key == key) {
            Some(index) => index,
            None => {
                if self.0.len() >= PACKETS_MAX {
                    self.0.pop_front();
                }
                let partial = Partial { key, bytes: Vec::new(), parts: Vec::new(), end: None };
                self.0.push_back(partial);
                self.0.len() - 1
            }
        };
        match self.0.get_mut(index)?.add(part, packet.body) {
            Added::More => None,
            Added::Whole => self.0.remove(index).map(|partial| partial.bytes),
            Added::Broken => {
                self.0.remove(index);
                None
            }
        }
    }
}

enum Added {
    More,
    Whole,
    Broken,
}

impl Partial {
    fn add(&mut self, part: Part, body: &[u8]) -> Added {
        let from = usize::from(part.offset);
        let to = from + body.len();
        let aligned = !part.more || body.len().is_multiple_of(8);
        let overlaps = self.parts.iter().any(|(start, end)| from < *end && *start < to);
        let beyond = self.end.is_some_and(|end| to > end || !part.more);
        let sound = aligned && !overlaps && !beyond && !body.is_empty();
        if !sound || to > usize::from(u16::MAX) || self.parts.len() >= PARTS_MAX {
            return Added::Broken;
        }
        if self.bytes.len() < to {
            self.bytes.resize(to, 0);
        }
        if let Some(space) = self.bytes.get_mut(from..to) {
            space.copy_from_slice(body);
        }
        self.parts.push((from, to));
        if !part.more {
            self.end = Some(to);
        }
        let there: usize = self.parts.iter().map(|(start, end)| end - start).sum();
        match self.end {
            Some(end) if self.bytes.len() > end => Added::Broken,
            Some(end) if there == end => Added::Whole,
            Some(_) | None => Added::More,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::Sums;
    use super::*;
    use proptest::prelude::*;

    fn packet(body: &[u8]) -> Packet<'_> {
        Packet {
            mac: [2; 6],
            from: [10, 0, 2, 15].into(),
            to: [192, 0, 2, 1].into(),
            protocol: 17,
            hop_limit: 64,
            body,
            sums: Sums::Present,
            quote: &[],
        }
    }

    proptest! {
        #[test]
        fn parts_in_any_order_make_the_whole(
            bytes in proptest::collection::vec(any::<u8>(), 1..6000),
            size in 1_usize..200,
            order in any::<u64>(),
        ) {
            let size = size * 8;
            prop_assume!(bytes.len().div_ceil(size) <= PARTS_MAX);
            let mut parts: Vec<(usize, &[u8])> = bytes.chunks(size).enumerate().collect();
            let last = parts.len() - 1;
            parts.sort_by_key(|(index, _)| (*index as u64).wrapping_mul(order | 1) % 257);
            let mut reassembly = Reassembly::default();
            let mut whole = None;
            for (index, body) in parts {
                let offset = (index * size) as u16;
                let part = Part { ident: 7, offset, more: index < last };
                prop_assert!(whole.is_none());
                whole = reassembly.input(&packet(body), part);
            }
            prop_assert_eq!(whole, Some(bytes));
            prop_assert!(reassembly.0.is_empty());
        }

        #[test]
        fn nothing_grows_without_bound(
            parts in proptest::collection::vec((any::<u16>(), 0_u16..40, any::<bool>()), 0..200)
        ) {
            let mut reassembly = Reassembly::default();
            for (offset, ident, more) in parts {
                let part = Part { ident, offset: offset & !7, more };
                reassembly.input(&packet(&[1; 64]), part);
                prop_assert!(reassembly.0.len() <= PACKETS_MAX);
            }
        }
    }

    #[test]
    fn overlapping_parts_drop_the_packet() {
        let mut reassembly = Reassembly::default();
        let first = Part { ident: 1, offset: 0, more: true };
        assert_eq!(reassembly.input(&packet(&[1; 16]), first), None);
        let second = Part { ident: 1, offset: 8, more: false };
        assert_eq!(reassembly.input(&packet(&[2; 16]), second), None);
        assert!(reassembly.0.is_empty());
    }
}
