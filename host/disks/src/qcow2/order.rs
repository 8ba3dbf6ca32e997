//! In which order a qcow2 image's tables reach the file, so that a kill at any moment leaves no
//! more than lost space behind.
//!
//! Whatever points to a cluster must not be in the file before the cluster is counted as used: else
//! the next program gives the cluster out a second time. `imago` sees to that between its caches of
//! L2 tables and of reference counts. But it writes entries of the L1 table and of the table of
//! reference counts, and the pointers in the header, at once, when the counts for what they point
//! to are still in the cache. So every write of `imago` comes by here, and if it is such a pointer,
//! the count of what it points to is written first ([`State::count`]).
//!
//! `imago` may be just writing a block of counts that it put together before the cluster was given
//! out, and would overwrite the count with 0. So clusters that were counted here are remembered
//! until all of its caches were written with nobody else at work ([`Order::settled`]), and counts
//! of theirs that come as 0 become 1. If that is wrong after all, space is lost, and nothing else.
//!
//! For crashes of the whole host there is a barrier (`fdatasync`) wherever counts and what points
//! to clusters follow each other, in either direction; a flush that changes tables costs one more
//! than it would otherwise.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::Range;

use parking_lot::Mutex;

use super::header::{Header, be32, be64};
use crate::sys;

/// Where an entry of a table points to.
const OFFSET: u64 = 0x00FF_FFFF_FFFF_FE00;
/// Bytes of the header that have pointers.
const HEADER: usize = 64;

/// What was written last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counts,
    Others,
}

struct State {
    cluster_bits: u32,
    refcount_order: u32,
    l1: Range<u64>,
    table: Range<u64>,
    /// Entries of the table of reference counts.
    blocks: Vec<u64>,
    /// Clusters that were counted here.
    counted: BTreeSet<u64>,
    /// What was written since the last barrier.
    unsynced: Option<Kind>,
    /// How many writes there were.
    writes: u64,
}

/// Sees to the order of writes to one image.
pub(crate) struct Order(Mutex<State>);

impl Order {
    /// For an image with this header.
    ///
    /// # Errors
    /// The host refuses.
    pub(crate) fn new(file: &File, header: &Header) -> io::Result<Self> {
        let mut state = State {
            cluster_bits: header.cluster_bits & 63,
            refcount_order: header.refcount_order,
            l1: 0..0,
            table: 0..0,
            blocks: Vec::new(),
            counted: BTreeSet::new(),
            unsynced: None,
            writes: 0,
        };
        let mut bytes = [0; HEADER];
        sys::read_at(file, &mut bytes, 0)?;
        state.take_header(file, &bytes)?;
        Ok(Self(Mutex::new(state)))
    }

    /// Writes `data`, and before it what it needs.
    ///
    /// # Errors
    /// The host refuses. `data` was not written then, or not all of it.
    pub(crate) fn write(&self, file: &File, data: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        if let Some(block) = state.block_at(offset) {
            let mut data = data.to_vec();
            state.keep_counts(block, &mut data, offset);
            state.barrier(file, Kind::Counts)?;
            return sys::write_at(file, &data, offset);
        }
        let header = if offset < HEADER as u64 {
            Some(state.before_header(file, data, offset)?)
        } else {
            state.before_pointers(file, data, offset)?;
            None
        };
        state.barrier(file, Kind::Others)?;
        sys::write_at(file, data, offset)?;
        match header {
            Some(bytes) => state.take_header(file, &bytes),
            None => Ok(()),
        }
    }

    /// All of `imago`'s caches were written, and nothing else happened meanwhile.
    pub(crate) fn settled(&self) {
        self.0.lock().counted.clear();
    }

    /// Makes everything durable.
    ///
    /// # Errors
    /// The host refuses.
    pub(crate) fn sync(&self, file: &File) -> io::Result<()> {
        let before = self.0.lock().writes;
        file.sync_data()?;
        let mut state = self.0.lock();
        if state.writes == before {
            state.unsynced = None;
        }
        Ok(())
    }
}

