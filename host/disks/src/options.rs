//! How a disk is to be opened.

use std::fmt;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The form of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFormat {
    /// The disk's bytes as they are, in a file or a block device.
    Raw,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
}

impl DiskFormat {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Raw, Self::Qcow2];

    /// What a file's name stands for: qcow2 if it ends in `.qcow2`, else raw.
    #[must_use]
    pub fn named_by(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some(word) if word.eq_ignore_ascii_case("qcow2") => Self::Qcow2,
            Some(_) | None => Self::Raw,
        }
    }

    /// Its name on command lines, in definitions and in other images' headers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

impl fmt::Display for DiskFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no format of disk images: raw or qcow2")]
pub struct UnknownFormat(String);

impl FromStr for DiskFormat {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|format| format.as_str() == text);
        found.ok_or_else(|| UnknownFormat(text.to_owned()))
    }
}

/// What is done with an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskAccess {
    /// It is read and written; nobody else may have it open.
    #[default]
    ReadWrite,
    /// It is read; others may read it, too, but not write.
    ReadOnly,
}

/// Whether the host caches a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostCache {
    /// By its page cache. What the guest flushes is on the disk all the same.
    #[default]
    PageCache,
    /// Not at all (`O_DIRECT`). Raw images only.
    Direct,
}

/// How requests wait for slow storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Waiting {
    /// As the host does it best: raw images by `io_uring` where the kernel has it.
    #[default]
    Auto,
    /// On threads.
    Threads,
}

/// How much a disk may do in a second; `None` is as much as it can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskLimits {
    /// Bytes read and written.
    pub bytes_per_second: Option<NonZeroU64>,
    /// Requests.
    pub operations_per_second: Option<NonZeroU64>,
}

/// An image and how to open it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskOptions {
    /// The file.
    pub path: PathBuf,
    /// Its format. Without it the name decides: `.qcow2` is qcow2, everything else is raw, and
    /// contents that don't fit the name are an error. Contents alone never decide: a guest writes
    /// what it likes into a raw disk, and a qcow2 header there would name other files of the host
    /// the next time.
    pub format: Option<DiskFormat>,
    /// Reading, or writing too.
    pub access: DiskAccess,
    /// The host's cache.
    pub cache: HostCache,
    /// What it may do in a second.
    pub limits: DiskLimits,
    /// How requests wait.
    pub waiting: Waiting,
}

impl DiskOptions {
    /// An image to be read and written, with nothing else said.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }
}
