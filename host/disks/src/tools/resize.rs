//! Images of another size.

use std::io::{Seek, SeekFrom};
use std::path::Path;

use imago::format::PreallocateMode;

use super::check_size;
use crate::error::DiskError;
use crate::format;
use crate::options::{DiskAccess, DiskFormat, HostCache};
use crate::qcow2;
use crate::raw::{FileKind, kind_of, open_file};

/// Whether an image may become smaller, which loses what is behind its new end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shrinking {
    /// It may.
    Allowed,
    /// It is an error.
    Refused,
}

/// Gives an image another size, in bytes. New space reads as zeros.
///
/// # Errors
/// It is in use or damaged, or would become smaller and may not.
pub fn resize(
    path: &Path,
    format: Option<DiskFormat>,
    size: u64,
    shrinking: Shrinking,
) -> Result<(), DiskError> {
    check_size(size)?;
    let refuse = |from: u64| match shrinking {
        Shrinking::Refused if size < from => {
            Err(DiskError::Shrink { path: path.to_owned(), from, to: size })
        }
        Shrinking::Refused | Shrinking::Allowed => Ok(()),
    };
    match format::of(path, format)? {
        DiskFormat::Raw => {
            let mut file = open_file(path, DiskAccess::ReadWrite, HostCache::PageCache)?;
            if kind_of(&file, path)? == FileKind::BlockDevice {
                return Err(DiskError::unsupported(path, "is a block device of a fixed size"));
            }
            refuse(file.seek(SeekFrom::End(0)).map_err(DiskError::host("measure", path))?)?;
            file.set_len(size)
                .and_then(|()| file.sync_all())
                .map_err(DiskError::host("resize", path))
        }
        DiskFormat::Qcow2 => {
            let (mut image, header) = qcow2::open(path, DiskAccess::ReadWrite)?;
            refuse(header.size)?;
            image
                .resize(size, PreallocateMode::None)
                .and_then(|()| image.flush())
                .and_then(|()| image.sync())
                .map_err(DiskError::host("resize", path))
        }
    }
}
