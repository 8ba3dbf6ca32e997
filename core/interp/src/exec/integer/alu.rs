//! ADD, ADC, SUB, SBB, AND, OR, XOR, CMP, TEST, INC, DEC, NEG, NOT (SDM vol. 2).

use iced_x86::{Instruction, Mnemonic};
use kasane_memory::Scalar;
use kasane_spec_x86::flags;

use super::arith::{add_flags, mask, sub_flags, szp};
use super::form::{Imm, Kind, Lock, Locked, Mem, Plain, RegB, Source, kind, size, sized, with};
use crate::cpu::{Cpu, Stop};
use crate::op::{Lowered, Op};

/// A two-operand operation on zero-extended values.
trait Alu {
    /// The result is stored.
    const WRITES: bool = true;
    /// The flags it changes.
    const FLAGS: u64 = flags::ARITHMETIC;
    /// The result; bits above the operand are cut off by the caller.
    fn result(a: u64, b: u64, carry: u64) -> u64;
    /// The flags of a result.
    fn flags<T: Scalar>(a: u64, b: u64, r: u64) -> u64;
}

macro_rules! alu {
    ($name:ident, $flags:ident, |$a:ident, $b:ident, $c:ident| $e:expr $(, $k:ident = $v:expr)*) => {
        struct $name;
        impl Alu for $name {
            $(const $k: alu!(@type $k) = $v;)*
            #[inline(always)]
            fn result($a: u64, $b: u64, $c: u64) -> u64 {
                $e
            }
            #[inline(always)]
            fn flags<T: Scalar>(a: u64, b: u64, r: u64) -> u64 {
                $flags::<T>(a, b, r)
            }
        }
    };
    (@type WRITES) => { bool };
    (@type FLAGS) => { u64 };
}

/// Logic operations clear CF and OF; AF, which is undefined (SDM vol. 2, AND), is cleared too.
#[inline(always)]
fn logic_flags<T: Scalar>(_: u64, _: u64, r: u64) -> u64 {
    szp::<T>(r)
}

const NO_CARRY: u64 = flags::ARITHMETIC & !flags::CF;

alu!(Add, add_flags, |a, b, _c| a.wrapping_add(b));
alu!(Adc, add_flags, |a, b, c| a.wrapping_add(b).wrapping_add(c));
alu!(Sub, sub_flags, |a, b, _c| a.wrapping_sub(b));
alu!(Sbb, sub_flags, |a, b, c| a.wrapping_sub(b).wrapping_sub(c));
alu!(Cmp, sub_flags, |a, b, _c| a.wrapping_sub(b), WRITES = false);
alu!(And, logic_flags, |a, b, _c| a & b);
alu!(Or, logic_flags, |a, b, _c| a | b);
alu!(Xor, logic_flags, |a, b, _c| a ^ b);
alu!(Test, logic_flags, |a, b, _c| a & b, WRITES = false);
alu!(Inc, add_flags, |a, b, _c| a.wrapping_add(b), FLAGS = NO_CARRY);
alu!(Dec, sub_flags, |a, b, _c| a.wrapping_sub(b), FLAGS = NO_CARRY);
// 0 - a: `b` is zero.
alu!(Neg, neg_flags, |a, _b, _c| 0u64.wrapping_sub(a));
alu!(Not, logic_flags, |a, _b, _c| !a, FLAGS = 0);

#[inline(always)]
fn neg_flags<T: Scalar>(a: u64, _: u64, r: u64) -> u64 {
    sub_flags::<T>(0, a, r)
}

/// Register destination.
fn alu_r<T: Scalar, O: Alu, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let b = S::get::<T>(cpu, op)?.to_u64();
    let a = cpu.get::<T>(op.a).to_u64();
    let r = O::result(a, b, cpu.state.rflags & flags::CF) & mask::<T>();
    if O::FLAGS != 0 {
        cpu.set_flags(O::FLAGS, O::flags::<T>(a, b, r));
    }
    if O::WRITES {
        cpu.set(op.a, T::from_u64(r));
    }
    Ok(())
}

/// Memory destination.
fn alu_m<T: Scalar, O: Alu, S: Source, L: Lock>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let b = S::get::<T>(cpu, op)?.to_u64();
    let at = cpu.ea(op);
    let carry = cpu.state.rflags & flags::CF;
    let (a, r) = if O::WRITES {
        let (old, new) = cpu.update::<T>(op.mem.seg, at, L::LOCKED, |a| {
            T::from_u64(O::result(a.to_u64(), b, carry))
        })?;
        (old.to_u64(), new.to_u64())
    } else {
        let a = cpu.read::<T>(op.mem.seg, at)?.to_u64();
        (a, O::result(a, b, carry) & mask::<T>())
    };
    if O::FLAGS != 0 {
        cpu.set_flags(O::FLAGS, O::flags::<T>(a, b, r));
    }
    Ok(())
}

/// Two operands.
fn binary<O: Alu>(instr: &Instruction) -> Option<Lowered> {
    let n = size(instr, 0);
    let run = match (kind(instr, 0), kind(instr, 1), instr.has_lock_prefix()) {
        (Kind::Reg, Kind::Reg, _) => sized!(n, alu_r, O, RegB),
        (Kind::Reg, Kind::Imm, _) => sized!(n, alu_r, O, Imm),
        (Kind::Reg, Kind::Mem, _) => sized!(n, alu_r, O, Mem),
        (Kind::Mem, Kind::Reg, false) => sized!(n, alu_m, O, RegB, Plain),
        (Kind::Mem, Kind::Imm, false) => sized!(n, alu_m, O, Imm, Plain),
        (Kind::Mem, Kind::Reg, true) => sized!(n, alu_m, O, RegB, Locked),
        (Kind::Mem, Kind::Imm, true) => sized!(n, alu_m, O, Imm, Locked),
        _ => return None,
    };
    with(run, instr)
}

/// One operand, with `imm` as the second.
fn unary<O: Alu>(instr: &Instruction, imm: u64) -> Option<Lowered> {
    let n = size(instr, 0);
    let run = match (kind(instr, 0), instr.has_lock_prefix()) {
        (Kind::Reg, _) => sized!(n, alu_r, O, Imm),
        (Kind::Mem, false) => sized!(n, alu_m, O, Imm, Plain),
        (Kind::Mem, true) => sized!(n, alu_m, O, Imm, Locked),
        _ => return None,
    };
    Some(Lowered { imm, ..Lowered::operands(run, instr) })
}

/// The handler of an instruction of this family.
pub(super) fn lower(instr: &Instruction) -> Option<Lowered> {
    match instr.mnemonic() {
        Mnemonic::Add => binary::<Add>(instr),
        Mnemonic::Adc => binary::<Adc>(instr),
        Mnemonic::Sub => binary::<Sub>(instr),
        Mnemonic::Sbb => binary::<Sbb>(instr),
        Mnemonic::Cmp => binary::<Cmp>(instr),
        Mnemonic::And => binary::<And>(instr),
        Mnemonic::Or => binary::<Or>(instr),
        Mnemonic::Xor => binary::<Xor>(instr),
        Mnemonic::Test => binary::<Test>(instr),
        Mnemonic::Inc => unary::<Inc>(instr, 1),
        Mnemonic::Dec => unary::<Dec>(instr, 1),
        Mnemonic::Neg => unary::<Neg>(instr, 0),
        Mnemonic::Not => unary::<Not>(instr, 0),
        _ => None,
    }
}
