//! A console's bytes as lines that can be read in a file.

/// Takes what a machine sends to a terminal and keeps the text: no carriage returns and no escape
/// sequences (ECMA-48 §5.4), such as the shell's question for the cursor's place.
#[derive(Debug, Default)]
pub(super) struct Readable {
    text: Vec<u8>,
    within: Within,
}

/// Where in a sequence the last byte was.
#[derive(Clone, Copy, Debug, Default)]
enum Within {
    #[default]
    Text,
    Escape,
    Control,
}

impl Readable {
    /// Takes more bytes; a sequence may be cut anywhere.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.within = match (self.within, *byte) {
                (Within::Text, 0x1B) => Within::Escape,
                (Within::Text, byte) => {
                    if byte >= b' ' && byte != 0x7F || byte == b'\n' || byte == b'\t' {
                        self.text.push(byte);
                    }
                    Within::Text
                }
                (Within::Escape, b'[') => Within::Control,
                // Intermediate bytes, as in the choice of a character set.
                (Within::Escape, 0x20..=0x2F) => Within::Escape,
                (Within::Escape, _) | (Within::Control, 0x40..=0x7E) => Within::Text,
                (Within::Control, _) => Within::Control,
            };
        }
    }

    /// The text until now.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_and_sequences_go_wherever_they_are_cut() {
        let mut readable = Readable::default();
        for chunk in [&b"left# \x1B"[..], b"[", b"6", b"nuname\r\n\x1B(B\tLinux", b"\x07\n\xC3\xA4"]
        {
            readable.take(chunk);
        }

        assert_eq!(readable.bytes(), "left# uname\n\tLinux\nä".as_bytes());
    }
}
