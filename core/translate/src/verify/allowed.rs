//! Which instructions may stand in a block at all, whatever is known of registers.
//!
//! A list of what is allowed, and one of its own: the emitter's may be wrong.

use iced_x86::{
    Code, CpuidFeature, EncodingKind, FlowControl, Instruction, Mnemonic, OpKind, Register,
};

use super::{Vectors, Why};

/// Judges an instruction by itself. `bytes`: its encoding.
pub(super) fn judge(instruction: &Instruction, bytes: &[u8], vectors: Vectors) -> Result<(), Why> {
    if instruction.is_invalid() {
        return Err(Why::NoInstruction);
    }
    judge_prefixes(instruction, bytes)?;
    judge_registers(instruction)?;
    if instruction.flow_control() != FlowControl::Next {
        return if is_known_jump(instruction) { Ok(()) } else { Err(Why::Instruction) };
    }
    if instruction.is_privileged() || instruction.is_stack_instruction() {
        return Err(Why::Instruction);
    }
    if instruction.is_string_instruction() {
        return if string(instruction).is_some() { Ok(()) } else { Err(Why::Instruction) };
    }
    if !is_copied(instruction) {
        return Err(Why::Instruction);
    }
    if !has_vectors(instruction, vectors) {
        return Err(Why::Vectors);
    }
    Ok(())
}

/// No segment but those with base 0, no addresses of 32 bits, and nothing in front of a jump,
/// whose meaning differs between manufacturers then.
fn judge_prefixes(instruction: &Instruction, bytes: &[u8]) -> Result<(), Why> {
    let jumps = instruction.flow_control() != FlowControl::Next;
    for byte in bytes {
        match byte {
            0x26 | 0x2E | 0x36 | 0x3E | 0x64 | 0x65 | 0x67 => return Err(Why::Prefix),
            0x66 | 0xF0 | 0xF2 | 0xF3 if jumps => return Err(Why::Prefix),
            0x66 | 0xF0 | 0xF2 | 0xF3 => {}
            _ => break,
        }
    }
    Ok(())
}

/// No segment, control or debug registers, no MMX, x87 or mask registers, and not RSP but as a
/// base.
fn judge_registers(instruction: &Instruction) -> Result<(), Why> {
    for n in 0..instruction.op_count() {
        match instruction.op_kind(n) {
            OpKind::Register => {
                let register = instruction.op_register(n);
                let known = register.is_gpr() || is_vector(register);
                if !known || register.full_register() == Register::RSP {
                    return Err(Why::Register);
                }
            }
            OpKind::Memory => {
                let known =
                    |register: Register| matches!(register, Register::None) || register.is_gpr64();
                let (base, index) = (instruction.memory_base(), instruction.memory_index());
                if !known(base) || !known(index) || instruction.is_vsib() {
                    return Err(Why::Register);
                }
                if base == Register::RSP && instruction.mnemonic() == Mnemonic::Lea {
                    return Err(Why::Register);
                }
            }
            _ => {}
        }
    }
    if instruction.has_op_mask() { Err(Why::Register) } else { Ok(()) }
}

/// XMM0 to XMM15 and YMM0 to YMM15.
fn is_vector(register: Register) -> bool {
    (register.is_xmm() || register.is_ymm()) && register.number() < 16
}

fn is_known_jump(instruction: &Instruction) -> bool {
    match instruction.code() {
        // A CALL is a way out, see `ways`.
        Code::Jmp_rel8_64 | Code::Jmp_rel32_64 | Code::Jmp_rm64 | Code::Call_rel32_64 => true,
        _ => instruction.is_jcc_short_or_near() && instruction.op0_kind() == OpKind::NearBranch64,
    }
}

/// A string instruction that may stand in a block: repeated, with 64-bit addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StringUse {
    /// Bytes of an element.
    pub(super) size: u32,
    /// It reads at RSI, and does not only write at RDI.
    pub(super) copies: bool,
}

pub(super) fn string(instruction: &Instruction) -> Option<StringUse> {
    let (size, copies) = match instruction.code() {
        Code::Stosb_m8_AL => (1, false),
        Code::Stosw_m16_AX => (2, false),
        Code::Stosd_m32_EAX => (4, false),
        Code::Stosq_m64_RAX => (8, false),
        Code::Movsb_m8_m8 => (1, true),
        Code::Movsw_m16_m16 => (2, true),
        Code::Movsd_m32_m32 => (4, true),
        Code::Movsq_m64_m64 => (8, true),
        _ => return None,
    };
    let wide = instruction.op0_kind() == OpKind::MemoryESRDI
        && (!copies || instruction.op1_kind() == OpKind::MemorySegRSI);
    let repeated = instruction.has_rep_prefix() && !instruction.has_repne_prefix();
    (wide && repeated).then_some(StringUse { size, copies })
}

