//! What can be wrong with a saved machine.

use std::io;

use kasane_memory::MemoryError;

use crate::FORMAT;

/// A saved machine that can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Where it goes to.
    #[error("it can't be written")]
    Write(#[source] io::Error),
    /// Where it comes from.
    #[error("it can't be read")]
    Read(#[source] io::Error),
    /// More than a saved machine may have.
    #[error("section `{name}` does not fit into a saved machine")]
    TooLarge {
        /// The section.
        name: String,
    },
    /// Another kind of file.
    #[error("this is no saved machine")]
    Magic,
    /// Of a program that is newer, or far older.
    #[error("it has format {found}, this program knows format {FORMAT}")]
    Format {
        /// The format's number in the file.
        found: u32,
    },
    /// The file ends too early.
    #[error("it is cut off in {place}")]
    CutOff {
        /// Where.
        place: String,
    },
    /// Bytes that nobody has written so.
    #[error("it is damaged in {place}: {what}")]
    Damaged {
        /// Where.
        place: String,
        /// What is wrong there.
        what: &'static str,
    },
    /// Guest memory refused an access.
    #[error("its memory does not fit into this machine's")]
    Memory(#[from] MemoryError),
}
