//! Memory that the guest doesn't need.

/// Takes pages of guest memory back for the host.
pub trait PageReclaim: Send + Sync {
    /// The guest doesn't need what `len` bytes from `gpa` on hold: they may read as zeros from now
    /// on. Both are multiples of 4096, and all of it is RAM. Who implements it tells whoever keeps
    /// something about these pages (the dirty log, translated code) that they were written to. A
    /// host that takes nothing back does nothing.
    fn discard(&self, gpa: u64, len: u64);
}
