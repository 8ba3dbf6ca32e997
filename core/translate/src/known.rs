//! Which instructions are copied: lists of what is allowed, so that what is not known never is.

use iced_x86::{CodeSize, CpuidFeature, EncodingKind, Instruction, Mnemonic, OpKind};

/// Shifts by CL or by a count that may be zero leave the flags alone then (SDM vol. 2B).
pub(crate) fn conditional_flags(instruction: &Instruction) -> bool {
    use Mnemonic::{Rcl, Rcr, Rol, Ror, Sal, Sar, Shl, Shld, Shr, Shrd};
    matches!(instruction.mnemonic(), Rcl | Rcr | Rol | Ror | Sal | Sar | Shl | Shld | Shr | Shrd)
}

/// Those that write to RAX or RDX, which may be an operand that is written, too.
pub(crate) fn can_write_others(instruction: &Instruction) -> bool {
    use Mnemonic::{Cmpxchg, Cmpxchg8b, Cmpxchg16b, Div, Idiv, Imul, Mul};
    let mnemonic = instruction.mnemonic();
    matches!(mnemonic, Cmpxchg | Cmpxchg8b | Cmpxchg16b | Div | Idiv | Mul)
        || mnemonic == Imul && instruction.op_count() == 1
}

/// An exception that has nothing to do with memory.
pub(crate) fn can_trap(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Div | Mnemonic::Idiv | Mnemonic::Ldmxcsr)
        || !instruction.cpuid_features().iter().all(|feature| is_integer(*feature))
}

/// No effect that a guest could see.
pub(crate) fn is_hint(instruction: &Instruction) -> bool {
    use Mnemonic::{
        Endbr32, Endbr64, Nop, Prefetch, Prefetchnta, Prefetcht0, Prefetcht1, Prefetcht2,
        Prefetchw, Reservednop,
    };
    matches!(
        instruction.mnemonic(),
        Nop | Reservednop
            | Endbr32
            | Endbr64
            | Prefetchnta
            | Prefetcht0
            | Prefetcht1
            | Prefetcht2
            | Prefetchw
            | Prefetch
    )
}

/// Features whose instructions use general registers, flags and memory only.
fn is_integer(feature: CpuidFeature) -> bool {
    matches!(
        feature,
        CpuidFeature::INTEL8086
            | CpuidFeature::INTEL186
            | CpuidFeature::INTEL286
            | CpuidFeature::INTEL386
            | CpuidFeature::INTEL486
            | CpuidFeature::X64
            | CpuidFeature::CMOV
            | CpuidFeature::BMI1
            | CpuidFeature::BMI2
            | CpuidFeature::LZCNT
            | CpuidFeature::POPCNT
            | CpuidFeature::ADX
            | CpuidFeature::MOVBE
            | CpuidFeature::CX8
            | CpuidFeature::CMPXCHG16B
            | CpuidFeature::PAUSE
    )
}

fn is_vector(feature: CpuidFeature) -> bool {
    matches!(
        feature,
        CpuidFeature::SSE
            | CpuidFeature::SSE2
            | CpuidFeature::SSE3
            | CpuidFeature::SSSE3
            | CpuidFeature::SSE4_1
            | CpuidFeature::SSE4_2
            | CpuidFeature::AVX
            | CpuidFeature::AVX2
            | CpuidFeature::FMA
            | CpuidFeature::F16C
            | CpuidFeature::AES
            | CpuidFeature::PCLMULQDQ
            | CpuidFeature::SHA
    )
}

/// Whether an instruction needs the vector unit. Fences and MOVNTI came with SSE, but use no
/// vector.
pub(crate) fn uses_vectors(instruction: &Instruction) -> bool {
    use Mnemonic::{Lfence, Mfence, Movnti, Sfence};
    let general = matches!(instruction.mnemonic(), Lfence | Mfence | Sfence | Movnti);
    !general && instruction.cpuid_features().iter().any(|feature| is_vector(*feature))
}

/// Instructions that are neither sensitive nor control flow. A list of what is allowed: what is
/// not known is never copied.
pub(crate) fn runs_as_it_is(instruction: &Instruction) -> bool {
    if !matches!(instruction.encoding(), EncodingKind::Legacy | EncodingKind::VEX) {
        return false;
    }
    let features = instruction.cpuid_features();
    if !features.iter().all(|feature| is_integer(*feature) || is_vector(*feature)) {
        return false;
    }
    if instruction.is_vsib() || instruction.has_op_mask() || instruction.is_string_instruction() {
        return false;
    }
    // Its own word may be far from the operand that would be checked.
    if matches!(instruction.op0_kind(), OpKind::Memory) && is_bit_test_by_register(instruction) {
        return false;
    }
    // 32-bit code has no YMM8 to YMM15 to clear (SDM vol. 2C, VZEROALL, VZEROUPPER).
    if matches!(instruction.mnemonic(), Mnemonic::Vzeroall | Mnemonic::Vzeroupper)
        && instruction.code_size() != CodeSize::Code64
    {
        return false;
    }
    if features.iter().any(|feature| is_vector(*feature)) {
        return !is_left_vector(instruction.mnemonic());
    }
    is_known_integer(instruction.mnemonic())
}

