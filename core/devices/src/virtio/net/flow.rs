//! Which queue a flow belongs to: the one that its guest sends it by (virtio 1.2 §5.1.6.5.5,
//! "automatic receive steering").

use super::header;

const PLACES: usize = 128;
/// Bytes of a frame that are looked at: Ethernet with two tags, IPv6, ports.
pub(super) const LOOKED_AT: usize = 66;

/// Where flows go, by a hash of their addresses and ports that is the same in both directions.
/// Different flows may share a place: they get each other's queue, which costs order nothing.
#[derive(Clone, Debug)]
pub(super) struct Flows {
    pairs: [u8; PLACES],
}

impl Default for Flows {
    fn default() -> Self {
        Self { pairs: [0; PLACES] }
    }
}

fn place(frame: &[u8]) -> usize {
    let Some((kind, ip)) = header::ether_type(frame) else { return 0 };
    let Some(packet) = frame.get(ip..) else { return 0 };
    let (addresses, ports) = match kind {
        0x0800 => {
            let words = packet.first().map_or(0, |byte| usize::from(byte & 15));
            (packet.get(12..20), packet.get(words * 4..))
        }
        0x86DD => (packet.get(8..40), packet.get(40..)),
        _ => return 0,
    };
    let ports = ports.and_then(|ports| ports.first_chunk::<4>());
    let bytes = addresses.unwrap_or_default().iter().chain(ports.into_iter().flatten());
    // The sum is the same whichever end comes first; both ends are of whole words.
    let mut sum = 0u32;
    for (n, byte) in bytes.enumerate() {
        sum = sum.wrapping_add(u32::from(*byte).wrapping_mul(if n & 1 == 0 {
            0x101
        } else {
            0x9E37
        }));
    }
    (sum.wrapping_mul(0x9E37_79B1) >> 25) as usize % PLACES
}

impl Flows {
    /// The guest has sent a frame by a queue pair.
    pub(super) fn sent(&mut self, frame: &[u8], pair: u16) {
        if let Some(to) = self.pairs.get_mut(place(frame)) {
            *to = pair as u8;
        }
    }
    /// The pair that a frame for the guest goes to, of `pairs`.
    pub(super) fn pair(&self, frame: &[u8], pairs: u16) -> u16 {
        let pair = self.pairs.get(place(frame)).copied().unwrap_or_default();
        u16::from(pair).checked_rem(pairs).unwrap_or_default()
    }
}
