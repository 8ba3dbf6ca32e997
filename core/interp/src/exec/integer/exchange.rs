//! XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B (SDM vol. 2).

use iced_x86::{Instruction, Mnemonic};
use kasane_cpu::Gpr;
use kasane_memory::Scalar;
use kasane_spec_x86::flags;

use super::arith::{add_flags, mask, sub_flags};
use super::form::{Kind, Lock, Locked, Plain, kind, size, sized, with};
use crate::cpu::{Cpu, Stop};
use crate::op::{Lowered, Op};

const RAX: u8 = Gpr::Rax as u8;

fn xadd_rr<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let a = cpu.get::<T>(op.a);
    let b = cpu.get::<T>(op.b).to_u64();
    let r = a.to_u64().wrapping_add(b) & mask::<T>();
    cpu.set_flags(flags::ARITHMETIC, add_flags::<T>(a.to_u64(), b, r));
    cpu.set(op.b, a);
    cpu.set(op.a, T::from_u64(r));
    Ok(())
}

fn xadd_mr<T: Scalar, L: Lock>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let b = cpu.get::<T>(op.b).to_u64();
    let add = |a: T| T::from_u64(a.to_u64().wrapping_add(b));
    let (a, r) = cpu.update::<T>(op.mem.seg, cpu.ea(op), L::LOCKED, add)?;
    cpu.set_flags(flags::ARITHMETIC, add_flags::<T>(a.to_u64(), b, r.to_u64()));
    cpu.set(op.b, a);
    Ok(())
}

fn compare_flags<T: Scalar>(cpu: &mut Cpu, a: T, b: T) {
    let (a, b) = (a.to_u64(), b.to_u64());
    let r = a.wrapping_sub(b) & mask::<T>();
    cpu.set_flags(flags::ARITHMETIC, sub_flags::<T>(a, b, r));
}

fn cmpxchg_rr<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let accumulator: T = cpu.get(RAX);
    let old: T = cpu.get(op.a);
    let new: T = cpu.get(op.b);
    compare_flags(cpu, accumulator, old);
    if accumulator == old {
        cpu.set(op.a, new);
    } else {
        // The destination is not written, so 32 bits do not zero-extend.
        cpu.set(RAX, old);
    }
    Ok(())
}

/// Memory is written in both cases, with its old value if it differs from the accumulator.
fn cmpxchg_mr<T: Scalar, L: Lock>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let accumulator: T = cpu.get(RAX);
    let new: T = cpu.get(op.b);
    let exchange = |old: T| if old == accumulator { new } else { old };
    let (old, _) = cpu.update::<T>(op.mem.seg, cpu.ea(op), L::LOCKED, exchange)?;
    compare_flags(cpu, accumulator, old);
    if accumulator != old {
        cpu.set(RAX, old);
    }
    Ok(())
}

fn pair<T: Scalar>(cpu: &Cpu, high: Gpr, low: Gpr) -> T {
    if T::SIZE == 8 {
        return T::from_u64(cpu.reg(high) << 32 | cpu.reg(low) & 0xFFFF_FFFF);
    }
    T::truncate(u128::from(cpu.reg(high)) << 64 | u128::from(cpu.reg(low)))
}

/// CMPXCHG8B for `u64`, CMPXCHG16B for `u128`; only ZF changes.
fn cmpxchg_pair<T: Scalar, L: Lock>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let at = cpu.ea(op);
    if T::SIZE == 16 {
        let base = cpu.mode.base.get(op.mem.seg as usize).copied().unwrap_or(0);
        if base.wrapping_add(at) & 15 != 0 {
            return Err(cpu.gp(0));
        }
    }
    let expected: T = pair(cpu, Gpr::Rdx, Gpr::Rax);
    let new: T = pair(cpu, Gpr::Rcx, Gpr::Rbx);
    let exchange = |old: T| if old == expected { new } else { old };
    let (old, _) = cpu.update::<T>(op.mem.seg, at, L::LOCKED, exchange)?;
    cpu.set_flags(flags::ZF, if old == expected { flags::ZF } else { 0 });
    if old != expected {
        if T::SIZE == 8 {
            cpu.set_reg(Gpr::Rax, old.to_u64() & 0xFFFF_FFFF);
            cpu.set_reg(Gpr::Rdx, old.to_u64() >> 32);
        } else {
            cpu.set_reg(Gpr::Rax, old.widen() as u64);
            cpu.set_reg(Gpr::Rdx, (old.widen() >> 64) as u64);
        }
    }
    Ok(())
}

/// The handler of an instruction of this family.
pub(super) fn lower(instr: &Instruction) -> Option<Lowered> {
    let n = size(instr, 0);
    let locked = instr.has_lock_prefix();
    let run = match (instr.mnemonic(), kind(instr, 0), locked) {
        (Mnemonic::Xadd, Kind::Reg, _) => sized!(n, xadd_rr),
        (Mnemonic::Xadd, Kind::Mem, false) => sized!(n, xadd_mr, Plain),
        (Mnemonic::Xadd, Kind::Mem, true) => sized!(n, xadd_mr, Locked),
        (Mnemonic::Cmpxchg, Kind::Reg, _) => sized!(n, cmpxchg_rr),
        (Mnemonic::Cmpxchg, Kind::Mem, false) => sized!(n, cmpxchg_mr, Plain),
        (Mnemonic::Cmpxchg, Kind::Mem, true) => sized!(n, cmpxchg_mr, Locked),
        (Mnemonic::Cmpxchg8b, _, false) => cmpxchg_pair::<u64, Plain>,
        (Mnemonic::Cmpxchg8b, _, true) => cmpxchg_pair::<u64, Locked>,
        (Mnemonic::Cmpxchg16b, _, false) => cmpxchg_pair::<u128, Plain>,
        (Mnemonic::Cmpxchg16b, _, true) => cmpxchg_pair::<u128, Locked>,
        _ => return None,
    };
    with(run, instr)
}
