//! Hidden features: instructions that CPUID does not show raise #UD.

use iced_x86::{CpuidFeature, Instruction};
use kasane_cpu::cpuid::{CpuModel, Feature};

/// Whether the model shows what an instruction needs. Features that iced knows and we have no
/// name for are not implemented by any handler, so they need no rule here.
#[must_use]
pub fn shown(model: &CpuModel, instr: &Instruction) -> bool {
    instr.cpuid_features().iter().all(|feature| match needed(*feature) {
        Some(feature) => model.has(feature),
        None => true,
    })
}

/// Whether a feature has a name in [`Feature`].
#[must_use]
pub fn named(feature: CpuidFeature) -> bool {
    needed(feature).is_some()
}

fn needed(feature: CpuidFeature) -> Option<Feature> {
    Some(match feature {
        CpuidFeature::MMX => Feature::Mmx,
        CpuidFeature::SSE => Feature::Sse,
        CpuidFeature::SSE2 => Feature::Sse2,
        CpuidFeature::SSE3 => Feature::Sse3,
        CpuidFeature::SSSE3 => Feature::Ssse3,
        CpuidFeature::SSE4_1 => Feature::Sse41,
        CpuidFeature::SSE4_2 => Feature::Sse42,
        CpuidFeature::AES => Feature::Aes,
        CpuidFeature::PCLMULQDQ => Feature::Pclmulqdq,
        CpuidFeature::SHA => Feature::Sha,
        CpuidFeature::AVX => Feature::Avx,
        CpuidFeature::AVX2 => Feature::Avx2,
        CpuidFeature::FMA => Feature::Fma,
        CpuidFeature::F16C => Feature::F16c,
        CpuidFeature::BMI1 => Feature::Bmi1,
        CpuidFeature::BMI2 => Feature::Bmi2,
        CpuidFeature::ADX => Feature::Adx,
        CpuidFeature::MOVBE => Feature::Movbe,
        CpuidFeature::LZCNT => Feature::Lzcnt,
        CpuidFeature::POPCNT => Feature::Popcnt,
        CpuidFeature::CMPXCHG16B => Feature::Cx16,
        CpuidFeature::RDRAND => Feature::Rdrand,
        CpuidFeature::RDSEED => Feature::Rdseed,
        CpuidFeature::FSGSBASE => Feature::Fsgsbase,
        CpuidFeature::INVPCID => Feature::Invpcid,
        CpuidFeature::SMAP => Feature::Smap,
        CpuidFeature::RDPID => Feature::Rdpid,
        CpuidFeature::RDTSCP => Feature::Rdtscp,
        CpuidFeature::FXSR => Feature::Fxsr,
        CpuidFeature::XSAVE => Feature::Xsave,
        CpuidFeature::XSAVEOPT => Feature::Xsaveopt,
        CpuidFeature::XSAVEC => Feature::Xsavec,
        CpuidFeature::XSAVES => Feature::Xsaves,
        CpuidFeature::CLFLUSHOPT => Feature::Clflushopt,
        CpuidFeature::CLWB => Feature::Clwb,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};
    use kasane_cpu::cpuid::{CpuModelName, VECTOR_FEATURES};

    fn is_shown(name: CpuModelName, bytes: &[u8]) -> bool {
        let instr = Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE).decode();
        shown(&CpuModel::new(name, VECTOR_FEATURES), &instr)
    }

    #[test]
    fn hidden_instructions_are_not_shown() {
        let vpaddd_ymm = [0xC5, 0xFD, 0xFE, 0xC1];
        let andn = [0xC4, 0xE2, 0x78, 0xF2, 0xC1];
        let add = [0x01, 0xC8];
        assert!(!is_shown(CpuModelName::X86_64V2, &vpaddd_ymm));
        assert!(!is_shown(CpuModelName::X86_64V2, &andn));
        assert!(is_shown(CpuModelName::X86_64V3, &vpaddd_ymm));
        assert!(is_shown(CpuModelName::X86_64V2, &add));
    }
}
