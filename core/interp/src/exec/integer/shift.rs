//! Shifts, rotates, SHLD and SHRD (SDM vol. 2, SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR, SHLD, SHRD).
//!
//! Where the manual leaves flags undefined (OF for counts other than 1, AF, CF for counts beyond
//! the operand), these are what Intel's processors give.

use iced_x86::{Instruction, Mnemonic};
use kasane_memory::Scalar;
use kasane_spec_x86::flags;

use super::arith::{bits, mask, sign_extend, szp, top};
use super::form::{Imm, Kind, RegB, RegC, Source, kind, size, sized, wide, with};
use crate::cpu::{Cpu, Stop};
use crate::op::{Lowered, Op};

/// A shift or rotate of a zero-extended value by a masked count that is not zero. The carry that
/// goes in is 0 or 1.
trait Shift {
    /// The flags it changes.
    const FLAGS: u64;
    /// The result.
    fn result<T: Scalar>(a: u64, count: u32, carry: u64) -> u64;
    /// The flags.
    fn flags<T: Scalar>(a: u64, count: u32, carry: u64, r: u64) -> u64;
}

fn widened(a: u64, count: u32) -> u128 {
    u128::from(a) << (count & 63)
}

struct Shl;
impl Shift for Shl {
    const FLAGS: u64 = flags::ARITHMETIC;
    #[inline(always)]
    fn result<T: Scalar>(a: u64, count: u32, _: u64) -> u64 {
        (a << (count & 63)) & mask::<T>()
    }
    #[inline(always)]
    fn flags<T: Scalar>(a: u64, count: u32, _: u64, r: u64) -> u64 {
        let cf = (widened(a, count) >> bits::<T>()) as u64 & 1;
        cf | (cf ^ top::<T>(r)) << 11 | szp::<T>(r)
    }
}

struct Shr;
impl Shift for Shr {
    const FLAGS: u64 = flags::ARITHMETIC;
    #[inline(always)]
    fn result<T: Scalar>(a: u64, count: u32, _: u64) -> u64 {
        a >> (count & 63)
    }
    #[inline(always)]
    fn flags<T: Scalar>(a: u64, count: u32, _: u64, r: u64) -> u64 {
        let last = count.wrapping_sub(1) & 63;
        let of = (r << 1 ^ r) >> (bits::<T>() - 1) & 1;
        let of = if count == 1 { top::<T>(a) } else { of };
        a >> last & 1 | of << 11 | szp::<T>(r)
    }
}

struct Sar;
impl Shift for Sar {
    const FLAGS: u64 = flags::ARITHMETIC;
    #[inline(always)]
    fn result<T: Scalar>(a: u64, count: u32, _: u64) -> u64 {
        (sign_extend::<T>(a) as i64 >> (count & 63)) as u64 & mask::<T>()
    }
    #[inline(always)]
    fn flags<T: Scalar>(a: u64, count: u32, _: u64, r: u64) -> u64 {
        let last = count.wrapping_sub(1) & 63;
        (sign_extend::<T>(a) as i64 >> last) as u64 & 1 | szp::<T>(r)
    }
}

const ROTATE: u64 = flags::CF | flags::OF;

struct Rol;
impl Shift for Rol {
    const FLAGS: u64 = ROTATE;
    #[inline(always)]
    fn result<T: Scalar>(a: u64, count: u32, _: u64) -> u64 {
        let n = count % bits::<T>();
        let wide = widened(a, n);
        (wide as u64 | (wide >> bits::<T>()) as u64) & mask::<T>()
    }
    #[inline(always)]
    fn flags<T: Scalar>(_: u64, _: u32, _: u64, r: u64) -> u64 {
        let cf = r & 1;
        cf | (cf ^ top::<T>(r)) << 11
    }
}

struct Ror;
impl Shift for Ror {
    const FLAGS: u64 = ROTATE;
    #[inline(always)]
    fn result<T: Scalar>(a: u64, count: u32, carry: u64) -> u64 {
        let n = count % bits::<T>();
        Rol::result::<T>(a, bits::<T>() - n, carry)
    }
    #[inline(always)]
    fn flags<T: Scalar>(_: u64, _: u32, _: u64, r: u64) -> u64 {
        let cf = top::<T>(r);
        cf | (cf ^ top::<T>(r << 1)) << 11
    }
}