impl State {
    /// Counts in a block.
    fn per_block(&self) -> u64 {
        (8u64 << self.cluster_bits) >> self.refcount_order
    }

    /// The number of the block of counts that lies at `offset`.
    fn block_at(&self, offset: u64) -> Option<u64> {
        let begin = offset >> self.cluster_bits << self.cluster_bits;
        let found = self.blocks.iter().position(|block| *block == begin && begin != 0)?;
        Some(found as u64)
    }

    fn barrier(&mut self, file: &File, kind: Kind) -> io::Result<()> {
        if self.unsynced.is_some_and(|before| before != kind) {
            file.sync_data()?;
        }
        self.unsynced = Some(kind);
        self.writes = self.writes.wrapping_add(1);
        Ok(())
    }

    /// Entries of the tables that a write changes.
    fn before_pointers(&mut self, file: &File, data: &[u8], offset: u64) -> io::Result<()> {
        let end = offset.saturating_add(data.len() as u64);
        for region in [self.l1.clone(), self.table.clone()] {
            let mut at = offset.next_multiple_of(8).max(region.start);
            while at.saturating_add(8) <= end.min(region.end) {
                let entry = be64(data, at.saturating_sub(offset) as usize).unwrap_or_default();
                let target = entry & OFFSET;
                if region == self.table {
                    let number = at.saturating_sub(region.start) / 8;
                    self.before_block(file, number, target)?;
                } else if target != 0 {
                    self.count(file, target >> self.cluster_bits)?;
                }
                at = at.saturating_add(8);
            }
        }
        Ok(())
    }

    /// Block `number` of counts will be at `target`. It may count itself; then it was written so.
    fn before_block(&mut self, file: &File, number: u64, target: u64) -> io::Result<()> {
        let Some(place) = self.blocks.get(number as usize).copied() else { return Ok(()) };
        if target != 0 && target != place {
            let cluster = target >> self.cluster_bits;
            if cluster / self.per_block().max(1) != number {
                self.count(file, cluster)?;
            }
        }
        if let Some(place) = self.blocks.get_mut(number as usize) {
            *place = target;
        }
        Ok(())
    }

    /// The header as it will be; the L1 table that it points to is counted.
    fn before_header(&mut self, file: &File, data: &[u8], offset: u64) -> io::Result<[u8; HEADER]> {
        let mut bytes = [0; HEADER];
        sys::read_at(file, &mut bytes, 0)?;
        let into = bytes.get_mut(offset as usize..).unwrap_or_default();
        into.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
        let l1 = l1_of(&bytes);
        if l1.start != self.l1.start {
            let last = l1.end.saturating_sub(1) >> self.cluster_bits;
            for cluster in (l1.start >> self.cluster_bits)..=last {
                self.count(file, cluster)?;
            }
        }
        Ok(bytes)
    }

    fn take_header(&mut self, file: &File, bytes: &[u8; HEADER]) -> io::Result<()> {
        self.l1 = l1_of(bytes);
        let begin = be64(bytes, 48).unwrap_or_default();
        let len = u64::from(be32(bytes, 56).unwrap_or_default()) << self.cluster_bits;
        let table = begin..begin.saturating_add(len);
        if table == self.table {
            return Ok(());
        }
        let mut entries = vec![0; len as usize];
        sys::read_at(file, &mut entries, begin)?;
        self.blocks = entries.chunks_exact(8).filter_map(|entry| be64(entry, 0)).collect();
        self.blocks.iter_mut().for_each(|entry| *entry &= OFFSET);
        self.table = table;
        Ok(())
    }

