//! A small generator of random numbers whose sequences are the same everywhere
//! (splitmix64, Steele, Lea and Flood 2014).

/// The generator.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// From a seed and a number of a case: each case has a sequence of its own.
    #[must_use]
    pub fn new(seed: u64, case: u64) -> Self {
        let mut rng = Self(seed ^ case.wrapping_mul(0xD1B5_4A32_D192_ED03));
        rng.next();
        rng
    }
    /// 64 random bits.
    #[allow(clippy::should_implement_trait)] // it never ends, so it is no iterator
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = self.0;
        let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }
    /// Below `n`; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }
    /// True in `percent` of the cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
    /// One of several values.
    pub fn pick<T: Copy + Default>(&mut self, values: &[T]) -> T {
        values.get(self.below(values.len() as u64) as usize).copied().unwrap_or_default()
    }
    /// A value as arithmetic likes it least: corners, few bits, small numbers, or anything.
    pub fn corner(&mut self) -> u64 {
        const CORNERS: [u64; 24] = [
            0,
            1,
            2,
            0x7F,
            0x80,
            0xFF,
            0x100,
            0x7FFF,
            0x8000,
            0xFFFF,
            0x1_0000,
            0x7FFF_FFFF,
            0x8000_0000,
            0xFFFF_FFFF,
            0x1_0000_0000,
            0x7FFF_FFFF_FFFF_FFFF,
            0x8000_0000_0000_0000,
            0xFFFF_FFFF_FFFF_FFFF,
            0xFFFF_FFFF_FFFF_FFFE,
            0xFFFF_FFFF_8000_0000,
            0xFFFF_FFFF_0000_0000,
            0x8080_8080_8080_8080,
            0x5555_5555_5555_5555,
            0xAAAA_AAAA_AAAA_AAAA,
        ];
        match self.below(8) {
            0..=2 => self.pick(&CORNERS),
            3 => self.below(70),
            4 => 1u64 << self.below(64),
            5 => {
                let shift = self.below(64);
                self.next() >> shift
            }
            _ => self.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_case_has_the_same_numbers() {
        let (mut a, mut b, mut c) = (Rng::new(1, 2), Rng::new(1, 2), Rng::new(1, 3));
        let first = a.next();
        assert_eq!(first, b.next());
        assert_ne!(first, c.next());
    }

    #[test]
    fn below_stays_below() {
        let mut rng = Rng::new(0, 0);
        assert!((0..1000).all(|_| rng.below(7) < 7));
        assert_eq!(rng.below(0), 0);
    }
}
