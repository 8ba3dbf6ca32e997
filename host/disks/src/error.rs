//! What can be wrong with an image.

use std::io;
use std::path::{Path, PathBuf};

use crate::lock::Holder;
use crate::options::DiskFormat;

/// An image that could not be used, and what to do about it ([`DiskError::remedy`]).
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The host refused something.
    #[error("can't {what} `{}`", path.display())]
    Host {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The host's reason.
        source: io::Error,
    },
    /// Somebody else has the image.
    #[error("the disk image `{}` is in use by {holder}", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
        /// Who.
        holder: Holder,
    },
    /// It is neither a file nor a block device.
    #[error("`{}` is {found}, and no disk image", path.display())]
    NoImage {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// It begins like a qcow2 image, and nobody said that it is one.
    #[error("`{}` begins like a qcow2 image, but isn't named so", path.display())]
    LooksLikeQcow2 {
        /// The file.
        path: PathBuf,
    },
    /// It doesn't begin like an image of its format.
    #[error("`{}` is no {format} image", path.display())]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// The format that was said or that it is named for.
        format: DiskFormat,
    },
    /// What it says about itself is wrong.
    #[error("the disk image `{}` is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first thing that is wrong.
        why: String,
    },
    /// It is sound, but needs what this program doesn't have.
    #[error("the disk image `{}` {what}, which is not supported", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it needs or has.
        what: String,
    },
    /// A chain of backing files that leads back to itself, or is too long.
    #[error("the backing files of `{}` {what}", path.display())]
    BackingChain {
        /// The image at which it was found.
        path: PathBuf,
        /// A loop, or the length.
        what: String,
    },
    /// A file that would be overwritten.
    #[error("`{}` exists already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A size that an image can't have.
    #[error("a disk of {bytes} bytes {why}")]
    Size {
        /// What was asked for, in bytes.
        bytes: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Making an image smaller loses data, and nobody said that it may be lost.
    #[error("`{}` has {from} bytes; {to} are less, and what is behind them would be lost", path.display())]
    Shrink {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        from: u64,
        /// What was asked for, in bytes.
        to: u64,
    },
    /// Somebody asked to stop. Nothing was left behind.
    #[error("stopped")]
    Stopped,
}

impl DiskError {
    pub(crate) fn host(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Host { what, path, source }
    }

    pub(crate) fn damaged(path: &Path, why: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), why: why.into() }
    }

    pub(crate) fn unsupported(path: &Path, what: impl Into<String>) -> Self {
        Self::Unsupported { path: path.to_owned(), what: what.into() }
    }

    /// One action that may help.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Host { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => {
                    "check the name; `kasane disk create` makes a new image".into()
                }
                io::ErrorKind::PermissionDenied => {
                    "get the right to the file, or use the image read-only".into()
                }
                io::ErrorKind::ReadOnlyFilesystem => "use the image read-only".into(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "make room where the image is stored".into()
                }
                _ => "check where the image is stored".into(),
            },
            Self::InUse { .. } => "end that program first; several may use an image only if all \
                                   of them open it read-only"
                .into(),
            Self::NoImage { .. } => "name a file or a block device".into(),
            Self::LooksLikeQcow2 { .. } => "say which it is: format qcow2, or raw".into(),
            Self::OtherFormat { .. } => "say the right format, or name another file".into(),
            Self::Damaged { path, .. } => format!(
                "nothing was written to it; copy it, then try `qemu-img check -r all {}`",
                path.display()
            ),
            Self::Unsupported { path, .. } => {
                format!("convert it: `qemu-img convert -O qcow2 {} NEW.qcow2`", path.display())
            }
            Self::BackingChain { .. } => {
                "give the image another backing file with `qemu-img rebase -u`".into()
            }
            Self::Exists { .. } => "name a file that isn't there yet, or remove it first".into(),
            Self::Size { .. } => "choose another size".into(),
            Self::Shrink { .. } => "say `--shrink` if it may be lost".into(),
            Self::Stopped => "start it again".into(),
        }
    }

    /// Whether the host refused (a full disk, a failing one), rather than what was asked for being
    /// wrong.
    #[must_use]
    pub fn is_of_the_host(&self) -> bool {
        match self {
            Self::Host { source, .. } => !matches!(
                source.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::ReadOnlyFilesystem
            ),
            Self::InUse { .. }
            | Self::NoImage { .. }
            | Self::LooksLikeQcow2 { .. }
            | Self::OtherFormat { .. }
            | Self::Damaged { .. }
            | Self::Unsupported { .. }
            | Self::BackingChain { .. }
            | Self::Exists { .. }
            | Self::Size { .. }
            | Self::Shrink { .. }
            | Self::Stopped => false,
        }
    }
}