    /// Sees to it that a cluster is counted in the file.
    fn count(&mut self, file: &File, cluster: u64) -> io::Result<()> {
        let per_block = self.per_block().max(1);
        let number = usize::try_from(cluster / per_block).unwrap_or(usize::MAX);
        let Some(block) = self.blocks.get(number).copied().filter(|block| *block != 0) else {
            // `imago` gives no cluster out that no block counts.
            return Err(io::ErrorKind::InvalidData.into());
        };
        let (at, len, bits) = self.field(cluster % per_block);
        let mut bytes = [0; 8];
        let field = bytes.get_mut(..len).unwrap_or_default();
        sys::read_at(file, field, block.saturating_add(at))?;
        self.counted.insert(cluster);
        if raise(field, bits) {
            self.barrier(file, Kind::Counts)?;
            sys::write_at(file, field, block.saturating_add(at))?;
        }
        Ok(())
    }

    /// Where in a block the count at place `index` is: first byte, bytes, and the bits of the last
    /// byte.
    fn field(&self, index: u64) -> (u64, usize, u8) {
        let order = self.refcount_order;
        if order >= 3 {
            let len = 1u64 << (order - 3).min(3);
            return (index.saturating_mul(len), len as usize, 0xFF);
        }
        let width = 1u32 << order;
        let bit = index << order;
        let mask = (1u32 << width) - 1;
        (bit / 8, 1, (mask << (bit % 8)) as u8)
    }

    /// Clusters that were counted here stay counted in what will be written to a block.
    fn keep_counts(&self, block: u64, data: &mut [u8], offset: u64) {
        let per_block = self.per_block();
        let first = block.saturating_mul(per_block);
        let within = offset & ((1u64 << self.cluster_bits) - 1);
        for cluster in self.counted.range(first..first.saturating_add(per_block)) {
            let (at, len, bits) = self.field(cluster.saturating_sub(first));
            let begin = at.checked_sub(within).and_then(|at| usize::try_from(at).ok());
            let field = begin.and_then(|at| data.get_mut(at..at.saturating_add(len)));
            if let Some(field) = field {
                raise(field, bits);
            }
        }
    }
}

/// The place of the L1 table that a header says.
fn l1_of(bytes: &[u8]) -> Range<u64> {
    let begin = be64(bytes, 40).unwrap_or_default();
    let len = u64::from(be32(bytes, 36).unwrap_or_default()).saturating_mul(8);
    begin..begin.saturating_add(len)
}

/// Makes a count that is 0 to 1; whether it was. The last byte has it in `bits`.
fn raise(field: &mut [u8], bits: u8) -> bool {
    let is_zero = match &*field {
        [one] => *one & bits == 0,
        more => more.iter().all(|byte| *byte == 0),
    };
    if let (true, Some(last)) = (is_zero, field.last_mut()) {
        // The lowest of its bits.
        *last |= bits & bits.wrapping_neg();
    }
    is_zero
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(refcount_order: u32) -> State {
        State {
            cluster_bits: 9,
            refcount_order,
            l1: 0..0,
            table: 0..0,
            blocks: vec![512, 0],
            counted: BTreeSet::from([3, 9]),
            unsynced: None,
            writes: 0,
        }
    }

    #[test]
    fn counts_of_every_width_stay_counted() {
        let cases: [(u32, &[(usize, u8)]); 4] = [
            (0, &[(0, 1 << 3), (1, 2)]),
            (1, &[(0, 1 << 6), (2, 4)]),
            (3, &[(3, 1), (9, 1)]),
            (4, &[(7, 1), (19, 1)]),
        ];
        for (order, expected) in cases {
            let mut data = vec![0; 512];
            state(order).keep_counts(0, &mut data, 512);
            let found: Vec<_> =
                data.iter().copied().enumerate().filter(|(_, byte)| *byte != 0).collect();
            assert_eq!(found, expected, "order {order}");
        }
    }

    #[test]
    fn a_part_of_a_block_is_understood_and_counts_are_not_lowered() {
        let mut data = vec![0, 5, 0, 0];
        state(4).keep_counts(0, &mut data, 512 + 18);

        assert_eq!(data, [0, 5, 0, 0]);
        let mut data = vec![0; 4];
        state(4).keep_counts(0, &mut data, 512 + 16);
        assert_eq!(data, [0, 0, 0, 1]);
    }
}
