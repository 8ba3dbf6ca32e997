//! What the guest has open.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// The most that a guest can have open, where the process may have more.
const OPEN_MAX: u64 = 4096;

/// An open file or directory.
pub(super) enum Open {
    File {
        file: File,
        node: u64,
    },
    Folder {
        /// Its position is shared, so one thread at a time lists.
        list: Mutex<OwnedFd>,
        node: u64,
    },
}

impl Open {
    pub(super) fn node(&self) -> u64 {
        match self {
            Self::File { node, .. } | Self::Folder { node, .. } => *node,
        }
    }
    pub(super) fn file(&self) -> Result<&File, Errno> {
        match self {
            Self::File { file, .. } => Ok(file),
            Self::Folder { .. } => Err(Errno::ISDIR),
        }
    }
}

/// All that is open, by the numbers that the guest has for it.
pub(super) struct OpenFiles {
    open: HashMap<u64, Arc<Open>>,
    last: u64,
    max: usize,
}

impl OpenFiles {
    /// Nothing is open. At most half of what the process may have open will be, with numbers
    /// behind `last`.
    pub(super) fn new(last: u64) -> Self {
        let process = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Self { open: HashMap::new(), last, max: (process / 2).min(OPEN_MAX) as usize }
    }

    /// Closes all; their numbers don't come again. It opens nothing and asks for no limits: a vCPU's thread may not.
    pub(super) fn clear(&mut self) {
        self.open.clear();
    }

    /// Whether there may be one more.
    pub(super) fn has_room(&self) -> Result<(), Errno> {
        if self.open.len() < self.max { Ok(()) } else { Err(Errno::NFILE) }
    }

    pub(super) fn add(&mut self, open: Open) -> Result<u64, Errno> {
        self.has_room()?;
        self.last = self.last.wrapping_add(1);
        self.open.insert(self.last, Arc::new(open));
        Ok(self.last)
    }

    pub(super) fn get(&self, number: u64) -> Result<Arc<Open>, Errno> {
        self.open.get(&number).cloned().ok_or(Errno::STALE)
    }

    pub(super) fn remove(&mut self, number: u64) -> Result<Arc<Open>, Errno> {
        self.open.remove(&number).ok_or(Errno::STALE)
    }
}
