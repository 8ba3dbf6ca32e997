//! Ticks of a counter and nanoseconds.

/// Nanoseconds in a tick, times 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale(u64);

impl Scale {
    /// Of a counter with so many ticks in a second.
    #[must_use]
    pub const fn of_frequency(ticks_per_second: u64) -> Self {
        let ticks = if ticks_per_second == 0 { 1 } else { ticks_per_second };
        Self(((1_000_000_000u128 << 32) / ticks as u128) as u64)
    }
    /// Nanoseconds of so many ticks.
    #[must_use]
    pub const fn ns(self, ticks: u64) -> u64 {
        ((ticks as u128 * self.0 as u128) >> 32) as u64
    }
    /// Nanoseconds in a tick, times 2^64.
    #[must_use]
    pub const fn fraction(self) -> u64 {
        if self.0 >> 32 == 0 { self.0 << 32 } else { u64::MAX }
    }
}

/// Ticks of a counter of this frequency in so many nanoseconds, at least 1.
#[must_use]
pub const fn ticks_in(ns: u64, ticks_per_second: u64) -> u64 {
    let ticks = (ns as u128 * ticks_per_second as u128) / 1_000_000_000;
    if ticks == 0 {
        1
    } else if ticks > u64::MAX as u128 {
        u64::MAX
    } else {
        ticks as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_and_nanoseconds_are_inverse() {
        let scale = Scale::of_frequency(2_500_000_000);

        assert_eq!(scale.ns(2_500_000_000 * 3600).abs_diff(3600 * 1_000_000_000) / 1000, 0);
        assert_eq!(ticks_in(1_000_000, 2_500_000_000), 2_500_000);
        assert_eq!(ticks_in(0, 1), 1);
        assert_eq!(ticks_in(u64::MAX, u64::MAX), u64::MAX);
    }
}
