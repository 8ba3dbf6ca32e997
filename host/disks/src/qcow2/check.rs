//! Whether a qcow2 image's tables are sound, found without changing anything.
//!
//! Every cluster of the file that a table or a disk's data is in must be counted as used, and one
//! that is used but counted as free would be given out a second time: two parts of a disk in one
//! place. So an image is checked before it is opened for writing. It costs a look at its tables,
//! 1/8192 of the data with clusters of 64 KiB.
//!
//! What is allocated, and so how much memory the check takes, is bounded by what the file really
//! holds: references are listed (8 bytes each, as they are in the tables), sorted, and compared
//! with the counts in one pass. Tables in holes of a file, which cost their writer nothing, are
//! bounded apart ([`tables_max`]).

use std::fs::File;
use std::path::Path;

use super::header::{Header, be32, be64};
use crate::error::DiskError;
use crate::sys;

/// Where an entry of L1, L2 or the table of reference counts points to.
const OFFSET: u64 = 0x00FF_FFFF_FFFF_FE00;
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// Bits that must be zero.
const L1_RESERVED: u64 = !(OFFSET | COPIED);
const L2_RESERVED: u64 = !(OFFSET | COPIED | COMPRESSED | 1);
/// Messages that are kept.
const KEPT: usize = 10;
/// References that are listed at most: 512 MiB of them, for 4 TiB of data in clusters of 64 KiB.
const REFERENCES_MAX: usize = 1 << 26;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Damage. Anything here can lose data if the image is written to.
    pub errors: u64,
    /// What the first few are.
    pub messages: Vec<String>,
    /// Clusters that are counted as used and aren't: lost space, and no danger. They stay behind
    /// when a program ends in the middle of its work.
    pub leaked_clusters: u64,
    /// Clusters that hold data of the disk.
    pub data_clusters: u64,
    /// Those of them that are compressed.
    pub compressed_clusters: u64,
    /// Bytes of a cluster.
    pub cluster_bytes: u64,
}

impl CheckReport {
    /// Whether it is sound.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.errors == 0
    }
    fn error(&mut self, message: impl FnOnce() -> String) {
        self.errors = self.errors.saturating_add(1);
        if self.messages.len() < KEPT {
            self.messages.push(message());
        }
    }
}

struct Check<'a> {
    file: &'a File,
    path: &'a Path,
    header: &'a Header,
    report: CheckReport,
    /// Clusters of the file by number, one entry for each reference to them.
    used: Vec<u64>,
    /// Tables and blocks that may still be read.
    tables_left: u64,
}

/// Checks an image.
///
/// # Errors
/// It can't be read. Damage is no error, but in the report.
pub(crate) fn check(file: &File, path: &Path, header: &Header) -> Result<CheckReport, DiskError> {
    let report = CheckReport { cluster_bytes: header.cluster(), ..CheckReport::default() };
    let tables_left = tables_max(file, path, header)?;
    let mut check = Check { file, path, header, report, used: Vec::new(), tables_left };
    check.span(0, 1);
    let l1_bytes = header.l1_entries.saturating_mul(8);
    check.span(header.l1_offset, l1_bytes);
    let l1 = check.table(header.l1_offset, l1_bytes)?;
    check.walk_l1(&l1, Whose::Disk)?;
    check.snapshots()?;
    check.counts()?;
    Ok(check.report)
}

/// Tables and blocks that are read at most: as many as the space that the file takes has room for,
/// once for the disk and once for each snapshot, and some. One in a hole of the file has no
/// entries, and who writes images makes none.
fn tables_max(file: &File, path: &Path, header: &Header) -> Result<u64, DiskError> {
    let metadata = file.metadata().map_err(DiskError::host("measure", path))?;
    #[cfg(unix)]
    let stored = std::os::unix::fs::MetadataExt::blocks(&metadata).saturating_mul(512);
    #[cfg(not(unix))]
    let stored = metadata.len();
    let owners = u64::from(header.snapshots).saturating_add(1);
    Ok((stored / header.cluster()).saturating_add(16).saturating_mul(owners))
}

/// Whose table it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Disk,
    Snapshot,
}

