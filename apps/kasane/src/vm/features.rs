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

/// The model of this name on a host with these features. `max` takes what there is; the levels
/// promise.
///
/// # Errors
/// What a level promises and the host lacks.
pub fn cpu_model(name: CpuModelName, host: HostFeatures) -> Result<CpuModel, MissingFeatures> {
    let model = CpuModel::new(name, host.shown());
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
