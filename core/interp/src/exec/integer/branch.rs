//! Near control flow: JMP, Jcc, CALL, RET, LOOPcc, JrCXZ.

use iced_x86::{Code, Instruction, Mnemonic, OpKind};
use kasane_cpu::{Gpr, Seg};
use kasane_memory::Scalar;
use kasane_spec_x86::flags;

use super::arith::holds;
use super::form::{RegA, Source, conditional, sourced, wide, with};
use super::moves::condition;
use crate::cpu::{Cpu, Stop};
use crate::op::{Lowered, Op};

/// Checks a branch target: canonical in 64-bit code, else within the code segment's limit.
#[inline(always)]
fn check_target(cpu: &mut Cpu, target: u64) -> Result<(), Stop> {
    let good =
        if cpu.code64() { Cpu::canonical(target) } else { target <= u64::from(cpu.state.cs.limit) };
    if good { Ok(()) } else { Err(cpu.gp(0)) }
}

/// `imm` is the target.
fn jump(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    check_target(cpu, op.imm)?;
    cpu.next_rip = op.imm;
    Ok(())
}

fn jump_if<const CC: u8>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    if holds::<CC>(cpu.state.rflags) {
        check_target(cpu, op.imm)?;
        cpu.next_rip = op.imm;
    }
    Ok(())
}

fn jump_to<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let target = S::get::<T>(cpu, op)?.to_u64();
    check_target(cpu, target)?;
    cpu.next_rip = target;
    Ok(())
}

/// Pushes the return address and goes to `target`. A stack that can't be written comes before a
/// target that can't be reached; then the address has been written, but the stack pointer stays
/// (as Intel's processors do it).
#[inline(always)]
fn call_target<T: Scalar>(cpu: &mut Cpu, op: &Op, target: u64) -> Result<(), Stop> {
    let sp = cpu.stack_pointer().wrapping_sub(T::SIZE as u64) & cpu.mode.stack_mask;
    cpu.write(Seg::Ss, sp, T::from_u64(op.next_rip))?;
    check_target(cpu, target)?;
    cpu.set_stack_pointer(sp);
    cpu.next_rip = target;
    Ok(())
}

fn call<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    call_target::<T>(cpu, op, op.imm)
}

fn call_to<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let target = S::get::<T>(cpu, op)?.to_u64();
    call_target::<T>(cpu, op, target)
}

/// `imm` bytes of parameters are dropped.
fn ret<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let target = cpu.peek::<T>(0)?.to_u64();
    check_target(cpu, target)?;
    cpu.drop_stack((T::SIZE as u64).wrapping_add(op.imm));
    cpu.next_rip = target;
    Ok(())
}

/// `a` says the width of the counter (its log2 in bytes), `b` the condition: 0 none, 1 equal,
/// 2 not equal.
fn loop_while(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let mask = counter_mask(op.a);
    let count = cpu.reg(Gpr::Rcx).wrapping_sub(1) & mask;
    let equal = cpu.flag(flags::ZF);
    let taken = count != 0
        && match op.b {
            1 => equal,
            2 => !equal,
            _ => true,
        };
    if taken {
        check_target(cpu, op.imm)?;
        cpu.next_rip = op.imm;
    }
    cpu.set_masked(Gpr::Rcx, mask, count);
    Ok(())
}

fn jump_if_counter_zero(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    if cpu.reg(Gpr::Rcx) & counter_mask(op.a) == 0 {
        check_target(cpu, op.imm)?;
        cpu.next_rip = op.imm;
    }
    Ok(())
}

fn counter_mask(log2: u8) -> u64 {
    match log2 {
        1 => 0xFFFF,
        2 => 0xFFFF_FFFF,
        _ => u64::MAX,
    }
}

