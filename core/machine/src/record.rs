//! Structures for the guest, built field by field.

/// A structure for the guest that is filled field by field.
pub(crate) struct Record(pub(crate) alloc::vec::Vec<u8>);

impl Record {
    /// `len` zero bytes.
    pub(crate) fn zeroed(len: usize) -> Self {
        Self(alloc::vec![0; len])
    }

    /// Puts `bytes` at `at`; what lies outside the structure is left out.
    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        for (to, from) in self.0.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    }

    pub(crate) fn put_u8(&mut self, at: usize, value: u8) {
        self.put(at, &[value]);
    }

    pub(crate) fn put_u16(&mut self, at: usize, value: u16) {
        self.put(at, &value.to_le_bytes());
    }

    pub(crate) fn put_u32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_le_bytes());
    }

    pub(crate) fn put_u64(&mut self, at: usize, value: u64) {
        self.put(at, &value.to_le_bytes());
    }
}
