//! MOV and its kin, LEA, XCHG, BSWAP, CMOVcc, SETcc, MOVBE, XLAT, MOVNTI.

use iced_x86::{Instruction, Mnemonic};
use kasane_cpu::Gpr;
use kasane_memory::Scalar;

use super::arith::{bits, holds, sign_extend};
use super::form::{
    Imm, Kind, Mem, RegB, Source, conditional, kind, long, size, sized, sourced, wide, with,
};
use crate::cpu::{Cpu, Stop};
use crate::op::{Lowered, Op};

fn mov_r<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value = S::get::<T>(cpu, op)?;
    cpu.set(op.a, value);
    Ok(())
}

fn mov_m<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value = S::get::<T>(cpu, op)?;
    cpu.write(op.mem.seg, cpu.ea(op), value)
}

fn mov(instr: &Instruction) -> Option<Lowered> {
    let n = size(instr, 0);
    let run = match (kind(instr, 0), kind(instr, 1)) {
        (Kind::Reg, Kind::Reg) => sized!(n, mov_r, RegB),
        (Kind::Reg, Kind::Imm) => sized!(n, mov_r, Imm),
        (Kind::Reg, Kind::Mem) => sized!(n, mov_r, Mem),
        (Kind::Mem, Kind::Reg) => sized!(n, mov_m, RegB),
        (Kind::Mem, Kind::Imm) => sized!(n, mov_m, Imm),
        _ => return None,
    };
    with(run, instr)
}

fn movzx_from<From: Scalar, To: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value = S::get::<From>(cpu, op)?;
    cpu.set(op.a, To::from_u64(value.to_u64()));
    Ok(())
}

fn movsx_from<From: Scalar, To: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value = S::get::<From>(cpu, op)?;
    cpu.set(op.a, To::from_u64(sign_extend::<From>(value.to_u64())));
    Ok(())
}

macro_rules! extending {
    ($instr:expr, $f:ident) => {
        match size($instr, 0) {
            2 => sourced!(sized, $instr, 1, RegB, $f, u16),
            4 => sourced!(sized, $instr, 1, RegB, $f, u32),
            8 => sourced!(sized, $instr, 1, RegB, $f, u64),
            _ => return None,
        }
    };
}

fn movzx(instr: &Instruction) -> Option<Lowered> {
    let run = extending!(instr, movzx_from);
    with(run, instr)
}

fn movsx(instr: &Instruction) -> Option<Lowered> {
    let run = extending!(instr, movsx_from);
    with(run, instr)
}

fn lea_to<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let at = cpu.ea(op);
    cpu.set(op.a, T::from_u64(at));
    Ok(())
}

fn xchg_rr<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let a: T = cpu.get(op.a);
    let b: T = cpu.get(op.b);
    cpu.set(op.a, b);
    cpu.set(op.b, a);
    Ok(())
}

/// Always atomic (SDM vol. 2, XCHG). The register is operand 1.
fn xchg_mr<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let new: T = cpu.get(op.b);
    let (old, _) = cpu.update(op.mem.seg, cpu.ea(op), true, |_| new)?;
    cpu.set(op.b, old);
    Ok(())
}

fn xchg(instr: &Instruction) -> Option<Lowered> {
    let n = size(instr, 0);
    match (kind(instr, 0), kind(instr, 1)) {
        (Kind::Reg, Kind::Reg) => with(sized!(n, xchg_rr), instr),
        (Kind::Mem, Kind::Reg) => with(sized!(n, xchg_mr), instr),
        (Kind::Reg, Kind::Mem) => {
            let lowered = Lowered::operands(sized!(n, xchg_mr), instr);
            Some(Lowered { b: lowered.a, ..lowered })
        }
        _ => None,
    }
}

/// For 16 bits, where it is undefined (SDM vol. 2, BSWAP), processors give zero.
fn bswap_r<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value = swapped::<T>(cpu.get::<T>(op.a).to_u64());
    cpu.set(op.a, T::from_u64(if T::SIZE == 2 { 0 } else { value }));
    Ok(())
}

fn swapped<T: Scalar>(value: u64) -> u64 {
    value.swap_bytes() >> (64 - bits::<T>())
}

fn movbe_load<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value: T = cpu.read(op.mem.seg, cpu.ea(op))?;
    cpu.set(op.a, T::from_u64(swapped::<T>(value.to_u64())));
    Ok(())
}

fn movbe_store<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value = swapped::<T>(cpu.get::<T>(op.b).to_u64());
    cpu.write(op.mem.seg, cpu.ea(op), T::from_u64(value))
}