impl Check<'_> {
    /// A range of the file is in use.
    fn span(&mut self, offset: u64, len: u64) {
        if len == 0 {
            return;
        }
        let bits = self.header.cluster_bits & 63;
        let last = offset.saturating_add(len.saturating_sub(1)) >> bits;
        self.used.extend(offset >> bits..=last);
    }

    fn table(&self, offset: u64, len: u64) -> Result<Vec<u64>, DiskError> {
        let mut bytes = vec![0; len as usize];
        sys::read_at(self.file, &mut bytes, offset).map_err(DiskError::host("read", self.path))?;
        Ok(bytes.chunks_exact(8).filter_map(|entry| be64(entry, 0)).collect())
    }

    /// Whether a cluster at this offset can be.
    fn is_sound(&self, offset: u64) -> bool {
        offset != 0 && offset.is_multiple_of(self.header.cluster()) && offset < self.header.file_len
    }

    fn walk_l1(&mut self, l1: &[u64], whose: Whose) -> Result<(), DiskError> {
        for (index, entry) in l1.iter().enumerate().filter(|(_, entry)| **entry != 0) {
            let offset = entry & OFFSET;
            if entry & L1_RESERVED != 0 || (offset != 0 && !self.is_sound(offset)) {
                self.report.error(|| format!("entry {index} of the L1 table is {entry:#x}"));
                continue;
            }
            if offset == 0 {
                continue;
            }
            if !self.may_read_another() {
                return Ok(());
            }
            self.span(offset, 1);
            let l2 = self.table(offset, self.header.cluster())?;
            for (place, entry) in l2.into_iter().enumerate().filter(|(_, entry)| *entry != 0) {
                self.l2_entry(entry, whose, || format!("entry {place} of the L2 table {index}"));
            }
        }
        Ok(())
    }

    /// Whether there may be one more table.
    fn may_read_another(&mut self) -> bool {
        let may = self.tables_left > 0 && self.used.len() < REFERENCES_MAX;
        self.tables_left = self.tables_left.saturating_sub(1);
        if !may {
            self.report.error(|| "it has more tables than a file of its size can have".to_owned());
        }
        may
    }

    fn l2_entry(&mut self, entry: u64, whose: Whose, name: impl Fn() -> String) {
        let counted = u64::from(whose == Whose::Disk);
        if entry & COMPRESSED != 0 {
            return self.compressed(entry, counted, name);
        }
        let offset = entry & OFFSET;
        let zero_flag = entry & 1 != 0;
        let reserved = entry & L2_RESERVED != 0 || (zero_flag && self.header.version == 2);
        if reserved || (offset != 0 && !self.is_sound(offset)) {
            self.report.error(|| format!("{} is {entry:#x}", name()));
        } else if offset != 0 {
            self.span(offset, 1);
            self.report.data_clusters = self.report.data_clusters.saturating_add(counted);
        }
    }

    /// A compressed cluster: an offset, and above it the number of sectors behind the first.
    fn compressed(&mut self, entry: u64, counted: u64, name: impl Fn() -> String) {
        let shift = 62u32.saturating_sub(self.header.cluster_bits.saturating_sub(8));
        let offset = entry & (1u64 << shift).wrapping_sub(1);
        let sectors = (entry & (COMPRESSED - 1)) >> shift;
        let len = sectors.saturating_add(1).saturating_mul(512).saturating_sub(offset % 512);
        if offset == 0 || offset >= self.header.file_len || entry & COPIED != 0 {
            self.report.error(|| format!("{} is {entry:#x}", name()));
            return;
        }
        // The last sector may end behind the file.
        let len = len.min(self.header.file_len.saturating_sub(offset));
        self.span(offset, len);
        self.report.data_clusters = self.report.data_clusters.saturating_add(counted);
        self.report.compressed_clusters = self.report.compressed_clusters.saturating_add(counted);
    }

    /// The tables of internal snapshots. They share clusters with the disk.
    fn snapshots(&mut self) -> Result<(), DiskError> {
        let mut at = self.header.snapshots_offset;
        let begin = at;
        for number in 0..self.header.snapshots {
            let mut fixed = [0; 40];
            let read = sys::read_at(self.file, &mut fixed, at)
                .map_err(DiskError::host("read", self.path))?;
            let (Some(offset), Some(entries)) = (be64(&fixed, 0), be32(&fixed, 8)) else { break };
            let name_lens = u64::from(be32(&fixed, 12).unwrap_or_default());
            let extra = u64::from(be32(&fixed, 36).unwrap_or_default());
            let len = u64::from(entries).saturating_mul(8);
            let inside = offset.checked_add(len).is_some_and(|end| end <= self.header.file_len);
            let known = u64::from(entries) <= self.header.l1_entries.saturating_mul(2).max(1024);
            if read < fixed.len() || !inside || !known || (len > 0 && !self.is_sound(offset)) {
                self.report.error(|| format!("snapshot {number} has no sound table"));
                return Ok(());
            }
            self.span(offset, len);
            let l1 = self.table(offset, len)?;
            self.walk_l1(&l1, Whose::Snapshot)?;
            let rest = (name_lens >> 16).saturating_add(name_lens & 0xFFFF).saturating_add(extra);
            at = at.saturating_add(rest.saturating_add(40).next_multiple_of(8));
        }
        self.span(begin, at.saturating_sub(begin));
        Ok(())
    }

    /// Compares the references with the counts.
    fn counts(&mut self) -> Result<(), DiskError> {
        let header = self.header;
        let table_bytes = header.refcount_table_clusters.saturating_mul(header.cluster());
        self.span(header.refcount_table_offset, table_bytes);
        let table = self.table(header.refcount_table_offset, table_bytes)?;
        for (index, entry) in table.iter().enumerate().filter(|(_, entry)| **entry != 0) {
            if entry & !OFFSET != 0 || !self.is_sound(*entry) {
                self.report.error(|| format!("block {index} of reference counts is at {entry:#x}"));
            } else {
                self.span(*entry, 1);
            }
        }
        self.used.sort_unstable();
        let used = std::mem::take(&mut self.used);
        let mut used = used.chunk_by(|a, b| a == b).peekable();
        let per_block = header.cluster().saturating_mul(8) >> header.refcount_order;
        for (index, entry) in table.into_iter().enumerate() {
            let first = (index as u64).saturating_mul(per_block);
            let sound = entry & !OFFSET == 0 && self.is_sound(entry);
            if sound && !self.may_read_another() {
                return Ok(());
            }
            let block = if sound { Some(self.block(entry)?) } else { None };
            let end = first.saturating_add(per_block);
            let mut next = first;
            // Those without a count, and then those that are counted and not used.
            while let Some(group) = used.next_if(|group| group.first().is_some_and(|n| *n < end)) {
                let Some(cluster) = group.first().copied() else { break };
                let count = |number: u64| {
                    block.as_ref().map_or(0, |block| {
                        count_of(block, number.saturating_sub(first), header.refcount_order)
                    })
                };
                self.leaks((next..cluster).map(count));
                self.compare(cluster, count(cluster), group.len() as u64);
                next = cluster.saturating_add(1);
            }
            if let Some(block) = &block {
                let rest = next..end;
                self.leaks(rest.map(|number| {
                    count_of(block, number.saturating_sub(first), header.refcount_order)
                }));
            }
        }
        for group in used {
            self.compare(group.first().copied().unwrap_or_default(), 0, group.len() as u64);
        }
        Ok(())
    }

    fn block(&self, offset: u64) -> Result<Vec<u8>, DiskError> {
        let mut block = vec![0; self.header.cluster() as usize];
        sys::read_at(self.file, &mut block, offset).map_err(DiskError::host("read", self.path))?;
        Ok(block)
    }

    fn leaks(&mut self, counts: impl Iterator<Item = u64>) {
        let leaked = counts.filter(|count| *count != 0).count() as u64;
        self.report.leaked_clusters = self.report.leaked_clusters.saturating_add(leaked);
    }

    fn compare(&mut self, cluster: u64, count: u64, references: u64) {
        if count < references {
            self.report.error(|| {
                format!("cluster {cluster} is used {references} times, and counted as {count}")
            });
        } else if count > references {
            self.report.leaked_clusters = self.report.leaked_clusters.saturating_add(1);
        }
    }
}

/// The count at place `index` of a block.
fn count_of(block: &[u8], index: u64, order: u32) -> u64 {
    let index = index as usize;
    if order < 3 {
        let per_byte = 8usize >> order;
        let bits = 1u32 << order;
        let byte = block.get(index / per_byte).copied().unwrap_or_default();
        let shift = (index % per_byte) as u32 * bits;
        return u64::from(byte >> shift) & ((1 << bits) - 1);
    }
    let width = 1usize << (order - 3);
    let at = index.saturating_mul(width);
    let bytes = block.get(at..at.saturating_add(width)).unwrap_or_default();
    bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}
