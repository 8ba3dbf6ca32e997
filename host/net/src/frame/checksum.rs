//! The Internet checksum (RFC 1071), over parts that follow one another.

use std::net::IpAddr;

use kasane_ports::PartialChecksum;

/// A ones' complement sum that is being made.
///
/// Words are added in the host's byte order, which RFC 1071 §2(B) allows: the sum only has to be
/// stored as it was loaded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    total: u64,
    /// An odd number of bytes was added.
    odd: bool,
}

impl Sum {
    /// The sum of a pseudo header (RFC 9293 §3.1, RFC 8200 §8.1).
    pub(crate) fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, len: usize) -> Self {
        let mut sum = Self::default();
        for address in [from, to] {
            match address {
                IpAddr::V4(address) => sum.add(&address.octets()),
                IpAddr::V6(address) => sum.add(&address.octets()),
            }
        }
        sum.add(&[0, protocol]);
        sum.add(&(u32::try_from(len).unwrap_or(u32::MAX)).to_be_bytes());
        sum
    }

    /// Adds what comes next.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let part = fold(words(bytes));
        // A part that begins at an odd byte has its words' bytes swapped (RFC 1071 §2(B)).
        self.total += u64::from(if self.odd { part.swap_bytes() } else { part });
        self.odd ^= bytes.len() % 2 == 1;
    }

    /// The sum as it is stored where the rest is to be added by another (not complemented).
    pub(crate) fn stored(self) -> [u8; 2] {
        fold(self.total).to_ne_bytes()
    }

    /// The checksum as it is stored.
    pub(crate) fn checksum(self) -> [u8; 2] {
        (!fold(self.total)).to_ne_bytes()
    }

    /// The same for UDP, where 0 says that there is none (RFC 768).
    pub(crate) fn udp_checksum(self) -> [u8; 2] {
        match self.checksum() {
            [0, 0] => [0xFF, 0xFF],
            sum => sum,
        }
    }
}

fn words(bytes: &[u8]) -> u64 {
    let (chunks, rest) = bytes.as_chunks::<4>();
    // Less than 2^32 chunks of less than 2^32: no overflow.
    let mut total: u64 = chunks.iter().map(|chunk| u64::from(u32::from_ne_bytes(*chunk))).sum();
    let (pairs, last) = rest.as_chunks::<2>();
    for pair in pairs {
        total += u64::from(u16::from_ne_bytes(*pair));
    }
    if let [byte] = last {
        total += u64::from(u16::from_ne_bytes([*byte, 0]));
    }
    total
}

fn fold(mut total: u64) -> u16 {
    while total > 0xFFFF {
        total = (total & 0xFFFF) + (total >> 16);
    }
    total as u16
}

/// Completes a partial checksum, as the port's frames have it; `None` if it lies outside of the
/// frame.
pub(crate) fn complete(frame: &mut [u8], partial: PartialChecksum) -> Option<()> {
    let summed = frame.get(usize::from(partial.start)..)?;
    let mut sum = Sum::default();
    sum.add(summed);
    // Offset 6 is UDP's field; TCP's is 16. A sum of 0 in any other means no harm.
    let stored = if partial.offset == 6 { sum.udp_checksum() } else { sum.checksum() };
    let at = usize::from(partial.start).checked_add(partial.offset.into())?;
    frame.get_mut(at..at.checked_add(2)?)?.copy_from_slice(&stored);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smoltcp::wire::IpProtocol;

    proptest! {
        #[test]
        fn parts_sum_as_the_whole_does(bytes: Vec<u8>, cut in 0_usize..300, cut2 in 0_usize..300) {
            let (a, rest) = bytes.split_at(cut.min(bytes.len()));
            let (b, c) = rest.split_at(cut2.min(rest.len()));
            let mut parts = Sum::default();
            for part in [a, b, c] {
                parts.add(part);
            }
            let mut plain: u32 = 0;
            for pair in bytes.chunks(2) {
                plain += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            }
            while plain > 0xFFFF {
                plain = (plain & 0xFFFF) + (plain >> 16);
            }
            prop_assert_eq!(parts.checksum(), (!(plain as u16)).to_be_bytes());
        }

        #[test]
        fn a_partial_sum_is_completed_to_what_smoltcp_takes(payload: Vec<u8>) {
            let (from, to) = ([10, 0, 2, 2].into(), [10, 0, 2, 15].into());
            let len = 8 + payload.len();
            let mut datagram = vec![0, 53, 4, 0];
            datagram.extend((len as u16).to_be_bytes());
            datagram.extend(Sum::pseudo(from, to, u8::from(IpProtocol::Udp), len).stored());
            datagram.extend(&payload);
            complete(&mut datagram, PartialChecksum { start: 0, offset: 6 }).unwrap();
            let packet = smoltcp::wire::UdpPacket::new_checked(&datagram[..]).unwrap();
            prop_assert!(packet.verify_checksum(&from.into(), &to.into()));
        }
    }
}