/// Neither sensitive nor with any effect but on registers, flags and an explicit operand.
fn is_copied(instruction: &Instruction) -> bool {
    if !matches!(instruction.encoding(), EncodingKind::Legacy | EncodingKind::VEX) {
        return false;
    }
    let features = instruction.cpuid_features();
    if features.iter().any(|feature| VECTOR_FEATURES.contains(feature)) {
        return features.iter().all(|f| VECTOR_FEATURES.contains(f) || is_plain_feature(*f))
            && !EXCEPT.contains(&instruction.mnemonic());
    }
    GENERAL.iter().any(|group| group.contains(&instruction.mnemonic()))
}

/// Features that vector instructions need besides.
fn is_plain_feature(feature: CpuidFeature) -> bool {
    matches!(feature, CpuidFeature::X64 | CpuidFeature::INTEL8086)
}

/// Vector instructions are allowed by feature.
const VECTOR_FEATURES: &[CpuidFeature] = {
    use CpuidFeature::{
        AES, AVX, AVX2, F16C, FMA, PCLMULQDQ, SHA, SSE, SSE2, SSE3, SSE4_1, SSE4_2, SSSE3,
    };
    &[SSE, SSE2, SSE3, SSSE3, SSE4_1, SSE4_2, AVX, AVX2, FMA, F16C, AES, PCLMULQDQ, SHA]
};

/// But not those with an operand in memory that no field of the instruction says, those that
/// flush caches, and MONITOR's, which came with SSE3.
const EXCEPT: &[Mnemonic] = {
    use Mnemonic::{Clflush, Maskmovdqu, Maskmovq, Monitor, Mwait, Vmaskmovdqu};
    &[Clflush, Maskmovdqu, Maskmovq, Monitor, Mwait, Vmaskmovdqu]
};

/// All others are allowed by name.
const GENERAL: &[&[Mnemonic]] = {
    use Mnemonic::*;
    &[
        // Moving.
        &[Mov, Movzx, Movsx, Movsxd, Movbe, Movnti, Xchg, Bswap, Lea, Cwde, Cdqe, Cbw],
        &[Cwd, Cdq, Cqo],
        // Arithmetic.
        &[Add, Adc, Adcx, Adox, Sub, Sbb, Cmp, Neg, Inc, Dec, Mul, Mulx, Imul, Div, Idiv],
        &[Xadd, Cmpxchg, Cmpxchg8b, Cmpxchg16b],
        // Bits.
        &[And, Andn, Or, Xor, Not, Test, Bt, Btc, Btr, Bts, Bsf, Bsr, Lzcnt, Tzcnt, Popcnt],
        &[Bextr, Blsi, Blsmsk, Blsr, Bzhi, Pdep, Pext],
        // Shifts.
        &[Sal, Shl, Shr, Sar, Shld, Shrd, Rol, Ror, Rcl, Rcr, Rorx, Sarx, Shlx, Shrx],
        // Flags.
        &[Clc, Cmc, Stc, Lahf, Sahf],
        // By condition.
        &[Cmova, Cmovae, Cmovb, Cmovbe, Cmove, Cmovg, Cmovge, Cmovl, Cmovle, Cmovne, Cmovno],
        &[Cmovnp, Cmovns, Cmovo, Cmovp, Cmovs],
        &[Seta, Setae, Setb, Setbe, Sete, Setg, Setge, Setl, Setle, Setne, Setno, Setnp, Setns],
        &[Seto, Setp, Sets],
        // Order, hints, time.
        &[Nop, Pause, Lfence, Mfence, Sfence, Rdtsc],
    ]
};