fn cmov_to<T: Scalar, S: Source, const CC: u8>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let source = S::get::<T>(cpu, op)?;
    let old: T = cpu.get(op.a);
    // 32 bits zero-extend even if nothing is moved.
    cpu.set(op.a, if holds::<CC>(cpu.state.rflags) { source } else { old });
    Ok(())
}

fn cmov(instr: &Instruction, cc: u8) -> Option<Lowered> {
    let run = match (size(instr, 0), kind(instr, 1)) {
        (2, Kind::Reg) => conditional!(cc, cmov_to, u16, RegB),
        (4, Kind::Reg) => conditional!(cc, cmov_to, u32, RegB),
        (8, Kind::Reg) => conditional!(cc, cmov_to, u64, RegB),
        (2, Kind::Mem) => conditional!(cc, cmov_to, u16, Mem),
        (4, Kind::Mem) => conditional!(cc, cmov_to, u32, Mem),
        (8, Kind::Mem) => conditional!(cc, cmov_to, u64, Mem),
        _ => return None,
    };
    with(run, instr)
}

fn setcc_r<const CC: u8>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value = u8::from(holds::<CC>(cpu.state.rflags));
    cpu.set(op.a, value);
    Ok(())
}

fn setcc_m<const CC: u8>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value = u8::from(holds::<CC>(cpu.state.rflags));
    cpu.write(op.mem.seg, cpu.ea(op), value)
}

fn setcc(instr: &Instruction, cc: u8) -> Option<Lowered> {
    let run = match kind(instr, 0) {
        Kind::Reg => conditional!(cc, setcc_r),
        Kind::Mem => conditional!(cc, setcc_m),
        _ => return None,
    };
    with(run, instr)
}

/// AL = [rBX + AL].
fn xlat(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let at = cpu.reg(Gpr::Rbx).wrapping_add(cpu.reg(Gpr::Rax) & 0xFF) & op.mem.mask;
    let value: u8 = cpu.read(op.mem.seg, at)?;
    cpu.set(Gpr::Rax as u8, value);
    Ok(())
}

/// The number of a condition (the low four bits of Jcc's opcode); 255 for none.
pub(super) fn condition(instr: &Instruction) -> u8 {
    (instr.condition_code() as u8).wrapping_sub(1)
}

/// The handler of an instruction of this family.
pub(super) fn lower(instr: &Instruction) -> Option<Lowered> {
    let n = size(instr, 0);
    match instr.mnemonic() {
        Mnemonic::Mov => mov(instr),
        Mnemonic::Movnti => with(long!(n, mov_m, RegB), instr),
        Mnemonic::Movzx => movzx(instr),
        Mnemonic::Movsx | Mnemonic::Movsxd => movsx(instr),
        Mnemonic::Lea => with(wide!(n, lea_to), instr),
        Mnemonic::Xchg => xchg(instr),
        Mnemonic::Bswap => with(wide!(n, bswap_r), instr),
        Mnemonic::Movbe if kind(instr, 0) == Kind::Reg => with(wide!(n, movbe_load), instr),
        Mnemonic::Movbe => with(wide!(n, movbe_store), instr),
        Mnemonic::Xlatb => with(xlat, instr),
        Mnemonic::Cmovo
        | Mnemonic::Cmovno
        | Mnemonic::Cmovb
        | Mnemonic::Cmovae
        | Mnemonic::Cmove
        | Mnemonic::Cmovne
        | Mnemonic::Cmovbe
        | Mnemonic::Cmova
        | Mnemonic::Cmovs
        | Mnemonic::Cmovns
        | Mnemonic::Cmovp
        | Mnemonic::Cmovnp
        | Mnemonic::Cmovl
        | Mnemonic::Cmovge
        | Mnemonic::Cmovle
        | Mnemonic::Cmovg => cmov(instr, condition(instr)),
        Mnemonic::Seto
        | Mnemonic::Setno
        | Mnemonic::Setb
        | Mnemonic::Setae
        | Mnemonic::Sete
        | Mnemonic::Setne
        | Mnemonic::Setbe
        | Mnemonic::Seta
        | Mnemonic::Sets
        | Mnemonic::Setns
        | Mnemonic::Setp
        | Mnemonic::Setnp
        | Mnemonic::Setl
        | Mnemonic::Setge
        | Mnemonic::Setle
        | Mnemonic::Setg => setcc(instr, condition(instr)),
        _ => None,
    }
}
