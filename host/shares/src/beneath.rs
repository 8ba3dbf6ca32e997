//! Files beneath a folder. Every way in goes through [`Beneath::folder`]: nothing here takes a path
//! that could lead out, and what is done is done to one name in an open directory.

use std::fs::File;
use std::path::Path;

use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// Through no symbolic link (whose target is the guest's to follow) and never out.
const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_SYMLINKS);
/// Tries, when something is renamed on the way.
const TRIES: u32 = 16;

/// The folder.
pub(crate) struct Beneath {
    root: OwnedFd,
}

/// A name in an open directory.
pub(crate) struct Place {
    pub(crate) folder: OwnedFd,
    pub(crate) name: Vec<u8>,
}

fn open_beneath(
    from: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    for _ in 0..TRIES {
        match fs::openat2(from, path, flags, mode, RESOLVE) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::BUSY)
}

/// The type of what attributes tell of.
pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

impl Beneath {
    /// Opens the folder.
    pub(crate) fn open(folder: &Path) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { root: fs::open(folder, flags, Mode::empty())? })
    }

    /// Opens a directory, to do something in it. The empty path is the folder itself.
    pub(crate) fn folder(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        open_beneath(rustix::fd::AsFd::as_fd(&self.root), path, flags, Mode::empty())
    }

    /// Opens a directory to list it.
    pub(crate) fn list(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        open_beneath(rustix::fd::AsFd::as_fd(&self.root), path, flags, Mode::empty())
    }

    /// Attributes of the folder itself.
    pub(crate) fn stat_root(&self) -> Result<Stat, Errno> {
        fs::fstat(&self.root)
    }

    /// Room on its file system.
    pub(crate) fn statvfs(&self) -> Result<fs::StatVfs, Errno> {
        fs::fstatvfs(&self.root)
    }
}

impl Place {
    /// Attributes of the name, of a link itself.
    pub(crate) fn stat(&self) -> Result<Stat, Errno> {
        fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Opens a regular file. What else there may be is not even touched, as far as it was there
    /// already; it is looked at again after opening, which neither waits nor takes a terminal.
    pub(crate) fn open(&self, flags: OFlags) -> Result<File, Errno> {
        if kind(&self.stat()?) != FileType::RegularFile {
            return Err(Errno::ACCESS);
        }
        self.open_checked(flags, Mode::empty())
    }

    /// Makes a regular file, or opens it if `flags` allow that.
    pub(crate) fn create(&self, flags: OFlags, mode: Mode) -> Result<File, Errno> {
        match self.stat() {
            Ok(stat) if kind(&stat) != FileType::RegularFile => return Err(Errno::EXIST),
            Ok(_) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        self.open_checked(flags | OFlags::CREATE, mode)
    }

    fn open_checked(&self, flags: OFlags, mode: Mode) -> Result<File, Errno> {
        let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = open_beneath(rustix::fd::AsFd::as_fd(&self.folder), &self.name, flags, mode)?;
        if kind(&fs::fstat(&fd)?) != FileType::RegularFile {
            return Err(Errno::ACCESS);
        }
        Ok(File::from(fd))
    }

    /// Changes the mode of what the name is, if it is no link. There is no system call before
    /// Linux 6.6 that changes a mode and doesn't follow, so it goes by a descriptor that is
    /// looked at first.
    pub(crate) fn chmod(&self, mode: Mode) -> Result<(), Errno> {
        let folder = rustix::fd::AsFd::as_fd(&self.folder);
        let fd = open_beneath(folder, &self.name, OFlags::PATH, Mode::empty())?;
        if kind(&fs::fstat(&fd)?) == FileType::Symlink {
            return Err(Errno::OPNOTSUPP);
        }
        fs::chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), mode)
    }
}
