//! A host without `perf`.

use std::io;
use std::path::Path;

use kasane_passthrough::{CodeObserver, PlacedCode};

use super::JitDumpError;

/// There is none on this host.
#[derive(Debug)]
pub enum JitDump {}

impl JitDump {
    /// There is none.
    ///
    /// # Errors
    /// Always.
    pub fn create(_folder: &Path) -> Result<Self, JitDumpError> {
        Err(JitDumpError::Unavailable)
    }
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        match *self {}
    }
    /// Ends it.
    ///
    /// # Errors
    /// None.
    pub fn finish(&self) -> io::Result<()> {
        match *self {}
    }
}

impl CodeObserver for JitDump {
    fn placed(&self, _code: &PlacedCode<'_>) {
        match *self {}
    }
}