/// The operand with the carry above it, rotated left by less than its width.
fn through_carry<T: Scalar>(a: u64, n: u32, carry: u64) -> (u64, u64) {
    let width = bits::<T>() + 1;
    let whole = u128::from(a) | u128::from(carry) << bits::<T>();
    let all = (1u128 << width) - 1;
    let r = if n == 0 { whole } else { (whole << n | whole >> (width - n)) & all };
    (r as u64 & mask::<T>(), (r >> bits::<T>()) as u64 & 1)
}

struct Rcl;
impl Shift for Rcl {
    const FLAGS: u64 = ROTATE;
    #[inline(always)]
    fn result<T: Scalar>(a: u64, count: u32, carry: u64) -> u64 {
        through_carry::<T>(a, count % (bits::<T>() + 1), carry).0
    }
    #[inline(always)]
    fn flags<T: Scalar>(a: u64, count: u32, carry: u64, r: u64) -> u64 {
        let cf = through_carry::<T>(a, count % (bits::<T>() + 1), carry).1;
        cf | (cf ^ top::<T>(r)) << 11
    }
}

struct Rcr;
impl Rcr {
    fn left<T: Scalar>(count: u32) -> u32 {
        let width = bits::<T>() + 1;
        (width - count % width) % width
    }
}
impl Shift for Rcr {
    const FLAGS: u64 = ROTATE;
    #[inline(always)]
    fn result<T: Scalar>(a: u64, count: u32, carry: u64) -> u64 {
        through_carry::<T>(a, Self::left::<T>(count), carry).0
    }
    #[inline(always)]
    fn flags<T: Scalar>(a: u64, count: u32, carry: u64, r: u64) -> u64 {
        let cf = through_carry::<T>(a, Self::left::<T>(count), carry).1;
        cf | (top::<T>(r) ^ top::<T>(r << 1)) << 11
    }
}

#[inline(always)]
fn masked_count<T: Scalar>(count: u8) -> u32 {
    u32::from(count) & if T::SIZE == 8 { 63 } else { 31 }
}

fn shift_r<T: Scalar, O: Shift, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let count = masked_count::<T>(S::get::<u8>(cpu, op)?);
    let a = cpu.get::<T>(op.a).to_u64();
    if count == 0 {
        cpu.set(op.a, T::from_u64(a)); // 32 bits zero-extend all the same
        return Ok(());
    }
    let carry = cpu.state.rflags & flags::CF;
    let r = O::result::<T>(a, count, carry);
    cpu.set_flags(O::FLAGS, O::flags::<T>(a, count, carry, r));
    cpu.set(op.a, T::from_u64(r));
    Ok(())
}

fn shift_m<T: Scalar, O: Shift, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let count = masked_count::<T>(S::get::<u8>(cpu, op)?);
    let carry = cpu.state.rflags & flags::CF;
    let at = cpu.ea(op);
    let (a, r) = cpu.update::<T>(op.mem.seg, at, false, |a| match count {
        0 => a,
        _ => T::from_u64(O::result::<T>(a.to_u64(), count, carry)),
    })?;
    if count != 0 {
        cpu.set_flags(O::FLAGS, O::flags::<T>(a.to_u64(), count, carry, r.to_u64()));
    }
    Ok(())
}

fn shift<O: Shift>(instr: &Instruction) -> Option<Lowered> {
    let n = size(instr, 0);
    let run = match (kind(instr, 0), kind(instr, 1)) {
        (Kind::Reg, Kind::Imm) => sized!(n, shift_r, O, Imm),
        (Kind::Reg, Kind::Reg) => sized!(n, shift_r, O, RegB),
        (Kind::Mem, Kind::Imm) => sized!(n, shift_m, O, Imm),
        (Kind::Mem, Kind::Reg) => sized!(n, shift_m, O, RegB),
        _ => return None,
    };
    with(run, instr)
}

