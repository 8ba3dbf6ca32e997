//! Reading fields of a file that somebody else made.

use super::BootError;

/// A file, or a part of one.
#[derive(Clone, Copy)]
pub(super) struct Image<'a> {
    data: &'a [u8],
}

impl<'a> Image<'a> {
    pub(super) const fn new(data: &'a [u8]) -> Self {
        Self { data }
    }

    pub(super) const fn len(self) -> u64 {
        self.data.len() as u64
    }

    /// `len` bytes at `at`; `what` names them in the error.
    pub(super) fn slice(
        self,
        what: &'static str,
        at: u64,
        len: u64,
    ) -> Result<&'a [u8], BootError> {
        let needed = at.saturating_add(len);
        let truncated = BootError::Truncated { what, needed, found: self.len() };
        let (Ok(start), Ok(end)) = (usize::try_from(at), usize::try_from(needed)) else {
            return Err(truncated);
        };
        self.data.get(start..end).ok_or(truncated)
    }

    fn array<const N: usize>(self, what: &'static str, at: u64) -> Result<[u8; N], BootError> {
        let mut out = [0; N];
        out.copy_from_slice(self.slice(what, at, N as u64)?);
        Ok(out)
    }

    pub(super) fn u8(self, what: &'static str, at: u64) -> Result<u8, BootError> {
        Ok(u8::from_le_bytes(self.array(what, at)?))
    }

    pub(super) fn u16(self, what: &'static str, at: u64) -> Result<u16, BootError> {
        Ok(u16::from_le_bytes(self.array(what, at)?))
    }

    pub(super) fn u32(self, what: &'static str, at: u64) -> Result<u32, BootError> {
        Ok(u32::from_le_bytes(self.array(what, at)?))
    }

    pub(super) fn u64(self, what: &'static str, at: u64) -> Result<u64, BootError> {
        Ok(u64::from_le_bytes(self.array(what, at)?))
    }

    /// Whether the file has `bytes` at `at`.
    pub(super) fn has(self, at: usize, bytes: &[u8]) -> bool {
        self.data.get(at..).is_some_and(|tail| tail.starts_with(bytes))
    }

    /// The first four bytes, zero-extended.
    pub(super) fn first(self) -> [u8; 4] {
        let mut first = [0; 4];
        for (to, from) in first.iter_mut().zip(self.data) {
            *to = *from;
        }
        first
    }
}
