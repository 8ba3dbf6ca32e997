//! Numbered records on a disk: the form that the guest of the kill test writes and the host checks.
//!
//! A record fills [`LEN_BYTES`] and follows from its number alone, so that one that is torn, old or
//! in another's place is found by comparing, and one that was cut off may be written again. Where
//! it lies follows from its number too: neighbours are spread over the whole disk, so that an image
//! that grows gets new clusters and tables all the time. When the disk is full, a new lap begins.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// A record's length: a page, and a multiple of every disk's sector.
pub const LEN_BYTES: usize = 4096;

const MAGIC: [u8; 8] = *b"record\r\n";
/// Odd, so that multiplying by it reaches every slot once in a lap.
const STRIDE: u64 = 0x9E37_79B9_7F4A_7C15;

/// The record of this number.
#[must_use]
pub fn record(sequence: u64) -> [u8; LEN_BYTES] {
    let mut bytes = [0; LEN_BYTES];
    let mut state = sequence;
    for word in bytes.chunks_exact_mut(8) {
        // SplitMix64 (Steele, Lea, Flood 2014).
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    let (magic, rest) = bytes.split_at_mut(MAGIC.len());
    magic.copy_from_slice(&MAGIC);
    let (number, rest) = rest.split_at_mut(8);
    number.copy_from_slice(&sequence.to_le_bytes());
    let (body, sum) = rest.split_at_mut(LEN_BYTES - 24);
    sum.copy_from_slice(&checksum(sequence, body).to_le_bytes());
    bytes
}

/// FNV-1a, 64 bits, over a number and what follows it.
fn checksum(sequence: u64, body: &[u8]) -> u64 {
    let bytes = sequence.to_le_bytes().into_iter().chain(body.iter().copied());
    bytes.fold(0xCBF2_9CE4_8422_2325, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

/// What a slot holds instead of the record that belongs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Zeros: never written.
    Nothing,
    /// The whole record of another number.
    Other(u64),
    /// A record's beginning without the rest, or something else.
    Torn,
}

/// What these bytes are.
#[must_use]
pub fn identify(bytes: &[u8]) -> Found {
    if bytes.iter().all(|byte| *byte == 0) {
        return Found::Nothing;
    }
    let number = bytes.strip_prefix(&MAGIC).and_then(|rest| rest.first_chunk::<8>());
    match number.map(|number| u64::from_le_bytes(*number)) {
        Some(sequence) if record(sequence) == bytes => Found::Other(sequence),
        Some(_) | None => Found::Torn,
    }
}

/// The slots of a disk: how many records it holds at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    count: u64,
}

/// A record that is not where it was said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its number.
    pub sequence: u64,
    /// What is there.
    pub found: Found,
}

impl Slots {
    /// Those of a disk of so many bytes: the greatest power of two that fits.
    ///
    /// # Errors
    /// If not one record fits.
    pub fn of_disk(len_bytes: u64) -> io::Result<Self> {
        match (len_bytes / LEN_BYTES as u64).checked_ilog2() {
            Some(bits) => Ok(Self { count: 1 << bits }),
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "no room for a record")),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(self) -> u64 {
        self.count
    }

    /// Where the record of this number lies, in bytes.
    #[must_use]
    pub fn offset(self, sequence: u64) -> u64 {
        (sequence.wrapping_mul(STRIDE) & (self.count - 1)) * LEN_BYTES as u64
    }

    /// Those of the records in `sequences` that `disk` doesn't hold.
    ///
    /// # Errors
    /// If the disk can't be read.
    pub fn lost(self, disk: &mut File, sequences: std::ops::Range<u64>) -> io::Result<Vec<Lost>> {
        let mut lost = Vec::new();
        let mut bytes = [0; LEN_BYTES];
        for sequence in sequences {
            disk.seek(SeekFrom::Start(self.offset(sequence)))?;
            disk.read_exact(&mut bytes)?;
            if bytes != record(sequence) {
                lost.push(Lost { sequence, found: identify(&bytes) });
            }
        }
        Ok(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_known_again_and_no_other_is_like_it() {
        let first = record(1);

        assert_eq!(identify(&first), Found::Other(1));
        assert_ne!(first, record(2));
    }

    #[test]
    fn each_changed_sector_makes_a_record_torn() {
        for sector in 0..8 {
            let (mut torn, other) = (record(7), record(8));
            torn[sector * 512..(sector + 1) * 512]
                .copy_from_slice(&other[sector * 512..(sector + 1) * 512]);

            assert_eq!(identify(&torn), Found::Torn, "sector {sector}");
        }
        assert_eq!(identify(&[0; LEN_BYTES]), Found::Nothing);
    }

    #[test]
    fn a_lap_fills_every_slot_once() {
        let slots = Slots::of_disk(1 << 20).unwrap();
        let mut offsets: Vec<u64> = (100..100 + slots.count()).map(|n| slots.offset(n)).collect();
        offsets.sort_unstable();
        offsets.dedup();

        assert_eq!((slots.count(), offsets.len()), (256, 256));
        assert_eq!(slots.offset(5), slots.offset(5 + slots.count()));
    }

    #[test]
    fn a_disk_of_less_than_a_record_has_no_slots() {
        assert!(Slots::of_disk(4095).is_err());
    }

    #[test]
    fn what_is_lost_is_named() {
        let path = std::env::temp_dir().join(format!("kasane-record-{}", std::process::id()));
        let slots = Slots::of_disk(1 << 16).unwrap();
        let mut image = vec![0; 1 << 16];
        for sequence in [1, 2, 4] {
            let at = usize::try_from(slots.offset(sequence)).unwrap();
            image[at..at + LEN_BYTES].copy_from_slice(&record(sequence));
        }
        let at = usize::try_from(slots.offset(2)).unwrap();
        image[at + 600] ^= 1;
        std::fs::write(&path, image).unwrap();

        let lost = slots.lost(&mut File::open(&path).unwrap(), 1..5).unwrap();

        let expected =
            [Lost { sequence: 2, found: Found::Torn }, Lost { sequence: 3, found: Found::Nothing }];
        assert_eq!(lost, expected);
        std::fs::remove_file(&path).unwrap();
    }
}
