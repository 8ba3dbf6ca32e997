//! What of a guest's processor follows from the real one's.

use kasane_cpu::cpuid::{Feature, FeatureSet};
use kasane_metal_cpu as cpu;

/// What of a guest's processor can't be given here: features with bits in control registers, and
/// page sizes. Instructions that the processor lacks are the interpreter's.
#[must_use]
pub fn hidden_features() -> FeatureSet {
    let [_, _, leaf_1, _] = cpu::cpuid(1, 0);
    let [_, leaf_7b, leaf_7c, _] = cpu::cpuid(7, 0);
    let [_, _, _, extended] = cpu::cpuid(0x8000_0001, 0);
    let needed: [(u32, u32, &[Feature]); 7] = [
        (leaf_1, 17, &[Feature::Pcid, Feature::Invpcid]),
        (leaf_1, 26, &[Feature::Xsave, Feature::Avx, Feature::Avx2, Feature::Fma, Feature::F16c]),
        (leaf_7b, 0, &[Feature::Fsgsbase]),
        (leaf_7b, 7, &[Feature::Smep]),
        (leaf_7b, 20, &[Feature::Smap]),
        (leaf_7c, 2, &[Feature::Umip]),
        (extended, 26, &[Feature::Page1g]),
    ];
    let lacking = needed.iter().filter(|(register, bit, _)| register >> bit & 1 == 0);
    lacking.fold(FeatureSet::EMPTY, |set, (_, _, features)| set.union(FeatureSet::of(features)))
}
