//! The header of a qcow2 image (QEMU's `docs/interop/qcow2.rst`), read with suspicion.
//!
//! `imago` reads it, too; this is done first, so that an image that is damaged, or that needs what
//! we don't have, is refused with a reason before anything trusts or changes it.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::DiskError;
use crate::format::QCOW2_MAGIC;
use crate::options::DiskFormat;
use crate::sys;

/// Bytes of a version 2 header, and of the fixed part of a version 3 header.
const V2_BYTES: u64 = 72;
const V3_BYTES: u64 = 104;
/// Bytes of a table at most, as in QEMU: 32 MiB for L1, 8 MiB for refcounts.
const L1_BYTES_MAX: u64 = 32 << 20;
const REFCOUNT_TABLE_BYTES_MAX: u64 = 8 << 20;
/// Bytes of a backing file's name at most.
const NAME_MAX: u64 = 1023;
/// Snapshots at most.
const SNAPSHOTS_MAX: u32 = 65536;

const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xE279_2ACA;

const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

/// What the header says. All offsets are in bytes, multiples of a cluster, and inside the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) cluster_bits: u32,
    /// The disk's size in bytes.
    pub(crate) size: u64,
    pub(crate) l1_offset: u64,
    pub(crate) l1_entries: u64,
    pub(crate) refcount_table_offset: u64,
    pub(crate) refcount_table_clusters: u64,
    /// log2 of the bits of a reference count.
    pub(crate) refcount_order: u32,
    pub(crate) snapshots: u32,
    pub(crate) snapshots_offset: u64,
    /// The backing file's name as it stands there.
    pub(crate) backing: Option<String>,
    pub(crate) backing_format: Option<String>,
    /// It was not closed: reference counts may be wrong.
    pub(crate) dirty: bool,
    /// Length of the file when the header was read.
    pub(crate) file_len: u64,
}

/// Big-endian integers out of bytes.
pub(crate) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let end = at.checked_add(4)?;
    Some(u32::from_be_bytes(bytes.get(at..end)?.try_into().ok()?))
}

/// As [`be32`].
pub(crate) fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    let end = at.checked_add(8)?;
    Some(u64::from_be_bytes(bytes.get(at..end)?.try_into().ok()?))
}

/// A wrong image: the first thing that is wrong, or what we lack.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    Damaged(String),
    Unsupported(String),
}

impl Wrong {
    fn damaged<T>(why: impl Into<String>) -> Result<T, Self> {
        Err(Self::Damaged(why.into()))
    }
    fn unsupported<T>(what: impl Into<String>) -> Result<T, Self> {
        Err(Self::Unsupported(what.into()))
    }
}

impl Header {
    /// Reads and checks the header of an open image.
    ///
    /// # Errors
    /// The host refuses; the header is damaged; or it needs what we don't have.
    pub(crate) fn read(file: &File, path: &Path) -> Result<Self, DiskError> {
        let len = file.metadata().map_err(DiskError::host("measure", path))?.len();
        // Everything that the header's own part says lies in its first cluster.
        let mut bytes = vec![0; len.min(4 << 20) as usize];
        let read = sys::read_at(file, &mut bytes, 0).map_err(DiskError::host("read", path))?;
        bytes.truncate(read);
        Self::parse(&bytes, len).map_err(|wrong| match wrong {
            Wrong::Damaged(why) => DiskError::damaged(path, why),
            Wrong::Unsupported(what) => DiskError::unsupported(path, what),
        })
    }

    /// The header in the first bytes of an image of `file_len` bytes.
    pub(crate) fn parse(bytes: &[u8], file_len: u64) -> Result<Self, Wrong> {
        let cut = || Wrong::Damaged("its header is cut off".to_owned());
        let word = |at| be32(bytes, at).ok_or_else(cut);
        let long = |at| be64(bytes, at).ok_or_else(cut);
        if bytes.get(..4) != Some(&QCOW2_MAGIC) {
            return Wrong::damaged("it doesn't begin as a qcow2 image does");
        }
        let version = word(4)?;
        if !matches!(version, 2 | 3) {
            return Wrong::unsupported(format!("is qcow2 of version {version}"));
        }
        let v3 = version == 3;
        let cluster_bits = word(20)?;
        if !(9..=21).contains(&cluster_bits) {
            return Wrong::damaged(format!("clusters of 2^{cluster_bits} bytes"));
        }
        if word(32)? != 0 {
            return Wrong::unsupported("is encrypted");
        }
        let incompatible = if v3 { long(72)? } else { 0 };
        check_features(incompatible)?;
        let header_len = if v3 { u64::from(word(100)?) } else { V2_BYTES };
        let refcount_order = if v3 { word(96)? } else { 4 };
        if refcount_order > 6 {
            return Wrong::damaged(format!("reference counts of 2^{refcount_order} bits"));
        }
        let cluster = 1u64 << cluster_bits;
        if v3 && !(V3_BYTES..=cluster).contains(&header_len) {
            return Wrong::damaged(format!("a header of {header_len} bytes"));
        }
        let header = Self {
            version,
            cluster_bits,
            size: long(24)?,
            l1_offset: long(40)?,
            l1_entries: word(36)?.into(),
            refcount_table_offset: long(48)?,
            refcount_table_clusters: word(56)?.into(),
            refcount_order,
            snapshots: word(60)?,
            snapshots_offset: long(64)?,
            backing: backing_name(bytes, cluster)?,
            backing_format: backing_format(bytes, header_len)?,
            dirty: incompatible & DIRTY != 0,
            file_len,
        };
        header.check_tables()?;
        Ok(header)
    }

