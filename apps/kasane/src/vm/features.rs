//! From what the host's CPU can execute to the model that the guest sees.

use kasane_cpu::cpuid::{CpuModel, CpuModelName, Feature, FeatureSet};
use kasane_passthrough::HostFeatures;

/// A model that promises what this host can't do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the processor model {model} needs what this host's CPU lacks: {lacking}")]
pub struct MissingFeatures {
    model: CpuModelName,
    lacking: String,
}

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

/// The model of this name on a host with these features. `max` takes what there is; the levels
/// promise.
///
/// # Errors
/// What a level promises and the host lacks.
pub fn cpu_model(name: CpuModelName, host: HostFeatures) -> Result<CpuModel, MissingFeatures> {
    let vector = PASSED_ON
        .iter()
        .filter(|(extension, _)| host.contains(*extension))
        .fold(ALWAYS, |set, (_, feature)| set.union(FeatureSet::of(&[*feature])));
    let model = CpuModel::new(name, vector);
    let missing = model.missing();
    if name == CpuModelName::Max || missing == FeatureSet::EMPTY {
        return Ok(model);
    }
    let lacking: Vec<String> = Feature::ALL
        .iter()
        .filter(|feature| missing.has(**feature))
        .map(|feature| format!("{feature:?}"))
        .collect();
    Err(MissingFeatures { model: name, lacking: lacking.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_needs_what_it_promises() {
        let error = cpu_model(CpuModelName::X86_64V2, HostFeatures::SSE3).unwrap_err();

        assert_eq!(
            error.to_string(),
            "the processor model x86-64-v2 needs what this host's CPU lacks: Ssse3, Sse41, Sse42"
        );
    }

    #[test]
    fn max_takes_what_there_is() {
        let model = cpu_model(CpuModelName::Max, HostFeatures::SSE3).unwrap();

        assert!(model.has(Feature::Sse3));
        assert!(!model.has(Feature::Avx));
    }
}