/// Whether a block has the vector registers that an instruction needs. Where the guest's are not
/// in the host's, what stands there is the VMM's.
fn has_vectors(instruction: &Instruction, vectors: Vectors) -> bool {
    use Mnemonic::{Lfence, Mfence, Movnti, Sfence};
    let general = matches!(instruction.mnemonic(), Lfence | Mfence | Sfence | Movnti);
    let needs = instruction.cpuid_features().iter().any(|f| VECTOR_FEATURES.contains(f));
    if general || !needs {
        return true;
    }
    match instruction.encoding() {
        EncodingKind::VEX => vectors == Vectors::Avx,
        _ => vectors != Vectors::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    fn judged(bytes: &[u8]) -> Result<(), Why> {
        let instruction = Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE).decode();
        judge(&instruction, bytes, Vectors::Avx)
    }

    #[test]
    fn sensitive_and_unusual_instructions_are_refused() {
        let refused: &[(&[u8], Why)] = &[
            (&[0x0F, 0x05], Why::Instruction),                      // syscall
            (&[0x0F, 0x34], Why::Instruction),                      // sysenter
            (&[0xCD, 0x80], Why::Instruction),                      // int 80h
            (&[0xCC], Why::Instruction),                            // int3
            (&[0x0F, 0x0B], Why::Instruction),                      // ud2
            (&[0xFF, 0xD0], Why::Instruction),                      // call rax
            (&[0xC3], Why::Instruction),                            // ret
            (&[0xCB], Why::Instruction),                            // retf
            (&[0xFF, 0x28], Why::Instruction),                      // jmp far [rax]
            (&[0x50], Why::Instruction),                            // push rax
            (&[0x58], Why::Instruction),                            // pop rax
            (&[0x9D], Why::Instruction),                            // popfq
            (&[0xC9], Why::Instruction),                            // leave
            (&[0xFD], Why::Instruction),                            // std
            (&[0xF4], Why::Instruction),                            // hlt
            (&[0xE4, 0x60], Why::Instruction),                      // in al, 60h
            (&[0x6C], Why::Instruction),                            // insb
            (&[0xAA], Why::Instruction),                            // stosb, alone
            (&[0xF3, 0xA6], Why::Instruction),                      // repe cmpsb
            (&[0xE3, 0x00], Why::Instruction),                      // jrcxz
            (&[0xE2, 0x00], Why::Instruction),                      // loop
            (&[0x0F, 0xA2], Why::Instruction),                      // cpuid
            (&[0x0F, 0x01, 0xF9], Why::Instruction),                // rdtscp
            (&[0x0F, 0x01, 0xD0], Why::Instruction),                // xgetbv
            (&[0x0F, 0x01, 0x00], Why::Instruction),                // sgdt [rax]
            (&[0x0F, 0x20, 0xC0], Why::Register),                   // mov rax, cr0
            (&[0x8C, 0xD8], Why::Register),                         // mov eax, ds
            (&[0x8E, 0xD8], Why::Register),                         // mov ds, eax
            (&[0xF3, 0x48, 0x0F, 0xAE, 0xD0], Why::Instruction),    // wrfsbase rax
            (&[0xD7], Why::Instruction),                            // xlatb
            (&[0xD9, 0xE8], Why::Instruction),                      // fld1
            (&[0x0F, 0xAE, 0x00], Why::Instruction),                // fxsave [rax]
            (&[0x0F, 0xAE, 0x38], Why::Instruction),                // clflush [rax]
            (&[0x66, 0x0F, 0xF7, 0xC1], Why::Instruction),          // maskmovdqu xmm0, xmm1
            (&[0x0F, 0x6F, 0x00], Why::Register),                   // movq mm0, [rax]
            (&[0xC4, 0xE2, 0x69, 0x90, 0x04, 0x08], Why::Register), // vpgatherdd
            (&[0x62, 0xF1, 0x7C, 0x48, 0x10, 0x00], Why::Instruction), // vmovups zmm0, [rax]
        ];
        for (bytes, why) in refused {
            let found = judged(bytes);
            assert!(found == Err(*why) || found == Err(Why::Register), "{bytes:02x?}: {found:?}");
        }
    }

    #[test]
    fn the_stack_pointer_segments_and_short_addresses_are_refused() {
        let refused: &[(&[u8], Why)] = &[
            (&[0x48, 0x89, 0xE0], Why::Register),             // mov rax, rsp
            (&[0x48, 0x89, 0xC4], Why::Register),             // mov rsp, rax
            (&[0x48, 0x83, 0xC4, 8], Why::Register),          // add rsp, 8
            (&[0x40, 0x88, 0xC4], Why::Register),             // mov spl, al
            (&[0x48, 0x8D, 0x04, 0x24], Why::Register),       // lea rax, [rsp]
            (&[0x48, 0x8D, 0x05, 0, 0, 0, 0], Why::Register), // lea rax, [rip]
            (&[0x48, 0x8B, 0x05, 0, 0, 0, 0], Why::Register), // mov rax, [rip]
            (&[0x64, 0x48, 0x8B, 0x04, 0x24], Why::Prefix),   // mov rax, fs:[rsp]
            (&[0x3E, 0x48, 0x8B, 0x04, 0x24], Why::Prefix),   // mov rax, ds:[rsp]
            (&[0x67, 0x48, 0x8B, 0x00], Why::Prefix),         // mov rax, [eax]
            (&[0x66, 0xE9, 0, 0, 0, 0], Why::Prefix),         // jmp, as wide as the CPU likes
        ];
        for (bytes, why) in refused {
            assert_eq!(judged(bytes), Err(*why), "{bytes:02x?}");
        }
    }

    #[test]
    fn vector_instructions_need_the_guests_vectors() {
        let judged = |bytes: &[u8], vectors| {
            let instruction = Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE).decode();
            judge(&instruction, bytes, vectors)
        };
        let (sse, avx) = ([0x0F, 0x58, 0xC1], [0xC5, 0xF4, 0x58, 0xC2]); // addps, vaddps
        let ldmxcsr = [0x0F, 0xAE, 0x14, 0x24];
        assert_eq!(judged(&sse, Vectors::None), Err(Why::Vectors));
        assert_eq!(judged(&ldmxcsr, Vectors::None), Err(Why::Vectors));
        assert_eq!(judged(&sse, Vectors::Sse), Ok(()));
        assert_eq!(judged(&avx, Vectors::Sse), Err(Why::Vectors));
        assert_eq!(judged(&avx, Vectors::Avx), Ok(()));
        assert_eq!(judged(&[0x0F, 0xAE, 0xF0], Vectors::None), Ok(())); // mfence
    }
}
