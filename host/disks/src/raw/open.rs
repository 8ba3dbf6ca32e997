//! Opening raw images.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use kasane_ports::BlockInfo;

use super::RawImage;
use crate::error::DiskError;
use crate::lock;
use crate::options::{DiskAccess, HostCache};
use crate::sys;

/// Bytes of a sector, the unit of every request.
const SECTOR: u64 = 512;

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    File,
    BlockDevice,
}

/// What a file is, if an image can be stored in it.
fn kind_by(metadata: &Metadata, path: &Path) -> Result<FileKind, DiskError> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok(FileKind::File);
    }
    #[cfg(unix)]
    if std::os::unix::fs::FileTypeExt::is_block_device(&kind) {
        return Ok(FileKind::BlockDevice);
    }
    let found = if kind.is_dir() { "a folder" } else { "neither a file nor a block device" };
    Err(DiskError::NoImage { path: path.to_owned(), found })
}

/// What an open image is stored in.
///
/// # Errors
/// Neither a file nor a block device.
pub(crate) fn kind_of(file: &File, path: &Path) -> Result<FileKind, DiskError> {
    kind_by(&file.metadata().map_err(DiskError::host("look at", path))?, path)
}

/// Opens and locks the file of an image.
///
/// # Errors
/// The host refuses, somebody else has it, or it is no file.
pub(crate) fn open_file(
    path: &Path,
    access: DiskAccess,
    cache: HostCache,
) -> Result<File, DiskError> {
    // Looked at first: opening a FIFO would wait for its other end.
    kind_by(&std::fs::metadata(path).map_err(DiskError::host("open", path))?, path)?;
    let mut options = OpenOptions::new();
    options.read(true).write(access == DiskAccess::ReadWrite);
    let opened = match cache {
        HostCache::PageCache => options.open(path),
        HostCache::Direct => sys::open_direct(&mut options, path),
    };
    let file = opened.map_err(|error| match cache {
        HostCache::Direct if sys::is_unsupported(&error) => {
            DiskError::unsupported(path, "is on a file system without direct I/O")
        }
        _ => DiskError::host("open", path)(error),
    })?;
    kind_of(&file, path)?;
    lock::lock(&file, path, access)?;
    Ok(file)
}

impl RawImage {
    /// Opens a raw image.
    ///
    /// # Errors
    /// As for [`open_file`]; it is empty; or direct I/O is not to be had in units of 512 bytes.
    pub(crate) fn open(
        path: &Path,
        access: DiskAccess,
        cache: HostCache,
    ) -> Result<Self, DiskError> {
        let file = open_file(path, access, cache)?;
        let kind = kind_of(&file, path)?;
        let mut end = (&file).seek(SeekFrom::End(0)).map_err(DiskError::host("measure", path))?;
        let capacity = end
            .checked_next_multiple_of(SECTOR)
            .filter(|bytes| i64::try_from(*bytes).is_ok())
            .ok_or(DiskError::Size { bytes: end, why: "is too large" })?;
        if capacity == 0 {
            return Err(DiskError::unsupported(path, "is empty"));
        }
        if access == DiskAccess::ReadWrite && kind == FileKind::File && end < capacity {
            // So that there are only whole sectors from now on.
            file.set_len(capacity).map_err(DiskError::host("enlarge", path))?;
            end = capacity;
        }
        let direct = match cache {
            HostCache::PageCache => None,
            HostCache::Direct => Some(
                sys::direct_alignment(&file)
                    .map_err(|_| DiskError::unsupported(path, "can't be used without a cache"))?,
            ),
        };
        if let Some(align) = direct.filter(|align| align.offset as u64 > SECTOR) {
            let what = format!("can only be used without a cache in units of {}", align.offset);
            return Err(DiskError::unsupported(path, what));
        }
        let info = BlockInfo {
            capacity,
            read_only: access == DiskAccess::ReadOnly,
            block_size: direct.map_or(512, |align| align.offset.max(512) as u32),
            discard: access == DiskAccess::ReadWrite,
        };
        Ok(Self { file, info, end, direct, asks_cache: AtomicBool::new(true) })
    }
}
