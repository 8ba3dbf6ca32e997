//! Making, describing, converting, resizing and checking images.
//!
//! A new image is written under a temporary name beside its own and renamed when it is complete
//! and durable, so whoever is interrupted leaves nothing half done behind.

mod convert;
mod create;
mod info;
mod resize;
mod temporary;

use std::path::Path;

use crate::error::DiskError;
use crate::format;
use crate::options::{DiskAccess, DiskFormat, HostCache};
use crate::qcow2::{self, Header};
use crate::raw::open_file;

pub use crate::qcow2::CheckReport;
pub use convert::{Conversion, convert};
pub use create::{Backing, NewImage, create};
pub use info::{BackingFile, ImageInfo, info};
pub use resize::{Shrinking, resize};

/// What who watches a long task wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// It goes on.
    On,
    /// It ends, and leaves nothing behind.
    Stop,
}

/// Hears how far a task is: bytes that are done, and all of them.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> Go;

/// Checks an image's tables, without changing anything. A raw image has none and is always sound.
///
/// # Errors
/// It can't be read, is in use by who writes to it, or is so damaged that there is nothing to
/// check. Other damage is in the report.
pub fn check(path: &Path, format: Option<DiskFormat>) -> Result<CheckReport, DiskError> {
    let format = format::of(path, format)?;
    let file = open_file(path, DiskAccess::ReadOnly, HostCache::PageCache)?;
    match format {
        DiskFormat::Raw => Ok(CheckReport::default()),
        DiskFormat::Qcow2 => qcow2::check(&file, path, &Header::read(&file, path)?),
    }
}

/// Whether a disk can have this size.
///
/// # Errors
/// Zero, no multiple of 512, or more than a file can have.
fn check_size(bytes: u64) -> Result<(), DiskError> {
    let why = match bytes {
        0 => "has no room for anything",
        _ if !bytes.is_multiple_of(512) => "is no whole number of sectors of 512 bytes",
        _ if i64::try_from(bytes).is_err() => "is too large",
        _ => return Ok(()),
    };
    Err(DiskError::Size { bytes, why })
}
