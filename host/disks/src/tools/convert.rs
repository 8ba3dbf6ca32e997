//! An image in another format.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, Mapping};

use super::create::format_plain;
use super::temporary::Temporary;
use super::{Go, Progress, check_size};
use crate::error::DiskError;
use crate::format;
use crate::options::{DiskAccess, DiskFormat, HostCache};
use crate::qcow2::{self, ImageFile};
use crate::raw::open_file;

/// Bytes that are copied at once.
const CHUNK: u64 = 1 << 20;
/// Zeros are left out in units of so many bytes.
const UNIT: usize = 1 << 16;

/// What is to become of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversion {
    /// The image. It is read with its backing files, and not changed.
    pub from: PathBuf,
    /// Its format; without it, what its name stands for.
    pub from_format: Option<DiskFormat>,
    /// The new image, which has no backing file.
    pub to: PathBuf,
    /// Its format.
    pub to_format: DiskFormat,
}

/// Copies an image's data into a new one of another format. What is zero takes no space there.
///
/// # Errors
/// The image is in use by who writes to it, or is damaged; the new file exists; the host refuses;
/// or it was stopped. Then there is no new file.
pub fn convert(conversion: &Conversion, progress: Progress<'_>) -> Result<(), DiskError> {
    let (from, to) = (conversion.from.as_path(), conversion.to.as_path());
    let source = open_source(from, conversion.from_format)?;
    let size = source.size();
    check_size(size.next_multiple_of(512))?;
    let (temporary, file) = Temporary::new(to)?;
    let target = Target::new(&file, temporary.path(), conversion.to_format, size)
        .map_err(DiskError::host("create", to))?;
    let mut buffer = vec![0; CHUNK as usize];
    let mut done = 0u64;
    while done < size {
        if progress(done, size) == Go::Stop {
            return Err(DiskError::Stopped);
        }
        let left = size.saturating_sub(done);
        let (mapping, len) =
            source.get_mapping(done, left).map_err(DiskError::host("read", from))?;
        let skipped = match mapping {
            Mapping::Zero { .. } | Mapping::Eof { .. } => len.clamp(1, left),
            Mapping::Raw { storage, offset, .. } => hole(storage.file(), offset).min(len),
            _ => 0,
        };
        let copied = if skipped == 0 { len.min(CHUNK) } else { 0 };
        let data = buffer.get_mut(..copied as usize).unwrap_or_default();
        source.read(&mut *data, done).map_err(DiskError::host("read", from))?;
        target.write(data, done).map_err(DiskError::host("write", to))?;
        done = done.saturating_add(skipped).saturating_add(copied);
    }
    progress(size, size);
    target.finish().map_err(DiskError::host("write", to))?;
    temporary.keep(&file)
}

type Source = FormatAccess<ImageFile>;

fn open_source(path: &Path, said: Option<DiskFormat>) -> Result<Source, DiskError> {
    match format::of(path, said)? {
        DiskFormat::Qcow2 => Ok(qcow2::open(path, DiskAccess::ReadOnly)?.0),
        DiskFormat::Raw => {
            let mut file = open_file(path, DiskAccess::ReadOnly, HostCache::PageCache)?;
            file.seek(SeekFrom::Start(0)).map_err(DiskError::host("read", path))?;
            let raw = Raw::builder(ImageFile::new(file, path))
                .open(DenyImplicitOpenGate::default())
                .map_err(DiskError::host("open", path))?;
            Ok(FormatAccess::new(raw))
        }
    }
}

/// How long the hole of a file is that `offset` lies in; 0 if there is data, or the host doesn't
/// say.
#[cfg(target_os = "linux")]
fn hole(file: &File, offset: u64) -> u64 {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)) {
        Ok(data) => data.saturating_sub(offset),
        // There is no data behind `offset`.
        Err(rustix::io::Errno::NXIO) => u64::MAX,
        Err(_) => 0,
    }
}

#[cfg(not(target_os = "linux"))]
fn hole(_file: &File, _offset: u64) -> u64 {
    0
}

/// Where the data goes.
enum Target {
    Raw(File),
    Qcow2(Box<FormatAccess<ImageFile>>),
}

impl Target {
    fn new(file: &File, path: &Path, format: DiskFormat, size: u64) -> std::io::Result<Self> {
        let size = size.next_multiple_of(512);
        let own = file.try_clone()?;
        match format {
            DiskFormat::Raw => {
                own.set_len(size)?;
                Ok(Self::Raw(own))
            }
            DiskFormat::Qcow2 => {
                format_plain(file, path, size)?;
                let image = Qcow2::<ImageFile>::builder(ImageFile::new(own, path))
                    .backing(None)
                    .data_file(None)
                    .write(true)
                    .open(DenyImplicitOpenGate::default())?;
                Ok(Self::Qcow2(Box::new(FormatAccess::new(image))))
            }
        }
    }

    /// Writes what isn't zero.
    fn write(&self, data: &[u8], offset: u64) -> std::io::Result<()> {
        let mut at = offset;
        for unit in data.chunks(UNIT) {
            if unit.iter().any(|byte| *byte != 0) {
                match self {
                    Self::Raw(file) => crate::sys::write_at(file, unit, at)?,
                    Self::Qcow2(image) => image.write(unit, at)?,
                }
            }
            at = at.saturating_add(unit.len() as u64);
        }
        Ok(())
    }

    fn finish(self) -> std::io::Result<()> {
        match self {
            Self::Raw(_) => Ok(()),
            Self::Qcow2(image) => image.flush(),
        }
    }
}
