//! The files that the loader put into memory: definitions, kernels, initial RAM disks.

use alloc::string::String;
use alloc::vec::Vec;

/// Files by their names, which have no folders.
#[derive(Clone, Debug, Default)]
pub struct Files {
    files: Vec<(String, &'static [u8])>,
}

impl Files {
    /// Adds a file; one of the same name that is there stays.
    pub fn add(&mut self, name: &str, data: &'static [u8]) {
        self.files.push((name.into(), data));
    }

    /// The content of the file that a definition names; folders in front don't count.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&'static [u8]> {
        let wanted = path.rsplit('/').next().unwrap_or(path);
        self.files.iter().find(|(name, _)| name == wanted).map(|(_, data)| *data)
    }

    /// The definitions: the files whose names end with `.toml`.
    pub fn definitions(&self) -> impl Iterator<Item = (&str, &'static [u8])> {
        let definitions = self.files.iter().filter(|(name, _)| name.ends_with(".toml"));
        definitions.map(|(name, data)| (name.as_str(), *data))
    }

    /// All of them: names and lengths.
    pub fn all(&self) -> impl Iterator<Item = (&str, usize)> {
        self.files.iter().map(|(name, data)| (name.as_str(), data.len()))
    }
}
