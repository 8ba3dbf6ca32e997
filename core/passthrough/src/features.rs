//! What the host lets passed-through code use.

use iced_x86::CpuidFeature;
use kasane_cpu::cpuid::{Feature, FeatureSet};

/// Instruction-set extensions of the host, as far as this crate passes them on. x87, MMX, SSE and
/// SSE2 are part of every 64-bit processor and have no bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostFeatures(pub u32);

/// Each vector extension that is passed on to the host, as both sides call it.
const PASSED_ON: [(HostFeatures, Feature); 11] = [
    (HostFeatures::SSE3, Feature::Sse3),
    (HostFeatures::SSSE3, Feature::Ssse3),
    (HostFeatures::SSE4_1, Feature::Sse41),
    (HostFeatures::SSE4_2, Feature::Sse42),
    (HostFeatures::AES, Feature::Aes),
    (HostFeatures::PCLMULQDQ, Feature::Pclmulqdq),
    (HostFeatures::SHA, Feature::Sha),
    (HostFeatures::AVX, Feature::Avx),
    (HostFeatures::AVX2, Feature::Avx2),
    (HostFeatures::FMA, Feature::Fma),
    (HostFeatures::F16C, Feature::F16c),
];

/// What every 64-bit processor has.
const ALWAYS: FeatureSet =
    FeatureSet::of(&[Feature::Fpu, Feature::Fxsr, Feature::Mmx, Feature::Sse, Feature::Sse2]);

impl HostFeatures {
    /// SSE3.
    pub const SSE3: Self = Self(1 << 0);
    /// SSSE3.
    pub const SSSE3: Self = Self(1 << 1);
    /// SSE4.1.
    pub const SSE4_1: Self = Self(1 << 2);
    /// SSE4.2.
    pub const SSE4_2: Self = Self(1 << 3);
    /// AES-NI.
    pub const AES: Self = Self(1 << 4);
    /// PCLMULQDQ.
    pub const PCLMULQDQ: Self = Self(1 << 5);
    /// SHA.
    pub const SHA: Self = Self(1 << 6);
    /// AVX, with the operating system's support for its registers.
    pub const AVX: Self = Self(1 << 7);
    /// AVX2.
    pub const AVX2: Self = Self(1 << 8);
    /// FMA.
    pub const FMA: Self = Self(1 << 9);
    /// F16C.
    pub const F16C: Self = Self(1 << 10);
    /// BMI2. Nothing is passed on for it; the translator's own code needs it.
    pub const BMI2: Self = Self(1 << 11);

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// This set, with `feature` if `present`.
    #[must_use]
    pub const fn with(self, feature: Self, present: bool) -> Self {
        if present { self.union(feature) } else { self }
    }
    /// Whether all of `other` is in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
    /// The vector features that a guest's processor can show on this host.
    #[must_use]
    pub fn shown(self) -> FeatureSet {
        PASSED_ON
            .iter()
            .filter(|(extension, _)| self.contains(*extension))
            .fold(ALWAYS, |set, (_, feature)| set.union(FeatureSet::of(&[*feature])))
    }
    /// Whether an instruction of `feature` may be passed to this host: the allow-list.
    #[must_use]
    pub fn allows(self, feature: CpuidFeature) -> bool {
        match feature {
            CpuidFeature::FPU
            | CpuidFeature::FPU287
            | CpuidFeature::FPU387
            | CpuidFeature::CMOV
            | CpuidFeature::MMX
            | CpuidFeature::SSE
            | CpuidFeature::SSE2 => true,
            CpuidFeature::SSE3 => self.contains(Self::SSE3),
            CpuidFeature::SSSE3 => self.contains(Self::SSSE3),
            CpuidFeature::SSE4_1 => self.contains(Self::SSE4_1),
            CpuidFeature::SSE4_2 => self.contains(Self::SSE4_2),
            CpuidFeature::AES => self.contains(Self::AES),
            CpuidFeature::PCLMULQDQ => self.contains(Self::PCLMULQDQ),
            CpuidFeature::SHA => self.contains(Self::SHA),
            CpuidFeature::AVX => self.contains(Self::AVX),
            CpuidFeature::AVX2 => self.contains(Self::AVX2),
            CpuidFeature::FMA => self.contains(Self::FMA),
            CpuidFeature::F16C => self.contains(Self::F16C),
            // Not a wildcard for "the rest is fine": whatever is not named above is refused.
            _ => false,
        }
    }
}
