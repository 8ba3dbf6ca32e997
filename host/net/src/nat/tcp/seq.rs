//! Sequence numbers: 32 bits that wrap (RFC 9293 §3.4).

use std::ops::{Add, Sub};

/// A sequence number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seq(pub(crate) u32);

impl Seq {
    /// How far `self` is behind `earlier`; negative if it is before it. Only numbers less than
    /// 2^31 apart can be told so.
    pub(crate) fn since(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0) as i32
    }

    /// Whether `self` comes before `other`.
    pub(crate) fn is_before(self, other: Self) -> bool {
        self.since(other) < 0
    }

    /// The later one.
    pub(crate) fn max(self, other: Self) -> Self {
        if self.is_before(other) { other } else { self }
    }
}

impl Add<usize> for Seq {
    type Output = Self;
    fn add(self, bytes: usize) -> Self {
        Self(self.0.wrapping_add(bytes as u32))
    }
}

impl Sub<usize> for Seq {
    type Output = Self;
    fn sub(self, bytes: usize) -> Self {
        Self(self.0.wrapping_sub(bytes as u32))
    }
}
