//! New images.

use std::fs::File;
use std::path::{Path, PathBuf};

use imago::FormatCreateBuilder;
use imago::qcow2::Qcow2;

use super::temporary::Temporary;
use super::{check_size, info};
use crate::error::DiskError;
use crate::options::DiskFormat;
use crate::qcow2::ImageFile;

/// What a new image is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewImage {
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: DiskFormat,
    /// The disk's size in bytes, a multiple of 512; that of the backing file if nothing is said.
    pub size: Option<u64>,
    /// The image below it: what isn't written to the new one is read from there.
    pub backing: Option<Backing>,
}

/// The image below another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backing {
    /// The file, as the person named it.
    pub path: PathBuf,
    /// Its format; without it, what its name stands for.
    pub format: Option<DiskFormat>,
}

/// Creates an image. It takes next to no space until it is written to.
///
/// # Errors
/// The file exists; the size is none; the backing file can't be used, or the format has none.
pub fn create(new: &NewImage) -> Result<(), DiskError> {
    let path = new.path.as_path();
    if new.backing.is_some() && new.format == DiskFormat::Raw {
        let what = "is raw and would have a backing file";
        return Err(DiskError::unsupported(path, what));
    }
    let below = new.backing.as_ref().map(|backing| below(path, backing)).transpose()?;
    let size = new.size.or(below.as_ref().map(|below| below.size)).unwrap_or_default();
    check_size(size)?;
    let (temporary, file) = Temporary::new(path)?;
    match new.format {
        DiskFormat::Raw => file.set_len(size).map_err(DiskError::host("create", path))?,
        DiskFormat::Qcow2 => format_qcow2(&file, temporary.path(), size, below.as_ref())
            .map_err(DiskError::host("create", path))?,
    }
    temporary.keep(&file)
}

/// A checked backing file.
struct Below {
    /// As it will stand in the new image.
    name: String,
    format: DiskFormat,
    size: u64,
}

fn below(image: &Path, backing: &Backing) -> Result<Below, DiskError> {
    let info = info(&backing.path, backing.format)?;
    let name = name_from(image, &backing.path)?;
    let name = name.to_str().map(str::to_owned);
    let name = name.filter(|name| name.len() <= 1023).ok_or_else(|| {
        DiskError::unsupported(&backing.path, "has a name that an image can't say")
    })?;
    Ok(Below { name, format: info.format, size: info.size.next_multiple_of(512) })
}

/// The name by which an image finds its backing file. It is looked for from the image's folder:
/// so a file in the same folder is named alone, and both can be moved together; others are named
/// in full.
fn name_from(image: &Path, backing: &Path) -> Result<PathBuf, DiskError> {
    let full = backing.canonicalize().map_err(DiskError::host("find", backing))?;
    let folder = image.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).canonicalize();
    let folder = folder.map_err(DiskError::host("find the folder of", image))?;
    match (full.parent(), full.file_name()) {
        (Some(parent), Some(name)) if parent == folder => Ok(name.into()),
        _ => Ok(full),
    }
}

fn format_qcow2(file: &File, path: &Path, size: u64, below: Option<&Below>) -> std::io::Result<()> {
    let storage = ImageFile::new(file.try_clone()?, path);
    let mut builder = Qcow2::<ImageFile>::create_builder(storage).size(size);
    if let Some(below) = below {
        builder = builder.backing(below.name.clone(), below.format.to_string());
    }
    builder.create()
}

/// A new qcow2 image of `size` bytes in an empty file.
///
/// # Errors
/// The host refuses.
pub(super) fn format_plain(file: &File, path: &Path, size: u64) -> std::io::Result<()> {
    format_qcow2(file, path, size, None)
}