/// log2 of the counter's width in bytes.
fn counter(code: Code) -> Option<u8> {
    Some(match code {
        Code::Loop_rel8_16_CX
        | Code::Loop_rel8_32_CX
        | Code::Loope_rel8_16_CX
        | Code::Loope_rel8_32_CX
        | Code::Loopne_rel8_16_CX
        | Code::Loopne_rel8_32_CX
        | Code::Jcxz_rel8_16
        | Code::Jcxz_rel8_32 => 1,
        Code::Loop_rel8_16_ECX
        | Code::Loop_rel8_32_ECX
        | Code::Loop_rel8_64_ECX
        | Code::Loope_rel8_16_ECX
        | Code::Loope_rel8_32_ECX
        | Code::Loope_rel8_64_ECX
        | Code::Loopne_rel8_16_ECX
        | Code::Loopne_rel8_32_ECX
        | Code::Loopne_rel8_64_ECX
        | Code::Jecxz_rel8_16
        | Code::Jecxz_rel8_32
        | Code::Jecxz_rel8_64 => 2,
        Code::Loop_rel8_16_RCX
        | Code::Loop_rel8_64_RCX
        | Code::Loope_rel8_16_RCX
        | Code::Loope_rel8_64_RCX
        | Code::Loopne_rel8_16_RCX
        | Code::Loopne_rel8_64_RCX
        | Code::Jrcxz_rel8_16
        | Code::Jrcxz_rel8_64 => 3,
        _ => return None,
    })
}

fn is_near_branch(instr: &Instruction) -> bool {
    matches!(instr.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64)
}

fn indirect_jump(instr: &Instruction) -> Option<Lowered> {
    let near = matches!(instr.code(), Code::Jmp_rm16 | Code::Jmp_rm32 | Code::Jmp_rm64);
    let run = if near { sourced!(wide, instr, 0, RegA, jump_to) } else { return None };
    with(run, instr)
}

fn lower_call(instr: &Instruction) -> Option<Lowered> {
    let run = match instr.code() {
        Code::Call_rel16 => call::<u16>,
        Code::Call_rel32_32 => call::<u32>,
        Code::Call_rel32_64 => call::<u64>,
        Code::Call_rm16 | Code::Call_rm32 | Code::Call_rm64 => {
            return with(sourced!(wide, instr, 0, RegA, call_to), instr);
        }
        _ => return None,
    };
    Some(Lowered { imm: instr.near_branch_target(), ..Lowered::plain(run) })
}

fn lower_ret(instr: &Instruction) -> Option<Lowered> {
    let run = match instr.code() {
        Code::Retnw | Code::Retnw_imm16 => ret::<u16>,
        Code::Retnd | Code::Retnd_imm16 => ret::<u32>,
        Code::Retnq | Code::Retnq_imm16 => ret::<u64>,
        _ => return None,
    };
    with(run, instr)
}

/// The handler of an instruction of this family.
pub(super) fn lower(instr: &Instruction) -> Option<Lowered> {
    let imm = instr.near_branch_target();
    match instr.mnemonic() {
        Mnemonic::Jmp if is_near_branch(instr) => Some(Lowered { imm, ..Lowered::plain(jump) }),
        Mnemonic::Jmp => indirect_jump(instr),
        Mnemonic::Call => lower_call(instr),
        Mnemonic::Ret => lower_ret(instr),
        Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne => {
            let a = counter(instr.code())?;
            let b = match instr.mnemonic() {
                Mnemonic::Loope => 1,
                Mnemonic::Loopne => 2,
                _ => 0,
            };
            Some(Lowered { a, b, imm, ..Lowered::plain(loop_while) })
        }
        Mnemonic::Jcxz | Mnemonic::Jecxz | Mnemonic::Jrcxz => {
            let a = counter(instr.code())?;
            Some(Lowered { a, imm, ..Lowered::plain(jump_if_counter_zero) })
        }
        _ if is_near_branch(instr) && condition(instr) < 16 => {
            let run = conditional!(condition(instr), jump_if);
            Some(Lowered { imm, ..Lowered::plain(run) })
        }
        _ => None,
    }
}