/// BT and its like with the number of the bit in a register.
fn is_bit_test_by_register(instruction: &Instruction) -> bool {
    use Mnemonic::{Bt, Btc, Btr, Bts};
    matches!(instruction.mnemonic(), Bt | Btc | Btr | Bts)
        && instruction.op1_kind() == OpKind::Register
}

/// A bit test whose memory operand begins where the bit offset says. Those of 16 bits are rare.
pub(crate) fn is_bit_string(instruction: &Instruction) -> bool {
    is_bit_test_by_register(instruction)
        && instruction.op0_kind() == OpKind::Memory
        && instruction.op1_register().size() >= 4
}

/// Vector instructions with implied operands, or that fences and caches are made of.
fn is_left_vector(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{
        Clflush, Fxrstor, Fxrstor64, Fxsave, Fxsave64, Maskmovdqu, Maskmovq, Vldmxcsr, Vmaskmovdqu,
        Vmaskmovpd, Vmaskmovps, Vpmaskmovd, Vpmaskmovq, Vstmxcsr,
    };
    matches!(
        mnemonic,
        Clflush
            | Fxrstor
            | Fxrstor64
            | Fxsave
            | Fxsave64
            | Maskmovdqu
            | Maskmovq
            | Vldmxcsr
            | Vmaskmovdqu
            | Vmaskmovpd
            | Vmaskmovps
            | Vpmaskmovd
            | Vpmaskmovq
            | Vstmxcsr
    )
}

fn is_known_integer(mnemonic: Mnemonic) -> bool {
    KNOWN_INTEGER.contains(&mnemonic)
}

/// Neither sensitive nor control flow, on general registers and memory.
const KNOWN_INTEGER: &[Mnemonic] = {
    use Mnemonic::{
        Adc, Adcx, Add, Adox, And, Andn, Bextr, Blsi, Blsmsk, Blsr, Bsf, Bsr, Bswap, Bt, Btc, Btr,
        Bts, Bzhi, Cbw, Cdq, Cdqe, Clc, Cmc, Cmova, Cmovae, Cmovb, Cmovbe, Cmove, Cmovg, Cmovge,
        Cmovl, Cmovle, Cmovne, Cmovno, Cmovnp, Cmovns, Cmovo, Cmovp, Cmovs, Cmp, Cmpxchg,
        Cmpxchg8b, Cmpxchg16b, Cqo, Cwd, Cwde, Dec, Div, Idiv, Imul, Inc, Lahf, Lzcnt, Mov, Movbe,
        Movsx, Movsxd, Movzx, Mul, Mulx, Neg, Not, Or, Pause, Pdep, Pext, Popcnt, Rcl, Rcr, Rol,
        Ror, Rorx, Sahf, Sal, Sar, Sarx, Sbb, Seta, Setae, Setb, Setbe, Sete, Setg, Setge, Setl,
        Setle, Setne, Setno, Setnp, Setns, Seto, Setp, Sets, Shl, Shld, Shlx, Shr, Shrd, Shrx, Stc,
        Sub, Test, Tzcnt, Xadd, Xchg, Xor,
    };
    &[
        Adc, Adcx, Add, Adox, And, Andn, Bextr, Blsi, Blsmsk, Blsr, Bsf, Bsr, Bswap, Bt, Btc, Btr,
        Bts, Bzhi, Cbw, Cdq, Cdqe, Clc, Cmc, Cmova, Cmovae, Cmovb, Cmovbe, Cmove, Cmovg, Cmovge,
        Cmovl, Cmovle, Cmovne, Cmovno, Cmovnp, Cmovns, Cmovo, Cmovp, Cmovs, Cmp, Cmpxchg,
        Cmpxchg8b, Cmpxchg16b, Cqo, Cwd, Cwde, Dec, Div, Idiv, Imul, Inc, Lahf, Lzcnt, Mov, Movbe,
        Movsx, Movsxd, Movzx, Mul, Mulx, Neg, Not, Or, Pause, Pdep, Pext, Popcnt, Rcl, Rcr, Rol,
        Ror, Rorx, Sahf, Sal, Sar, Sarx, Sbb, Seta, Setae, Setb, Setbe, Sete, Setg, Setge, Setl,
        Setle, Setne, Setno, Setnp, Setns, Seto, Setp, Sets, Shl, Shld, Shlx, Shr, Shrd, Shrx, Stc,
        Sub, Test, Tzcnt, Xadd, Xchg, Xor,
    ]
};
