//! Every instruction of every feature that the `max` model shows has a handler, in each of its
//! forms (register and memory).
#![allow(clippy::indexing_slicing)] // a test: it may panic

use std::collections::BTreeSet;

use iced_x86::{CpuidFeature, Decoder, DecoderOptions, Instruction, OpKind};
use kasane_cpu::cpuid::{CpuModel, CpuModelName, VECTOR_FEATURES};
use kasane_interp::{exec, guard};

/// Features that iced knows and CPUID does not show here: their instructions raise #UD, or are
/// the NOPs that processors without the feature take them for.
fn absent(feature: CpuidFeature) -> bool {
    let always = matches!(
        feature,
        CpuidFeature::INTEL8086
            | CpuidFeature::INTEL8086_ONLY
            | CpuidFeature::INTEL186
            | CpuidFeature::INTEL286
            | CpuidFeature::INTEL386
            | CpuidFeature::INTEL486
            | CpuidFeature::X64
            | CpuidFeature::CPUID
            | CpuidFeature::FPU
            | CpuidFeature::FPU287
            | CpuidFeature::FPU387
            | CpuidFeature::CMOV
            | CpuidFeature::CX8
            | CpuidFeature::CLFSH
            | CpuidFeature::MSR
            | CpuidFeature::MULTIBYTENOP
            | CpuidFeature::PAUSE
            | CpuidFeature::RDPMC
            | CpuidFeature::SEP
            | CpuidFeature::SYSCALL
            | CpuidFeature::TSC
            | CpuidFeature::PREFETCHW
    );
    !always && !guard::named(feature)
}

fn has_memory(instr: &Instruction) -> bool {
    (0..instr.op_count()).any(|n| instr.op_kind(n) == OpKind::Memory)
}

#[test]
fn every_instruction_has_a_handler() {
    let model = CpuModel::new(CpuModelName::Max, VECTOR_FEATURES);
    let mut seed = 0x1234_5678_9ABC_DEF1u64;
    let mut seen = BTreeSet::new();
    let mut gaps = BTreeSet::new();
    for round in 0..6_000_000usize {
        // xorshift64; some tries start with bytes that random ones seldom start with.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let mut bytes = [0u8; 16];
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte = (seed.rotate_left(n as u32 * 7) >> 11) as u8;
        }
        match round % 4 {
            0 => bytes[0] = 0xC4,
            1 => bytes[0] = 0x0F,
            2 => bytes[..2].copy_from_slice(&[0x66, 0x0F]),
            _ => {}
        }
        let bits = [64, 32, 16][round % 3];
        let instr = Decoder::with_ip(bits, &bytes, 0x1000, DecoderOptions::NONE).decode();
        let hidden = instr.cpuid_features().iter().any(|f| absent(*f));
        if instr.is_invalid() || hidden || !guard::shown(&model, &instr) {
            continue;
        }
        seen.insert((instr.code(), has_memory(&instr)));
        if exec::lower(&instr).is_none() {
            gaps.insert(format!("{:?} memory {}", instr.code(), has_memory(&instr)));
        }
    }
    assert!(seen.len() > 1500, "only {} forms were generated", seen.len());
    assert!(gaps.is_empty(), "{} forms without a handler: {gaps:#?}", gaps.len());
}
