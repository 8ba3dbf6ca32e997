//! Which files a process goes on to need.

use std::path::{Path, PathBuf};

/// What may be done with a file, or with all that is beneath a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Read files and list folders.
    Read,
    /// Read and write what is there, devices too; nothing is made or removed.
    Write,
    /// Make, connect and remove sockets, and folders of sockets.
    Sockets,
    /// Everything but running programs.
    All,
}

/// Files and folders with what may be done with them. Those that aren't there are left out: what
/// needs them will say that.
#[derive(Clone, Debug, Default)]
pub struct FileAccess {
    list: Vec<(PathBuf, Right)>,
}

impl FileAccess {
    /// Adds `path`, and what is beneath it if it is a folder.
    pub fn add(&mut self, path: impl AsRef<Path>, right: Right) {
        self.list.push((path.as_ref().to_owned(), right));
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, Right)> {
        self.list.iter().map(|(path, right)| (path.as_path(), *right))
    }
}
