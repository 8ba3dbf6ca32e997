//! The integer instructions of the C library's string functions (compare bytes, take the minimum,
//! collect the signs, combine), done here like the moves: a stub costs more than they do.

use iced_x86::{Code, Instruction, OpKind};

use super::moves::slot;
use super::operand::{Ymm, join, split};
use crate::cpu::{Cpu, Stop};
use crate::op::{Handler, Lowered, Op};

const EQUAL_BYTES: u8 = 0;
const EQUAL_DWORDS: u8 = 1;
const MINIMUM: u8 = 2;
const XOR: u8 = 3;
const AND: u8 = 4;
const OR: u8 = 5;
const AND_NOT: u8 = 6;
const SUBTRACT_BYTES: u8 = 7;

/// Encodings: legacy, VEX with 128 bits, VEX with 256 bits.
const SSE: u8 = 0;
const VEX_128: u8 = 1;
const VEX_256: u8 = 2;

pub(super) fn lower(instr: &Instruction) -> Option<Lowered> {
    let last = instr.op_count().checked_sub(1)?;
    let run = if instr.op_kind(last) == OpKind::Memory {
        binary(instr.code(), true)?
    } else {
        binary(instr.code(), false).or_else(|| signs(instr.code()))?
    };
    let number = |n: u32| {
        let register = instr.op_count() > n && instr.op_kind(n) == OpKind::Register;
        if register { slot(instr.op_register(n)) } else { 255 }
    };
    Some(Lowered { a: number(0), b: number(1), c: number(2), ..Lowered::plain(run) })
}

/// The handler of an operation, by where its last operand is.
macro_rules! handler {
    ($operation:expr, $form:expr, $memory:expr) => {
        if $memory { with_memory::<$operation, $form> } else { between::<$operation, $form> }
    };
}

#[rustfmt::skip]
fn binary(code: Code, memory: bool) -> Option<Handler> {
    Some(match code {
        Code::Pcmpeqb_xmm_xmmm128 => handler!(EQUAL_BYTES, SSE, memory),
        Code::VEX_Vpcmpeqb_xmm_xmm_xmmm128 => handler!(EQUAL_BYTES, VEX_128, memory),
        Code::VEX_Vpcmpeqb_ymm_ymm_ymmm256 => handler!(EQUAL_BYTES, VEX_256, memory),
        Code::Pcmpeqd_xmm_xmmm128 => handler!(EQUAL_DWORDS, SSE, memory),
        Code::VEX_Vpcmpeqd_xmm_xmm_xmmm128 => handler!(EQUAL_DWORDS, VEX_128, memory),
        Code::VEX_Vpcmpeqd_ymm_ymm_ymmm256 => handler!(EQUAL_DWORDS, VEX_256, memory),
        Code::Pminub_xmm_xmmm128 => handler!(MINIMUM, SSE, memory),
        Code::VEX_Vpminub_xmm_xmm_xmmm128 => handler!(MINIMUM, VEX_128, memory),
        Code::VEX_Vpminub_ymm_ymm_ymmm256 => handler!(MINIMUM, VEX_256, memory),
        Code::Psubb_xmm_xmmm128 => handler!(SUBTRACT_BYTES, SSE, memory),
        Code::VEX_Vpsubb_xmm_xmm_xmmm128 => handler!(SUBTRACT_BYTES, VEX_128, memory),
        Code::VEX_Vpsubb_ymm_ymm_ymmm256 => handler!(SUBTRACT_BYTES, VEX_256, memory),
        Code::Pxor_xmm_xmmm128 | Code::Xorps_xmm_xmmm128 | Code::Xorpd_xmm_xmmm128
            => handler!(XOR, SSE, memory),
        Code::VEX_Vpxor_xmm_xmm_xmmm128 | Code::VEX_Vxorps_xmm_xmm_xmmm128
        | Code::VEX_Vxorpd_xmm_xmm_xmmm128 => handler!(XOR, VEX_128, memory),
        Code::VEX_Vpxor_ymm_ymm_ymmm256 | Code::VEX_Vxorps_ymm_ymm_ymmm256
        | Code::VEX_Vxorpd_ymm_ymm_ymmm256 => handler!(XOR, VEX_256, memory),
        Code::Pand_xmm_xmmm128 | Code::Andps_xmm_xmmm128 | Code::Andpd_xmm_xmmm128
            => handler!(AND, SSE, memory),
        Code::VEX_Vpand_xmm_xmm_xmmm128 | Code::VEX_Vandps_xmm_xmm_xmmm128
        | Code::VEX_Vandpd_xmm_xmm_xmmm128 => handler!(AND, VEX_128, memory),
        Code::VEX_Vpand_ymm_ymm_ymmm256 | Code::VEX_Vandps_ymm_ymm_ymmm256
        | Code::VEX_Vandpd_ymm_ymm_ymmm256 => handler!(AND, VEX_256, memory),
        Code::Por_xmm_xmmm128 | Code::Orps_xmm_xmmm128 | Code::Orpd_xmm_xmmm128
            => handler!(OR, SSE, memory),
        Code::VEX_Vpor_xmm_xmm_xmmm128 | Code::VEX_Vorps_xmm_xmm_xmmm128
        | Code::VEX_Vorpd_xmm_xmm_xmmm128 => handler!(OR, VEX_128, memory),
        Code::VEX_Vpor_ymm_ymm_ymmm256 | Code::VEX_Vorps_ymm_ymm_ymmm256
        | Code::VEX_Vorpd_ymm_ymm_ymmm256 => handler!(OR, VEX_256, memory),
        Code::Pandn_xmm_xmmm128 => handler!(AND_NOT, SSE, memory),
        Code::VEX_Vpandn_xmm_xmm_xmmm128 => handler!(AND_NOT, VEX_128, memory),
        Code::VEX_Vpandn_ymm_ymm_ymmm256 => handler!(AND_NOT, VEX_256, memory),
        _ => return None,
    })
}

