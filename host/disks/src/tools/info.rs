//! What an image is.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::DiskError;
use crate::format;
use crate::options::DiskFormat;
use crate::qcow2::Header;

/// What an image says about itself. It may be in use meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// The format.
    pub format: DiskFormat,
    /// The disk's size in bytes.
    pub size: u64,
    /// Bytes that the file takes where it is stored.
    pub stored: u64,
    /// qcow2: bytes of a cluster.
    pub cluster: Option<u64>,
    /// qcow2: internal snapshots.
    pub snapshots: u32,
    /// qcow2: it was not closed.
    pub dirty: bool,
    /// qcow2: the image below it.
    pub backing: Option<BackingFile>,
}

/// The image below another, as that one names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackingFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its format, if it is said.
    pub format: Option<DiskFormat>,
}

/// Reads what an image is.
///
/// # Errors
/// It can't be read, or is no image.
pub fn info(path: &Path, format: Option<DiskFormat>) -> Result<ImageInfo, DiskError> {
    let format = format::of(path, format)?;
    let mut file = File::open(path).map_err(DiskError::host("open", path))?;
    crate::raw::kind_of(&file, path)?;
    let stored = stored(&file, path)?;
    match format {
        DiskFormat::Raw => {
            let size = file.seek(SeekFrom::End(0)).map_err(DiskError::host("measure", path))?;
            let (cluster, backing) = (None, None);
            Ok(ImageInfo { format, size, stored, cluster, snapshots: 0, dirty: false, backing })
        }
        DiskFormat::Qcow2 => {
            let header = Header::read(&file, path)?;
            let backing = header.backing_file(path)?;
            Ok(ImageInfo {
                format,
                size: header.size,
                stored,
                cluster: Some(header.cluster()),
                snapshots: header.snapshots,
                dirty: header.dirty,
                backing: backing.map(|(path, format)| BackingFile { path, format }),
            })
        }
    }
}

#[cfg(unix)]
fn stored(file: &File, path: &Path) -> Result<u64, DiskError> {
    use std::os::unix::fs::MetadataExt;
    let metadata = file.metadata().map_err(DiskError::host("measure", path))?;
    Ok(metadata.blocks().saturating_mul(512))
}

#[cfg(not(unix))]
fn stored(file: &File, path: &Path) -> Result<u64, DiskError> {
    Ok(file.metadata().map_err(DiskError::host("measure", path))?.len())
}