    /// Bytes of a cluster.
    pub(crate) fn cluster(&self) -> u64 {
        1 << (self.cluster_bits & 63)
    }
    /// Entries of an L2 table.
    pub(crate) fn l2_entries(&self) -> u64 {
        self.cluster() / 8
    }
    /// Entries that L1 must have for the disk's size.
    pub(crate) fn l1_entries_needed(&self) -> u64 {
        self.size.div_ceil(self.cluster().saturating_mul(self.l2_entries()).max(1))
    }

    fn check_tables(&self) -> Result<(), Wrong> {
        let tables = [
            ("L1 table", self.l1_offset, self.l1_entries.saturating_mul(8), L1_BYTES_MAX),
            (
                "table of reference counts",
                self.refcount_table_offset,
                self.refcount_table_clusters.saturating_mul(self.cluster()),
                REFCOUNT_TABLE_BYTES_MAX,
            ),
        ];
        for (name, offset, len, max) in tables {
            if len > max {
                return Wrong::damaged(format!("its {name} has {len} bytes; {max} are the most"));
            }
            let inside = offset.checked_add(len).is_some_and(|end| end <= self.file_len);
            if len > 0 && (!offset.is_multiple_of(self.cluster()) || offset == 0 || !inside) {
                return Wrong::damaged(format!(
                    "its {name} is at {offset:#x}, {len} bytes long, in a file of {} bytes",
                    self.file_len
                ));
            }
        }
        if self.refcount_table_clusters == 0 {
            return Wrong::damaged("it has no table of reference counts");
        }
        if self.l1_entries < self.l1_entries_needed() {
            return Wrong::damaged(format!(
                "its L1 table has {} entries, and a disk of {} bytes needs {}",
                self.l1_entries,
                self.size,
                self.l1_entries_needed()
            ));
        }
        if i64::try_from(self.size).is_err() {
            return Wrong::damaged(format!("a size of {} bytes", self.size));
        }
        if self.snapshots > SNAPSHOTS_MAX {
            return Wrong::damaged(format!("{} snapshots", self.snapshots));
        }
        Ok(())
    }

    /// The backing file's path and format.
    ///
    /// # Errors
    /// A format that we don't have.
    pub(crate) fn backing_file(
        &self,
        path: &Path,
    ) -> Result<Option<(PathBuf, Option<DiskFormat>)>, DiskError> {
        let Some(name) = &self.backing else { return Ok(None) };
        if name.starts_with("json:") {
            return Err(DiskError::unsupported(path, format!("has the backing file `{name}`")));
        }
        let name = name.strip_prefix("file:").unwrap_or(name);
        let format = match self.backing_format.as_deref() {
            None => None,
            Some(word) => Some(word.parse().map_err(|_| {
                DiskError::unsupported(path, format!("has a backing file of format `{word}`"))
            })?),
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        Ok(Some((folder.join(OsString::from(name)), format)))
    }
}

fn check_features(incompatible: u64) -> Result<(), Wrong> {
    if incompatible & CORRUPT != 0 {
        return Wrong::damaged("a program found it corrupt, and marked it so");
    }
    let unknown = incompatible & !(DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION | EXTENDED_L2);
    let lacking = [
        (incompatible & EXTERNAL_DATA != 0, "keeps its data in another file".to_owned()),
        (incompatible & COMPRESSION != 0, "is compressed by another way than deflate".to_owned()),
        (incompatible & EXTENDED_L2 != 0, "has subclusters".to_owned()),
        (unknown != 0, format!("needs the unknown features {unknown:#x}")),
    ];
    match lacking.into_iter().find(|(lacks, _)| *lacks) {
        Some((_, what)) => Wrong::unsupported(what),
        None => Ok(()),
    }
}

fn backing_name(bytes: &[u8], cluster: u64) -> Result<Option<String>, Wrong> {
    let offset = be64(bytes, 8).unwrap_or_default();
    let len = u64::from(be32(bytes, 16).unwrap_or_default());
    if offset == 0 {
        return Ok(None);
    }
    let end = offset.checked_add(len).filter(|end| len <= NAME_MAX && *end <= cluster);
    let name = end.and_then(|end| bytes.get(offset as usize..end as usize));
    match name.map(|name| String::from_utf8(name.to_vec())) {
        Some(Ok(name)) if !name.is_empty() && !name.contains('\0') => Ok(Some(name)),
        _ => Wrong::damaged(format!(
            "the name of its backing file is at {offset:#x}, {len} bytes long, or is no text"
        )),
    }
}

fn backing_format(bytes: &[u8], header_len: u64) -> Result<Option<String>, Wrong> {
    let mut at = header_len as usize;
    let cut = || Wrong::Damaged("its header's extensions are cut off".to_owned());
    // Each takes at least 8 bytes of what is at most 2 MiB.
    loop {
        let Some(kind) = be32(bytes, at) else { return Ok(None) };
        let len = be32(bytes, at.saturating_add(4)).unwrap_or_default() as usize;
        let data = at.saturating_add(8);
        if kind == EXTENSION_END {
            return Ok(None);
        }
        let found = bytes.get(data..data.saturating_add(len)).ok_or_else(cut)?;
        if kind == EXTENSION_BACKING_FORMAT {
            return Ok(Some(String::from_utf8_lossy(found).into_owned()));
        }
        at = data.saturating_add(len.next_multiple_of(8));
    }
}
