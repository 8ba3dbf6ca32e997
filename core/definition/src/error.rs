//! What is wrong with a definition, where, and what to do about it.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::hint::hint;

/// A definition that can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefinitionError {
    /// Line of the fault, from 1.
    pub line: usize,
    /// Column of the fault in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// One action that may help.
    pub help: Option<String>,
}

impl fmt::Display for DefinitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

impl core::error::Error for DefinitionError {}

impl DefinitionError {
    /// Adds place and hint to what the TOML reader says.
    pub(crate) fn new(text: &str, error: &toml::de::Error) -> Self {
        let (line, column) = place(text, error.span().map_or(0, |span| span.start));
        let (message, help) = reword(error.message());
        Self { line, column, message, help }
    }
}

/// Line and column, both from 1, of a byte offset.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// serde tells an unknown key only by a sentence ("unknown field `a`, expected one of `b`, `c`");
/// taken apart here to give the hint. A sentence of another form passes as it is.
fn reword(message: &str) -> (String, Option<String>) {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let unknown = |what: &str| {
        let (word, expected) = quoted.split_first()?;
        Some((format!("unknown {what} `{word}`"), hint(word, expected)))
    };
    let known_form = if message.starts_with("unknown field") {
        unknown("key")
    } else if message.starts_with("unknown variant") {
        unknown("value")
    } else if message.starts_with("missing field") {
        quoted.first().map(|key| (format!("the key `{key}` is missing"), None))
    } else {
        None
    };
    known_form.unwrap_or_else(|| (message.trim().to_owned(), None))
}