/// SHLD or SHRD on (destination, source).
trait Double {
    /// Result and carry for a count that is not zero.
    fn result<T: Scalar>(a: u64, b: u64, count: u32) -> (u64, u64);
}

struct Shld;
impl Double for Shld {
    /// 16 bits by more than 16 is undefined; processors shift dest:src:dest.
    fn result<T: Scalar>(a: u64, b: u64, count: u32) -> (u64, u64) {
        let n = bits::<T>();
        if T::SIZE == 2 {
            let whole = u128::from(a) << 32 | u128::from(b) << 16 | u128::from(a);
            let r = (whole << count >> 32) as u64 & mask::<T>();
            return (r, (whole << count >> 48) as u64 & 1);
        }
        let whole = u128::from(a) << n | u128::from(b);
        let r = (whole << count >> n) as u64 & mask::<T>();
        (r, a >> (n - count) & 1)
    }
}

struct Shrd;
impl Double for Shrd {
    fn result<T: Scalar>(a: u64, b: u64, count: u32) -> (u64, u64) {
        let n = bits::<T>();
        let high = if T::SIZE == 2 { u128::from(a) << 32 } else { 0 };
        let whole = high | u128::from(b) << n | u128::from(a);
        let r = (whole >> count) as u64 & mask::<T>();
        (r, (whole >> (count - 1)) as u64 & 1)
    }
}

fn double_flags<T: Scalar>(a: u64, r: u64, cf: u64) -> u64 {
    cf | (top::<T>(a) ^ top::<T>(r)) << 11 | szp::<T>(r)
}

fn double_r<T: Scalar, O: Double, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let count = masked_count::<T>(S::get::<u8>(cpu, op)?);
    let a = cpu.get::<T>(op.a).to_u64();
    let b = cpu.get::<T>(op.b).to_u64();
    if count == 0 {
        cpu.set(op.a, T::from_u64(a));
        return Ok(());
    }
    let (r, cf) = O::result::<T>(a, b, count);
    cpu.set_flags(flags::ARITHMETIC, double_flags::<T>(a, r, cf));
    cpu.set(op.a, T::from_u64(r));
    Ok(())
}

fn double_m<T: Scalar, O: Double, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let count = masked_count::<T>(S::get::<u8>(cpu, op)?);
    let b = cpu.get::<T>(op.b).to_u64();
    let at = cpu.ea(op);
    let (a, r) = cpu.update::<T>(op.mem.seg, at, false, |a| match count {
        0 => a,
        _ => T::from_u64(O::result::<T>(a.to_u64(), b, count).0),
    })?;
    if count != 0 {
        let cf = O::result::<T>(a.to_u64(), b, count).1;
        cpu.set_flags(flags::ARITHMETIC, double_flags::<T>(a.to_u64(), r.to_u64(), cf));
    }
    Ok(())
}

fn double<O: Double>(instr: &Instruction) -> Option<Lowered> {
    let n = size(instr, 0);
    let run = match (kind(instr, 0), kind(instr, 2)) {
        (Kind::Reg, Kind::Imm) => wide!(n, double_r, O, Imm),
        (Kind::Reg, Kind::Reg) => wide!(n, double_r, O, RegC),
        (Kind::Mem, Kind::Imm) => wide!(n, double_m, O, Imm),
        (Kind::Mem, Kind::Reg) => wide!(n, double_m, O, RegC),
        _ => return None,
    };
    with(run, instr)
}

/// The handler of an instruction of this family.
pub(super) fn lower(instr: &Instruction) -> Option<Lowered> {
    match instr.mnemonic() {
        Mnemonic::Shl | Mnemonic::Sal => shift::<Shl>(instr),
        Mnemonic::Shr => shift::<Shr>(instr),
        Mnemonic::Sar => shift::<Sar>(instr),
        Mnemonic::Rol => shift::<Rol>(instr),
        Mnemonic::Ror => shift::<Ror>(instr),
        Mnemonic::Rcl => shift::<Rcl>(instr),
        Mnemonic::Rcr => shift::<Rcr>(instr),
        Mnemonic::Shld => double::<Shld>(instr),
        Mnemonic::Shrd => double::<Shrd>(instr),
        _ => None,
    }
}
