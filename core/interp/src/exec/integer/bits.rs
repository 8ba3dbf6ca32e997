//! BT, BTS, BTR, BTC, BSF, BSR, LZCNT, TZCNT, POPCNT (SDM vol. 2).

use iced_x86::{Instruction, Mnemonic};
use kasane_memory::Scalar;
use kasane_spec_x86::flags;

use super::arith::{bits, sign_extend};
use super::form::{Imm, Kind, Lock, Locked, Plain, RegB, Source, kind, size, sourced, wide, with};
use crate::cpu::{Cpu, Stop};
use crate::op::{Lowered, Op};

/// What happens to the tested bit.
trait BitOp {
    /// The operand is written.
    const WRITES: bool = true;
    /// The operand with the bit changed.
    fn change(value: u64, bit: u64) -> u64;
}
struct Bt;
struct Bts;
struct Btr;
struct Btc;
impl BitOp for Bt {
    const WRITES: bool = false;
    fn change(value: u64, _: u64) -> u64 {
        value
    }
}
impl BitOp for Bts {
    fn change(value: u64, bit: u64) -> u64 {
        value | bit
    }
}
impl BitOp for Btr {
    fn change(value: u64, bit: u64) -> u64 {
        value & !bit
    }
}
impl BitOp for Btc {
    fn change(value: u64, bit: u64) -> u64 {
        value ^ bit
    }
}

/// The bit's place in its operand.
#[inline(always)]
fn place<T: Scalar>(offset: u64) -> u32 {
    (offset & u64::from(bits::<T>() - 1)) as u32
}

/// CF is the old bit; the other flags, undefined or unchanged, stay.
fn set_carry(cpu: &mut Cpu, value: u64, place: u32) {
    cpu.set_flags(flags::CF, value >> place & 1);
}

fn bit_r<T: Scalar, O: BitOp, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let n = place::<T>(S::get::<T>(cpu, op)?.to_u64());
    let value = cpu.get::<T>(op.a).to_u64();
    set_carry(cpu, value, n);
    if O::WRITES {
        cpu.set(op.a, T::from_u64(O::change(value, 1 << n)));
    }
    Ok(())
}

fn bit_at<T: Scalar, O: BitOp, L: Lock>(
    cpu: &mut Cpu,
    op: &Op,
    at: u64,
    n: u32,
) -> Result<(), Stop> {
    let old = if O::WRITES {
        let change = |v: T| T::from_u64(O::change(v.to_u64(), 1 << n));
        cpu.update::<T>(op.mem.seg, at, L::LOCKED, change)?.0
    } else {
        cpu.read::<T>(op.mem.seg, at)?
    };
    set_carry(cpu, old.to_u64(), n);
    Ok(())
}

/// An immediate offset stays inside the operand.
fn bit_mi<T: Scalar, O: BitOp, L: Lock>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let at = cpu.ea(op);
    bit_at::<T, O, L>(cpu, op, at, place::<T>(op.imm))
}

/// A register offset is signed and reaches beyond the operand (SDM vol. 1 §3.1.1.9, Bit(Base,
/// Offset)), in steps of the operand's size.
fn bit_mr<T: Scalar, O: BitOp, L: Lock>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let offset = sign_extend::<T>(cpu.get::<T>(op.b).to_u64());
    let element = (offset as i64 >> bits::<T>().trailing_zeros()) as u64;
    let at = cpu.ea(op).wrapping_add(element.wrapping_mul(T::SIZE as u64)) & op.mem.mask;
    bit_at::<T, O, L>(cpu, op, at, place::<T>(offset))
}

fn bit<O: BitOp>(instr: &Instruction) -> Option<Lowered> {
    let n = size(instr, 0);
    let run = match (kind(instr, 0), kind(instr, 1), instr.has_lock_prefix()) {
        (Kind::Reg, Kind::Reg, _) => wide!(n, bit_r, O, RegB),
        (Kind::Reg, Kind::Imm, _) => wide!(n, bit_r, O, Imm),
        (Kind::Mem, Kind::Reg, false) => wide!(n, bit_mr, O, Plain),
        (Kind::Mem, Kind::Imm, false) => wide!(n, bit_mi, O, Plain),
        (Kind::Mem, Kind::Reg, true) => wide!(n, bit_mr, O, Locked),
        (Kind::Mem, Kind::Imm, true) => wide!(n, bit_mi, O, Locked),
        _ => return None,
    };
    with(run, instr)
}

/// For a zero source BSF and BSR leave the destination as it is: undefined in the manual of
/// Intel (SDM vol. 2, BSF), defined in AMD's, and what both companies' processors do.
fn scan<T: Scalar>(cpu: &mut Cpu, op: &Op, value: u64, found: u32) {
    let zero = if value == 0 { flags::ZF } else { 0 };
    cpu.set_flags(flags::ARITHMETIC, zero);
    if value != 0 {
        cpu.set(op.a, T::from_u64(u64::from(found)));
    }
}

fn bsf_of<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value = S::get::<T>(cpu, op)?.to_u64();
    scan::<T>(cpu, op, value, value.trailing_zeros());
    Ok(())
}

fn bsr_of<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value = S::get::<T>(cpu, op)?.to_u64();
    scan::<T>(cpu, op, value, 63u32.wrapping_sub(value.leading_zeros()));
    Ok(())
}

/// CF: the source was zero; ZF: the result is.
fn count<T: Scalar>(cpu: &mut Cpu, op: &Op, value: u64, result: u32) {
    let cf = if value == 0 { flags::CF } else { 0 };
    let zf = if result == 0 { flags::ZF } else { 0 };
    cpu.set_flags(flags::ARITHMETIC, cf | zf);
    cpu.set(op.a, T::from_u64(u64::from(result)));
}

fn tzcnt_of<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value = S::get::<T>(cpu, op)?.to_u64();
    count::<T>(cpu, op, value, value.trailing_zeros().min(bits::<T>()));
    Ok(())
}

fn lzcnt_of<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value = S::get::<T>(cpu, op)?.to_u64();
    count::<T>(cpu, op, value, value.leading_zeros().wrapping_sub(64 - bits::<T>()));
    Ok(())
}

fn popcnt_of<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value = S::get::<T>(cpu, op)?.to_u64();
    let zf = if value == 0 { flags::ZF } else { 0 };
    cpu.set_flags(flags::ARITHMETIC, zf);
    cpu.set(op.a, T::from_u64(u64::from(value.count_ones())));
    Ok(())
}

/// The handler of an instruction of this family.
pub(super) fn lower(instr: &Instruction) -> Option<Lowered> {
    let run = match instr.mnemonic() {
        Mnemonic::Bt => return bit::<Bt>(instr),
        Mnemonic::Bts => return bit::<Bts>(instr),
        Mnemonic::Btr => return bit::<Btr>(instr),
        Mnemonic::Btc => return bit::<Btc>(instr),
        Mnemonic::Bsf => sourced!(wide, instr, 1, RegB, bsf_of),
        Mnemonic::Bsr => sourced!(wide, instr, 1, RegB, bsr_of),
        Mnemonic::Tzcnt => sourced!(wide, instr, 1, RegB, tzcnt_of),
        Mnemonic::Lzcnt => sourced!(wide, instr, 1, RegB, lzcnt_of),
        Mnemonic::Popcnt => sourced!(wide, instr, 1, RegB, popcnt_of),
        _ => return None,
    };
    with(run, instr)
}
