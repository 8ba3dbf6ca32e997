//! Building an instruction of a given opcode with random operands.

use iced_x86::{Code, Encoder, Instruction, OpCodeOperandKind as Kind, OpKind, Register};

use super::memory::{self, Place};
use crate::layout::CODE;
use crate::rng::Rng;

/// An instruction under construction.
pub(crate) struct Built {
    pub(crate) instr: Instruction,
    /// Where its memory operand shall be, and how its registers get there.
    pub(crate) place: Option<Place>,
}

fn nth(first: Register, n: u64) -> Register {
    Register::try_from(first as usize + n as usize).unwrap_or(first)
}

/// A random register of a class, if the kind is one of registers only.
fn register(kind: Kind, bits: u32, rng: &mut Rng) -> Option<Register> {
    let count = if bits == 64 { 16 } else { 8 };
    Some(match kind {
        Kind::r8_reg | Kind::r8_opcode | Kind::r8_or_mem => {
            nth(Register::AL, rng.below(count + count / 4 - if bits == 64 { 0 } else { 2 }))
        }
        Kind::r16_reg | Kind::r16_reg_mem | Kind::r16_rm | Kind::r16_opcode | Kind::r16_or_mem => {
            nth(Register::AX, rng.below(count))
        }
        Kind::r32_reg
        | Kind::r32_reg_mem
        | Kind::r32_rm
        | Kind::r32_opcode
        | Kind::r32_vvvv
        | Kind::r32_or_mem => nth(Register::EAX, rng.below(count)),
        Kind::r64_reg
        | Kind::r64_reg_mem
        | Kind::r64_rm
        | Kind::r64_opcode
        | Kind::r64_vvvv
        | Kind::r64_or_mem => nth(Register::RAX, rng.below(count)),
        Kind::mm_reg | Kind::mm_rm | Kind::mm_or_mem => nth(Register::MM0, rng.below(8)),
        Kind::xmm_reg | Kind::xmm_rm | Kind::xmm_vvvv | Kind::xmm_is4 | Kind::xmm_or_mem => {
            nth(Register::XMM0, rng.below(count))
        }
        Kind::ymm_reg | Kind::ymm_rm | Kind::ymm_vvvv | Kind::ymm_is4 | Kind::ymm_or_mem => {
            nth(Register::YMM0, rng.below(count))
        }
        Kind::es => Register::ES,
        Kind::cs => Register::CS,
        Kind::ss => Register::SS,
        Kind::ds => Register::DS,
        Kind::fs => Register::FS,
        Kind::gs => Register::GS,
        Kind::seg_reg => nth(Register::ES, rng.below(6)),
        Kind::al => Register::AL,
        Kind::cl => Register::CL,
        Kind::ax => Register::AX,
        Kind::dx => Register::DX,
        Kind::eax => Register::EAX,
        Kind::rax => Register::RAX,
        Kind::st0 => Register::ST0,
        Kind::sti_opcode => nth(Register::ST0, rng.below(8)),
        _ => return None,
    })
}

fn or_memory(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::r8_or_mem
            | Kind::r16_or_mem
            | Kind::r32_or_mem
            | Kind::r64_or_mem
            | Kind::mm_or_mem
            | Kind::xmm_or_mem
            | Kind::ymm_or_mem
    )
}

fn immediate(kind: Kind, rng: &mut Rng) -> Option<(OpKind, u64)> {
    let value = rng.corner();
    Some(match kind {
        Kind::imm8 => (OpKind::Immediate8, value & 0xFF),
        Kind::imm8_const_1 => (OpKind::Immediate8, 1),
        Kind::imm8sex16 => (OpKind::Immediate8to16, value as i8 as u64),
        Kind::imm8sex32 => (OpKind::Immediate8to32, value as i8 as u64),
        Kind::imm8sex64 => (OpKind::Immediate8to64, value as i8 as u64),
        Kind::imm16 => (OpKind::Immediate16, value & 0xFFFF),
        Kind::imm32 => (OpKind::Immediate32, value & 0xFFFF_FFFF),
        Kind::imm32sex64 => (OpKind::Immediate32to64, value as i32 as u64),
        Kind::imm64 => (OpKind::Immediate64, value),
        _ => return None,
    })
}

/// Address size in bits, the shorter one of the mode or its own.
fn width(bits: u32, short: bool) -> u32 {
    if short { bits / 2 } else { bits }
}

/// String operands of an address size.
fn string(kind: Kind, width: u32) -> Option<OpKind> {
    Some(match (kind, width) {
        (Kind::seg_rSI, 16) => OpKind::MemorySegSI,
        (Kind::seg_rSI, 32) => OpKind::MemorySegESI,
        (Kind::seg_rSI, _) => OpKind::MemorySegRSI,
        (Kind::es_rDI, 16) => OpKind::MemoryESDI,
        (Kind::es_rDI, 32) => OpKind::MemoryESEDI,
        (Kind::es_rDI, _) => OpKind::MemoryESRDI,
        (Kind::seg_rDI, 16) => OpKind::MemorySegDI,
        (Kind::seg_rDI, 32) => OpKind::MemorySegEDI,
        (Kind::seg_rDI, _) => OpKind::MemorySegRDI,
        _ => return None,
    })
}

