//! A file that gets its name when it is complete.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::DiskError;

/// A new file under a temporary name in the folder where it is to be. Unless it is kept, it is
/// removed.
pub(super) struct Temporary {
    path: PathBuf,
    target: PathBuf,
    kept: bool,
}

impl Temporary {
    /// Creates the file.
    ///
    /// # Errors
    /// The target exists already, or the host refuses.
    pub(super) fn new(target: &Path) -> Result<(Self, File), DiskError> {
        if target.symlink_metadata().is_ok() {
            return Err(DiskError::Exists { path: target.to_owned() });
        }
        let Some(name) = target.file_name() else {
            return Err(DiskError::NoImage { path: target.to_owned(), found: "a folder" });
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.part", std::process::id()));
        let path = target.with_file_name(hidden);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(DiskError::host("create", target))?;
        Ok((Self { path, target: target.to_owned(), kept: false }, file))
    }

    /// Where it is until it is kept.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the complete file its name.
    ///
    /// # Errors
    /// Somebody was quicker and there is a file of that name, or the host refuses.
    pub(super) fn keep(mut self, file: &File) -> Result<(), DiskError> {
        let target = self.target.clone();
        file.sync_all().map_err(DiskError::host("write", &target))?;
        rename_new(&self.path, &target).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => DiskError::Exists { path: target.clone() },
            _ => DiskError::host("create", &target)(error),
        })?;
        self.kept = true;
        // The name is in the folder, which is to be as durable as the file. Not every file system
        // can do that.
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
        let _unsynced =
            File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            let _gone = std::fs::remove_file(&self.path);
        }
    }
}

/// Renames, but never over a file that is there.
#[cfg(target_os = "linux")]
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // The file system doesn't know how.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => link(from, to),
        other => Ok(other?),
    }
}

#[cfg(not(target_os = "linux"))]
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    link(from, to)
}

fn link(from: &Path, to: &Path) -> io::Result<()> {
    if to.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    std::fs::rename(from, to)
}
