//! PUSH, POP, PUSHA, POPA, ENTER, LEAVE (SDM vol. 2; stack widths: vol. 1 §6.2).

use iced_x86::{Instruction, Mnemonic};
use kasane_cpu::{Gpr, Seg};
use kasane_memory::Scalar;

use super::form::{Imm, Kind, Mem, RegA, Source, kind, wide, with};
use crate::cpu::{Cpu, Stop};
use crate::op::{Lowered, Op};

fn push_from<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value = S::get::<T>(cpu, op)?;
    cpu.push(value)
}

fn pop_r<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value: T = cpu.peek(0)?;
    cpu.drop_stack(T::SIZE as u64);
    cpu.set(op.a, value);
    Ok(())
}

/// An address with RSP in it uses the incremented pointer.
fn pop_m<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value: T = cpu.peek(0)?;
    let before = cpu.reg(Gpr::Rsp);
    cpu.drop_stack(T::SIZE as u64);
    let written = cpu.write(op.mem.seg, cpu.ea(op), value);
    if written.is_err() {
        cpu.set_reg(Gpr::Rsp, before);
    }
    written
}

fn pusha<T: Scalar>(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    let size = T::SIZE as u64;
    let top = cpu.stack_pointer();
    let registers = cpu.state.gpr;
    for (i, value) in (1u64..).zip(registers.into_iter().take(8)) {
        let at = top.wrapping_sub(i.wrapping_mul(size)) & cpu.mode.stack_mask;
        cpu.write(Seg::Ss, at, T::from_u64(value))?;
    }
    cpu.set_stack_pointer(top.wrapping_sub(size.wrapping_mul(8)));
    Ok(())
}

fn popa<T: Scalar>(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    let size = T::SIZE as u64;
    for (i, n) in (0u64..).zip((0u8..8).rev()) {
        // If a later read faults, the earlier registers have been written, as in Intel's
        // processors; the stack pointer has not, so it can be started again.
        let value: T = cpu.peek(i.wrapping_mul(size))?;
        if n != Gpr::Rsp as u8 {
            cpu.set(n, value);
        }
    }
    cpu.drop_stack(size.wrapping_mul(8));
    Ok(())
}

/// `imm` is the size of the frame, `c` the nesting level. Writes go below the stack pointer
/// before any register changes, so that a fault leaves nothing behind that counts.
fn enter_frame<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let mask = cpu.mode.stack_mask;
    let size = T::SIZE as u64;
    let level = op.c & 31;
    let mut sp = cpu.stack_pointer().wrapping_sub(size) & mask;
    let rbp = cpu.reg(Gpr::Rbp);
    cpu.write(Seg::Ss, sp, T::from_u64(rbp))?;
    let frame = sp;
    if level > 0 {
        let mut bp = rbp;
        for _ in 1..level {
            bp = bp.wrapping_sub(size);
            let value: T = cpu.read(Seg::Ss, bp & mask)?;
            sp = sp.wrapping_sub(size) & mask;
            cpu.write(Seg::Ss, sp, value)?;
        }
        sp = sp.wrapping_sub(size) & mask;
        cpu.write(Seg::Ss, sp, T::from_u64(frame))?;
    }
    sp = sp.wrapping_sub(op.imm) & mask;
    cpu.probe_write(Seg::Ss, sp, size)?;
    cpu.set(Gpr::Rbp as u8, T::from_u64(frame));
    cpu.set_stack_pointer(sp);
    Ok(())
}

fn leave_frame<T: Scalar>(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    let mask = cpu.mode.stack_mask;
    let bp = cpu.reg(Gpr::Rbp) & mask;
    let value: T = cpu.read(Seg::Ss, bp)?;
    cpu.set_stack_pointer(bp.wrapping_add(T::SIZE as u64));
    cpu.set(Gpr::Rbp as u8, value);
    Ok(())
}

fn operand_size(instr: &Instruction) -> usize {
    instr.stack_pointer_increment().unsigned_abs() as usize
}

fn enter(instr: &Instruction) -> Option<Lowered> {
    // Codes in order of operand size; the stack pointer's change is not constant.
    let run = match instr.code() {
        iced_x86::Code::Enterw_imm16_imm8 => enter_frame::<u16>,
        iced_x86::Code::Enterd_imm16_imm8 => enter_frame::<u32>,
        iced_x86::Code::Enterq_imm16_imm8 => enter_frame::<u64>,
        _ => return None,
    };
    let imm = u64::from(instr.immediate16());
    Some(Lowered { imm, c: instr.immediate8_2nd(), ..Lowered::plain(run) })
}

fn leave(instr: &Instruction) -> Option<Lowered> {
    let run = match instr.code() {
        iced_x86::Code::Leavew => leave_frame::<u16>,
        iced_x86::Code::Leaved => leave_frame::<u32>,
        iced_x86::Code::Leaveq => leave_frame::<u64>,
        _ => return None,
    };
    with(run, instr)
}

/// The handler of an instruction of this family.
pub(super) fn lower(instr: &Instruction) -> Option<Lowered> {
    let n = operand_size(instr);
    let run = match (instr.mnemonic(), kind(instr, 0)) {
        (Mnemonic::Push, Kind::Reg) => wide!(n, push_from, RegA),
        (Mnemonic::Push, Kind::Imm) => wide!(n, push_from, Imm),
        (Mnemonic::Push, Kind::Mem) => wide!(n, push_from, Mem),
        (Mnemonic::Pop, Kind::Reg) => wide!(n, pop_r),
        (Mnemonic::Pop, Kind::Mem) => wide!(n, pop_m),
        (Mnemonic::Pusha, _) => pusha::<u16>,
        (Mnemonic::Pushad, _) => pusha::<u32>,
        (Mnemonic::Popa, _) => popa::<u16>,
        (Mnemonic::Popad, _) => popa::<u32>,
        (Mnemonic::Enter, _) => return enter(instr),
        (Mnemonic::Leave, _) => return leave(instr),
        _ => return None,
    };
    with(run, instr)
}