/// Where a branch goes: mostly to INT3 nearby, sometimes behind itself or out of the code.
fn branch_target(rip: u64, rng: &mut Rng) -> u64 {
    match rng.below(8) {
        0 => rip.wrapping_add(2 + rng.below(6)),
        1 => CODE.wrapping_add(0x4000 + rng.below(0x1000)),
        _ => rip.wrapping_add(32 + rng.below(64)),
    }
}

/// Builds an instruction; `None` if these choices don't fit together.
pub(crate) fn build(code: Code, bits: u32, rip: u64, rng: &mut Rng) -> Option<Built> {
    let info = code.op_code();
    let mut instr = Instruction::default();
    instr.set_code(code);
    let mut place = None;
    let mut immediates = 0;
    let short = rng.chance(10);
    for n in 0..info.op_count() {
        let kind = info.op_kind(n);
        if or_memory(kind) && rng.chance(55) {
            place = Some(memory::operand(&mut instr, n, bits, rng));
        } else if let Some(register) = register(kind, bits, rng) {
            instr.set_op_kind(n, OpKind::Register);
            instr.set_op_register(n, register);
        } else if let Some((kind, value)) = immediate(kind, rng) {
            let second = immediates > 0 && kind == OpKind::Immediate8;
            instr.set_op_kind(n, if second { OpKind::Immediate8_2nd } else { kind });
            instr.set_immediate_u64(n, value);
            immediates += 1;
        } else if let Some(kind) = string(kind, width(bits, short)) {
            instr.set_op_kind(n, kind);
        } else {
            match kind {
                Kind::mem | Kind::sibmem => place = Some(memory::operand(&mut instr, n, bits, rng)),
                Kind::mem_offs => place = Some(memory::absolute(&mut instr, n, bits, rng)),
                Kind::mem_vsib32x | Kind::mem_vsib64x => {
                    place = Some(memory::vector_index(&mut instr, n, Register::XMM0, bits, rng));
                }
                Kind::mem_vsib32y | Kind::mem_vsib64y => {
                    place = Some(memory::vector_index(&mut instr, n, Register::YMM0, bits, rng));
                }
                Kind::seg_rBX_al => {
                    place = Some(memory::table(&mut instr, n, width(bits, short), rng))
                }
                Kind::br16_1 | Kind::br16_2 => {
                    instr.set_op_kind(n, OpKind::NearBranch16);
                    instr.set_near_branch16(branch_target(rip, rng) as u16);
                }
                Kind::br32_1 | Kind::br32_4 if bits == 32 => {
                    instr.set_op_kind(n, OpKind::NearBranch32);
                    instr.set_near_branch32(branch_target(rip, rng) as u32);
                }
                Kind::br32_1 | Kind::br64_1 | Kind::br32_4 | Kind::br64_4 => {
                    instr.set_op_kind(n, OpKind::NearBranch64);
                    instr.set_near_branch64(branch_target(rip, rng));
                }
                _ => return None,
            }
        }
    }
    prefixes(&mut instr, code, rng);
    Some(Built { instr, place })
}

fn prefixes(instr: &mut Instruction, code: Code, rng: &mut Rng) {
    let info = code.op_code();
    if info.can_use_lock_prefix() && instr.op0_kind() == OpKind::Memory {
        instr.set_has_lock_prefix(rng.chance(40));
    }
    if info.can_use_rep_prefix() {
        instr.set_has_rep_prefix(rng.chance(40));
    }
    if info.can_use_repne_prefix() && !instr.has_rep_prefix() {
        instr.set_has_repne_prefix(rng.chance(40));
    }
    let has_memory = (0..instr.op_count()).any(|n| {
        matches!(
            instr.op_kind(n),
            OpKind::Memory
                | OpKind::MemorySegRSI
                | OpKind::MemorySegESI
                | OpKind::MemorySegRDI
                | OpKind::MemorySegEDI
                | OpKind::MemorySegSI
                | OpKind::MemorySegDI
        )
    });
    if has_memory && instr.segment_prefix() == Register::None && rng.chance(8) {
        let segments = [Register::FS, Register::GS, Register::ES, Register::SS, Register::CS];
        instr.set_segment_prefix(rng.pick(&segments));
    }
}

/// The bytes of an instruction.
pub(crate) fn encode(instr: &Instruction, bits: u32, rip: u64) -> Option<Vec<u8>> {
    let mut encoder = Encoder::new(bits);
    encoder.encode(instr, rip).ok()?;
    Some(encoder.take_buffer())
}
