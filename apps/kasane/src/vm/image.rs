//! A kernel or an initial RAM disk on its way into guest memory.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

/// What is booted. A file stays open and is read again when the guest is reset, so that its bytes
/// take no memory in between; who replaces it meanwhile (by a new file of that name) changes
/// nothing. What can be read only once, like a pipe, is kept.
#[derive(Clone, Debug)]
pub enum Image {
    /// A regular file.
    File(Arc<File>),
    /// Bytes.
    Bytes(Arc<[u8]>),
}

impl Image {
    /// Opens what is at `path`.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        if file.metadata()?.is_file() {
            return Ok(Self::File(Arc::new(file)));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(Self::Bytes(bytes.into()))
    }
    /// All of it.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn read(&self) -> io::Result<Cow<'_, [u8]>> {
        match self {
            Self::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::File(file) => {
                let mut file = &**file;
                file.seek(SeekFrom::Start(0))?;
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_each_time_from_its_beginning() {
        let path = std::env::temp_dir().join(format!("kasane-image-{}", std::process::id()));
        std::fs::write(&path, b"bytes").unwrap();

        let image = Image::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();

        assert_eq!(*image.read().unwrap(), *b"bytes");
        assert_eq!(*image.read().unwrap(), *b"bytes");
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        assert!(Image::open(Path::new("/nowhere/kernel")).is_err());
    }
}
