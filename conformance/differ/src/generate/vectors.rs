//! Random x87, MMX, SSE and AVX states.

use iced_x86::{CpuidFeature, Instruction, OpKind};

use crate::case::Vectors;
use crate::rng::Rng;

const F32: [u32; 16] = [
    0,
    0x8000_0000,
    0x3F80_0000,
    0xBF80_0000,
    0x7F80_0000,
    0xFF80_0000,
    0x7FC0_0000,
    0x7F80_0001,
    0xFFBF_FFFF,
    0x0000_0001,
    0x807F_FFFF,
    0x0080_0000,
    0x7F7F_FFFF,
    0x4F00_0000,
    0xCF00_0001,
    0x3F00_0000,
];
const F64: [u64; 16] = [
    0,
    0x8000_0000_0000_0000,
    0x3FF0_0000_0000_0000,
    0xBFF8_0000_0000_0000,
    0x7FF0_0000_0000_0000,
    0xFFF0_0000_0000_0000,
    0x7FF8_0000_0000_0000,
    0x7FF0_0000_0000_0001,
    0xFFF7_FFFF_FFFF_FFFF,
    0x0000_0000_0000_0001,
    0x800F_FFFF_FFFF_FFFF,
    0x0010_0000_0000_0000,
    0x7FEF_FFFF_FFFF_FFFF,
    0x41E0_0000_0000_0000,
    0xC3E0_0000_0000_0001,
    0x3FE0_0000_0000_0000,
];

/// Eight bytes as some lane type likes them least.
pub(crate) fn lane(rng: &mut Rng) -> [u8; 8] {
    let value = match rng.below(6) {
        0 | 1 => u64::from(rng.pick(&F32)) | u64::from(rng.pick(&F32)) << 32,
        2 | 3 => rng.pick(&F64),
        4 => rng.corner(),
        _ => rng.next(),
    };
    value.to_le_bytes()
}

/// An 80-bit value: normal, special, or one of the encodings that are no numbers.
fn extended(rng: &mut Rng) -> [u8; 10] {
    let exponent = match rng.below(6) {
        0 => 0,
        1 => 0x7FFF,
        2 => 0x3FFF,
        3 => 0x3FFF + rng.below(130) as u16 - 65,
        4 => rng.pick(&[1u16, 0x7FFE, 0x403E, 0x3C00, 0x43FF, 0x3F80, 0x407F]),
        _ => rng.next() as u16 & 0x7FFF,
    };
    let significand = match rng.below(6) {
        0 => 1 << 63,
        1 => 3 << 62,
        2 => rng.corner(),
        3 => u64::MAX,
        _ => rng.next() | 1 << 63,
    };
    let sign = (rng.next() as u16) << 15;
    let mut out = [0; 10];
    for (to, from) in out.iter_mut().zip(significand.to_le_bytes()) {
        *to = from;
    }
    let [low, high] = (exponent | sign).to_le_bytes();
    (out[8], out[9]) = (low, high);
    out
}

/// The x87 part: mostly a full stack with everything masked.
fn x87(v: &mut Vectors, rng: &mut Rng) {
    let mut control: u16 = 0x037F;
    if rng.chance(50) {
        control = control & !0x0F00 | (rng.next() as u16) & 0x0F00;
    }
    if rng.chance(20) {
        control = control & !0x3F | rng.next() as u16 & 0x3F;
    }
    let mut status = rng.next() as u16 & 0x4700;
    if rng.chance(50) {
        status |= (rng.next() as u16 & 7) << 11;
    }
    if rng.chance(25) {
        status |= rng.next() as u16 & 0x7F;
    }
    // ES and B follow from the rest; the processor recomputes them on loading.
    if status & !control & 0x3F != 0 {
        status |= 0x8080;
    }
    let tags = match rng.below(4) {
        0 => 0,
        1 => rng.next() as u8,
        _ => 0xFF,
    };
    v.put(0, &control.to_le_bytes());
    v.put(2, &status.to_le_bytes());
    v.put(4, &[tags]);
    for n in 0..8 {
        let value = extended(rng);
        v.put(32 + n * 16, &value);
    }
}

fn is_x87(instr: &Instruction) -> bool {
    instr.cpuid_features().iter().any(|feature| {
        matches!(
            feature,
            CpuidFeature::FPU | CpuidFeature::FPU287 | CpuidFeature::FPU387 | CpuidFeature::MMX
        )
    }) || (0..instr.op_count())
        .any(|n| instr.op_kind(n) == OpKind::Register && instr.op_register(n).is_mm())
}

/// Which parts of a vector state are random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parts {
    /// SSE and AVX.
    Vectors,
    /// x87 and MMX, too.
    All,
}

/// A random vector state.
pub(crate) fn any(parts: Parts, rng: &mut Rng) -> Box<Vectors> {
    let mut v = Box::<Vectors>::default();
    if parts == Parts::All {
        x87(&mut v, rng);
    }
    let mut mxcsr: u32 = 0x1F80;
    if rng.chance(50) {
        mxcsr |= rng.next() as u32 & 0xE07F;
    }
    if rng.chance(15) {
        mxcsr &= !(rng.next() as u32 & 0x1F80);
    }
    v.put(24, &mxcsr.to_le_bytes());
    for n in 0..16 {
        for half in 0..2 {
            let (low, high) = (lane(rng), lane(rng));
            v.put(160 + n * 16 + half * 8, &low);
            v.put(576 + n * 16 + half * 8, &high);
        }
    }
    v
}

/// A random vector state for an instruction.
pub(super) fn random(instr: &Instruction, rng: &mut Rng) -> Box<Vectors> {
    let mut v = any(if is_x87(instr) { Parts::All } else { Parts::Vectors }, rng);
    if instr.is_vsib() {
        // Indices that stay near.
        let index = instr.memory_index().number();
        let wide = instr.is_vsib64();
        for at in [160 + index * 16, 576 + index * 16] {
            for lane in 0..2 {
                let (a, b) = (rng.below(200) as i64 - 100, rng.below(200) as i64 - 100);
                let value =
                    if wide { a as u64 } else { u64::from(a as u32) | u64::from(b as u32) << 32 };
                v.put(at + lane * 8, &value.to_le_bytes());
            }
        }
    }
    v
}

/// 32 bytes for a memory operand.
pub(super) fn operand(instr: &Instruction, rng: &mut Rng) -> Vec<u8> {
    if is_x87(instr) && instr.memory_size().size() == 10 {
        let mut bytes = extended(rng).to_vec();
        bytes.resize(32, 0);
        return bytes;
    }
    (0..4).flat_map(|_| lane(rng)).collect()
}
