//! The last bytes of what was said.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Bytes, of which the oldest make room for new ones.
#[derive(Clone, Debug)]
pub struct Scrollback {
    bytes: VecDeque<u8>,
    len_max: usize,
}

impl Scrollback {
    /// Room for so many bytes.
    #[must_use]
    pub const fn new(len_max: usize) -> Self {
        Self { bytes: VecDeque::new(), len_max }
    }

    /// Adds what is said.
    pub fn push(&mut self, bytes: &[u8]) {
        let bytes = bytes.get(bytes.len().saturating_sub(self.len_max)..).unwrap_or_default();
        let excess = self.bytes.len().saturating_add(bytes.len()).saturating_sub(self.len_max);
        self.bytes.drain(..excess.min(self.bytes.len()));
        self.bytes.extend(bytes);
    }

    /// All that is kept.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        self.bytes.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_bytes_are_kept() {
        let mut kept = Scrollback::new(5);
        kept.push(b"abc");
        kept.push(b"defg");
        let some = kept.text();
        kept.push(b"0123456789");

        assert_eq!((some.as_slice(), kept.text().as_slice()), (&b"cdefg"[..], &b"56789"[..]));
    }
}