fn signs(code: Code) -> Option<Handler> {
    Some(match code {
        Code::Pmovmskb_r32_xmm | Code::Pmovmskb_r64_xmm => byte_signs::<SSE>,
        Code::VEX_Vpmovmskb_r32_xmm | Code::VEX_Vpmovmskb_r64_xmm => byte_signs::<VEX_128>,
        Code::VEX_Vpmovmskb_r32_ymm | Code::VEX_Vpmovmskb_r64_ymm => byte_signs::<VEX_256>,
        _ => return None,
    })
}

/// A byte-wise operation on two words.
#[inline(always)]
fn bytes(a: u64, b: u64, f: impl Fn(u8, u8) -> u8) -> u64 {
    let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
    let mut out = [0; 8];
    for ((to, a), b) in out.iter_mut().zip(a).zip(b) {
        *to = f(a, b);
    }
    u64::from_le_bytes(out)
}

#[inline(always)]
fn word<const OPERATION: u8>(a: u64, b: u64) -> u64 {
    match OPERATION {
        EQUAL_BYTES => bytes(a, b, |a, b| if a == b { 0xFF } else { 0 }),
        EQUAL_DWORDS => {
            let half = |shift: u32| {
                if (a ^ b) >> shift & 0xFFFF_FFFF == 0 { 0xFFFF_FFFF << shift } else { 0 }
            };
            half(0) | half(32)
        }
        MINIMUM => bytes(a, b, |a, b| if a < b { a } else { b }),
        XOR => a ^ b,
        AND => a & b,
        OR => a | b,
        AND_NOT => !a & b,
        _ => bytes(a, b, u8::wrapping_sub),
    }
}

#[inline(always)]
fn all<const OPERATION: u8>(a: Ymm, b: Ymm) -> Ymm {
    let mut out = [0; 4];
    for ((to, a), b) in out.iter_mut().zip(a).zip(b) {
        *to = word::<OPERATION>(a, b);
    }
    out
}

#[inline(always)]
fn check<const FORM: u8>(cpu: &mut Cpu) -> Result<(), Stop> {
    if FORM == SSE { cpu.check_sse() } else { cpu.check_avx() }
}

/// Combines the first source with `second` and writes the destination as the encoding has it.
#[inline(always)]
fn combine<const OPERATION: u8, const FORM: u8>(cpu: &mut Cpu, op: &Op, first: u8, second: Ymm) {
    let result = all::<OPERATION>(cpu.state.vector.ymm(first), second);
    let [a, b, ..] = result;
    match FORM {
        SSE => cpu.set_xmm(op.a, join(a, b)),
        VEX_128 => cpu.set_xmm_zeroing(op.a, join(a, b)),
        _ => cpu.state.vector.set_ymm(op.a, result),
    }
}

fn between<const OPERATION: u8, const FORM: u8>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    check::<FORM>(cpu)?;
    let (first, second) = if FORM == SSE { (op.a, op.b) } else { (op.b, op.c) };
    combine::<OPERATION, FORM>(cpu, op, first, cpu.state.vector.ymm(second));
    Ok(())
}

fn with_memory<const OPERATION: u8, const FORM: u8>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    check::<FORM>(cpu)?;
    let ea = cpu.ea(op);
    let second = if FORM == VEX_256 {
        cpu.read_256(op, ea)?
    } else {
        if FORM == SSE {
            cpu.check_aligned(op, ea, 16)?;
        }
        let [a, b] = split(cpu.read(op.mem.seg, ea)?);
        [a, b, 0, 0]
    };
    let first = if FORM == SSE { op.a } else { op.b };
    combine::<OPERATION, FORM>(cpu, op, first, second);
    Ok(())
}

/// PMOVMSKB: the top bits of the bytes.
fn byte_signs<const FORM: u8>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    check::<FORM>(cpu)?;
    let words = if FORM == VEX_256 { 4 } else { 2 };
    let mut mask = 0u64;
    for (n, word) in cpu.state.vector.ymm(op.b).into_iter().take(words).enumerate() {
        // Multiplication gathers the eight top bits, which are 7 bits apart, into the top byte.
        let tops = word >> 7 & 0x0101_0101_0101_0101;
        mask |= tops.wrapping_mul(0x0102_0408_1020_4080) >> 56 << (8 * n);
    }
    cpu.set_gpr(op.a, mask);
    Ok(())
}
