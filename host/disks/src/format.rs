//! Which format an image has.

use std::fs::File;
use std::path::Path;

use crate::error::DiskError;
use crate::options::DiskFormat;
use crate::sys;

/// How every qcow2 image begins.
pub(crate) const QCOW2_MAGIC: [u8; 4] = *b"QFI\xfb";

/// The format of an image: what was said, or else what its name stands for if its first bytes
/// agree (see [`DiskOptions::format`](crate::DiskOptions::format) for why they don't decide).
///
/// # Errors
/// It can't be read, or they don't agree.
pub(crate) fn of(path: &Path, said: Option<DiskFormat>) -> Result<DiskFormat, DiskError> {
    if said == Some(DiskFormat::Raw) {
        return Ok(DiskFormat::Raw);
    }
    // A folder or a FIFO is for whoever opens it to complain about.
    if !std::fs::metadata(path).map_err(DiskError::host("open", path))?.is_file() {
        return Ok(said.unwrap_or_else(|| DiskFormat::named_by(path)));
    }
    let begins_so = begins_like_qcow2(path)?;
    match (said.unwrap_or_else(|| DiskFormat::named_by(path)), begins_so) {
        (DiskFormat::Raw, true) => Err(DiskError::LooksLikeQcow2 { path: path.to_owned() }),
        (format @ DiskFormat::Qcow2, false) => {
            Err(DiskError::OtherFormat { path: path.to_owned(), format })
        }
        (format, _) => Ok(format),
    }
}

fn begins_like_qcow2(path: &Path) -> Result<bool, DiskError> {
    let mut magic = [0; 4];
    let file = File::open(path).map_err(DiskError::host("open", path))?;
    sys::read_at(&file, &mut magic, 0).map_err(DiskError::host("read", path))?;
    Ok(magic == QCOW2_MAGIC)
}
