//! Opening a qcow2 image with what lies below it.
//!
//! An image names its backing file, that one may name another, and an image from somebody else may
//! name what it likes. So each is opened here, read-only, locked and checked like the first, and
//! `imago` opens nothing by itself.

use std::fs::File;
use std::path::{Path, PathBuf};

use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder};

use super::check::check;
use super::header::Header;
use super::storage::ImageFile;
use crate::error::DiskError;
use crate::format;
use crate::options::{DiskAccess, DiskFormat, HostCache};
use crate::raw::open_file;

/// Backing files below an image at most.
const DEPTH_MAX: usize = 64;

/// An image with everything below it.
pub(crate) type Opened = FormatAccess<ImageFile>;

/// Opens a qcow2 image and its backing files.
///
/// # Errors
/// See [`DiskError`]; nothing was written to any of them.
pub(crate) fn open(path: &Path, access: DiskAccess) -> Result<(Opened, Header), DiskError> {
    let mut seen = Vec::new();
    note(path, &mut seen)?;
    let file = open_file(path, access, HostCache::PageCache)?;
    open_image(file, path, access, &mut seen)
}

/// The files of a qcow2 image: its own and its backing files'. Each is opened and locked for a
/// moment, so that one that is in use or isn't there is an error now.
///
/// # Errors
/// See [`DiskError`].
pub(crate) fn files(path: &Path, access: DiskAccess) -> Result<Vec<PathBuf>, DiskError> {
    let (mut seen, mut list) = (Vec::new(), Vec::new());
    let mut next = Some((path.to_owned(), Some(DiskFormat::Qcow2), access));
    while let Some((path, format, access)) = next.take() {
        note(&path, &mut seen)?;
        let format = if list.is_empty() { DiskFormat::Qcow2 } else { format::of(&path, format)? };
        let file = open_file(&path, access, HostCache::PageCache)?;
        if format == DiskFormat::Qcow2 {
            let backing = Header::read(&file, &path)?.backing_file(&path)?;
            next = backing.map(|(path, format)| (path, format, DiskAccess::ReadOnly));
        }
        list.push(path);
    }
    Ok(list)
}

/// What tells two files apart.
type Identity = (u64, u64);

#[cfg(unix)]
fn identity(path: &Path) -> Result<Identity, DiskError> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).map_err(DiskError::host("open", path))?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(path: &Path) -> Result<Identity, DiskError> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    path.canonicalize().map_err(DiskError::host("look at", path))?.hash(&mut hasher);
    Ok((0, hasher.finish()))
}

/// A file comes up in a chain. It is not open yet: the first one may be locked against the second.
fn note(path: &Path, seen: &mut Vec<Identity>) -> Result<(), DiskError> {
    let this = identity(path)?;
    let what = if seen.contains(&this) {
        "lead back to itself".to_owned()
    } else if seen.len() > DEPTH_MAX {
        format!("are more than {DEPTH_MAX}")
    } else {
        seen.push(this);
        return Ok(());
    };
    Err(DiskError::BackingChain { path: path.to_owned(), what })
}

fn open_image(
    file: File,
    path: &Path,
    access: DiskAccess,
    seen: &mut Vec<Identity>,
) -> Result<(Opened, Header), DiskError> {
    let header = Header::read(&file, path)?;
    if header.dirty {
        return Err(DiskError::damaged(path, "it was not closed, and its counts may be wrong"));
    }
    let report = check(&file, path, &header)?;
    if !report.is_sound() {
        let first = report.messages.into_iter().next().unwrap_or_default();
        return Err(DiskError::damaged(path, first));
    }
    let backing = match header.backing_file(path)? {
        None => None,
        Some((path, format)) => Some(open_backing(&path, format, seen)?),
    };
    let storage = match access {
        DiskAccess::ReadWrite => {
            ImageFile::ordered(file, path, &header).map_err(DiskError::host("read", path))?
        }
        DiskAccess::ReadOnly => ImageFile::new(file, path),
    };
    let image = Qcow2::<ImageFile>::builder(storage)
        .backing(backing)
        .data_file(None)
        .write(access == DiskAccess::ReadWrite)
        .open(DenyImplicitOpenGate::default())
        .map_err(|error| DiskError::damaged(path, error.to_string()))?;
    Ok((FormatAccess::new(image), header))
}

fn open_backing(
    path: &Path,
    said: Option<DiskFormat>,
    seen: &mut Vec<Identity>,
) -> Result<Opened, DiskError> {
    note(path, seen)?;
    let format = format::of(path, said)?;
    let file = open_file(path, DiskAccess::ReadOnly, HostCache::PageCache)?;
    match format {
        DiskFormat::Qcow2 => Ok(open_image(file, path, DiskAccess::ReadOnly, seen)?.0),
        DiskFormat::Raw => {
            let raw = Raw::builder(ImageFile::new(file, path))
                .open(DenyImplicitOpenGate::default())
                .map_err(DiskError::host("open", path))?;
            Ok(FormatAccess::new(raw))
        }
    }
}
