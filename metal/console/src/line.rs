//! The line that is being typed.

use alloc::string::String;

/// Longer lines are of no use.
const LEN_MAX: usize = 200;

/// What a typed byte means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// Nothing to show.
    Nothing,
    /// Show this.
    Echo(String),
    /// A line is complete; show a new line.
    Line(String),
}

/// A line without its end.
#[derive(Clone, Debug, Default)]
pub struct LineEditor {
    line: String,
    last_was_cr: bool,
}

impl LineEditor {
    /// Takes a byte: printable ASCII, backspace, Ctrl-U (all away), Ctrl-C (a new line), and CR, LF
    /// or both as the end.
    pub fn type_byte(&mut self, byte: u8) -> Typed {
        let after_cr = core::mem::replace(&mut self.last_was_cr, byte == b'\r');
        match byte {
            b'\n' if after_cr => Typed::Nothing,
            b'\r' | b'\n' => Typed::Line(core::mem::take(&mut self.line)),
            0x03 => {
                self.line.clear();
                Typed::Line(String::new())
            }
            0x08 | 0x7F => match self.line.pop() {
                Some(_) => Typed::Echo("\x08 \x08".into()),
                None => Typed::Nothing,
            },
            0x15 => {
                let erased = "\x08 \x08".repeat(self.line.len());
                self.line.clear();
                Typed::Echo(erased)
            }
            b' '..=b'~' if self.line.len() < LEN_MAX => {
                self.line.push(char::from(byte));
                Typed::Echo(String::from(char::from(byte)))
            }
            _ => Typed::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn lines(bytes: &[u8]) -> Vec<String> {
        let mut editor = LineEditor::default();
        let typed = bytes.iter().map(|byte| editor.type_byte(*byte));
        let lines = typed.filter_map(|typed| match typed {
            Typed::Line(line) => Some(line),
            Typed::Nothing | Typed::Echo(_) => None,
        });
        lines.collect()
    }

    #[test]
    fn lines_end_by_cr_lf_or_both() {
        assert_eq!(lines(b"a\rb\nc\r\nd"), ["a", "b", "c"]);
    }

    #[test]
    fn a_line_can_be_mended() {
        assert_eq!(lines(b"\x7Flost\x08\x7Fg\r"), ["log"]);
        assert_eq!(lines(b"nonsense\x15list\r"), ["list"]);
        assert_eq!(lines(b"nonsense\x03list\r"), ["", "list"]);
        assert_eq!(lines(b"l\x1B\xFFs\r"), ["ls"]);
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory() {
        let mut editor = LineEditor::default();
        (0..10_000).for_each(|_| {
            editor.type_byte(b'x');
        });

        assert_eq!(editor.type_byte(b'\r'), Typed::Line("x".repeat(LEN_MAX)));
    }
}
