//! Free physical memory as a short list of ranges: whole guests' RAM is taken out of it in one
//! piece, so there are few of them and no bitmap is needed. First fit from below.

use crate::PAGE;

/// So many pieces at most; a machine's map has some ten.
const PIECES: usize = 128;

/// Physical addresses `start..end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// Behind the last byte.
    pub end: u64,
}

impl Range {
    /// Bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Free memory: ascending ranges of whole pages that don't touch.
#[derive(Clone, Debug)]
pub struct Ranges {
    pieces: [Range; PIECES],
    count: usize,
}

impl Default for Ranges {
    fn default() -> Self {
        Self::new()
    }
}

impl Ranges {
    /// Nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { pieces: [Range { start: 0, end: 0 }; PIECES], count: 0 }
    }

    /// The free ranges.
    #[must_use]
    pub fn pieces(&self) -> &[Range] {
        self.pieces.get(..self.count).unwrap_or_default()
    }

    /// Free bytes.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.pieces().iter().map(Range::len).sum()
    }

    /// Gives the whole pages of a range. False if there is no room to write it down; then the range
    /// is lost, and nothing worse.
    pub fn give(&mut self, range: Range) -> bool {
        let Some(start) = range.start.checked_next_multiple_of(PAGE) else { return true };
        let end = range.end & !(PAGE - 1);
        if start >= end {
            return true;
        }
        // Those that touch it become one with it.
        let mut whole = Range { start, end };
        let mut kept = [Range::default(); PIECES];
        let mut count = 0;
        let mut place = 0;
        for piece in self.pieces() {
            if piece.end < whole.start || piece.start > whole.end {
                place += usize::from(piece.end < whole.start);
                if let Some(slot) = kept.get_mut(count) {
                    *slot = *piece;
                }
                count += 1;
            } else {
                whole.start = whole.start.min(piece.start);
                whole.end = whole.end.max(piece.end);
            }
        }
        if count == PIECES {
            return false;
        }
        kept.copy_within(place..count, place + 1);
        if let Some(slot) = kept.get_mut(place) {
            *slot = whole;
        }
        self.pieces = kept;
        self.count = count + 1;
        true
    }

    /// Takes out whatever of a range is there, to the page around it.
    pub fn remove(&mut self, range: Range) {
        let start = range.start & !(PAGE - 1);
        let end = range.end.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
        let before = self.clone();
        self.count = 0;
        for piece in before.pieces() {
            if piece.end <= start || piece.start >= end {
                self.give(*piece);
                continue;
            }
            self.give(Range { start: piece.start, end: start.min(piece.end) });
            self.give(Range { start: end.max(piece.start), end: piece.end });
        }
    }

    /// Takes `len` bytes (rounded up to pages) at a multiple of `align`, a power of two, that lie
    /// in `within`; gives the first byte's address.
    pub fn take(&mut self, len: u64, align: u64, within: Range) -> Option<u64> {
        let len = len.max(1).checked_next_multiple_of(PAGE)?;
        let align = align.max(PAGE);
        let start = self.pieces().iter().find_map(|piece| {
            let start = piece.start.max(within.start).checked_next_multiple_of(align)?;
            let end = start.checked_add(len)?;
            (end <= piece.end.min(within.end)).then_some(start)
        })?;
        self.remove(Range { start, end: start.checked_add(len)? });
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Range = Range { start: 0, end: u64::MAX };

    fn ranges(pieces: &[(u64, u64)]) -> Ranges {
        let mut ranges = Ranges::new();
        for (start, end) in pieces {
            assert!(ranges.give(Range { start: *start, end: *end }));
        }
        ranges
    }

    fn list(ranges: &Ranges) -> std::vec::Vec<(u64, u64)> {
        ranges.pieces().iter().map(|piece| (piece.start, piece.end)).collect()
    }

    #[test]
    fn neighbours_become_one_in_any_order() {
        let given = ranges(&[(0x5000, 0x6000), (0x1000, 0x2000), (0x3000, 0x5000)]);
        assert_eq!(list(&given), [(0x1000, 0x2000), (0x3000, 0x6000)]);

        let closed = ranges(&[(0x5000, 0x6000), (0x1000, 0x2000), (0x2000, 0x5000)]);
        assert_eq!(list(&closed), [(0x1000, 0x6000)]);
    }

    #[test]
    fn only_whole_pages_count() {
        assert_eq!(list(&ranges(&[(0x1001, 0x3FFF), (0x5001, 0x5FFF)])), [(0x2000, 0x3000)]);
    }

    #[test]
    fn what_is_taken_is_gone_and_comes_back() {
        let mut free = ranges(&[(0x1000, 0x4000), (0x10_0000, 0x20_0000)]);
        let before = list(&free);

        let small = free.take(0x2001, 1, ALL).unwrap();
        let large = free.take(0x1000, 0x10_0000, ALL).unwrap();
        let limited = free.take(0x1000, 1, Range { start: 0, end: 0x10_0000 });

        assert_eq!((small, large, limited), (0x1000, 0x10_0000, None));
        assert_eq!(list(&free), [(0x10_1000, 0x20_0000)]);
        free.give(Range { start: small, end: small + 0x3000 });
        free.give(Range { start: large, end: large + 0x1000 });
        assert_eq!(list(&free), before);
    }

    #[test]
    fn removing_cuts_pieces_and_rounds_outwards() {
        let mut free = ranges(&[(0x1000, 0x9000)]);
        free.remove(Range { start: 0x3001, end: 0x3002 });
        free.remove(Range { start: 0x8000, end: u64::MAX });

        assert_eq!(list(&free), [(0x1000, 0x3000), (0x4000, 0x8000)]);
    }

    #[test]
    fn a_full_list_loses_what_it_cannot_write_down() {
        let mut free = Ranges::new();
        let kept = (0..200u64).filter(|n| {
            let start = 0x2000 * (n + 1);
            free.give(Range { start, end: start + 0x1000 })
        });

        assert_eq!(kept.count(), PIECES);
        assert!(free.take(0x2000, 1, ALL).is_none());
    }
}
