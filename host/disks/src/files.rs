//! Which files a disk is made of.

use std::path::PathBuf;

use crate::error::DiskError;
use crate::options::{DiskFormat, DiskOptions};
use crate::{format, qcow2, raw};

/// The files of a disk, the image itself first, then what lies below it. Each is opened and locked
/// for a moment, so that one that is in use or isn't there is an error now.
///
/// # Errors
/// See [`DiskError`].
pub fn files(options: &DiskOptions) -> Result<Vec<PathBuf>, DiskError> {
    let path = &options.path;
    match format::of(path, options.format)? {
        DiskFormat::Qcow2 => qcow2::files(path, options.access),
        DiskFormat::Raw => {
            raw::open_file(path, options.access, options.cache)?;
            Ok(vec![path.clone()])
        }
    }
}
