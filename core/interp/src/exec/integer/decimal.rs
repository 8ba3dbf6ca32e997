//! AAA, AAS, AAM, AAD, DAA, DAS, SALC (SDM vol. 2; not in 64-bit code).

use iced_x86::{Instruction, Mnemonic};
use kasane_cpu::Gpr;
use kasane_spec_x86::flags;

use super::arith::{add_flags, szp};
use super::form::with;
use crate::cpu::{Cpu, Stop};
use crate::op::{Lowered, Op};

const RAX: u8 = Gpr::Rax as u8;

fn needs_low_adjust(cpu: &Cpu) -> bool {
    cpu.get::<u8>(RAX) & 0x0F > 9 || cpu.flag(flags::AF)
}

/// AAA and AAS: AX changes by `step` if AL's low digit overflowed. SF, ZF, PF and OF are
/// undefined and follow AL, OF is cleared.
fn ascii_adjust(cpu: &mut Cpu, step: u16) {
    let mut carry = 0;
    if needs_low_adjust(cpu) {
        let ax = cpu.get::<u16>(RAX).wrapping_add(step);
        cpu.set(RAX, ax);
        carry = flags::AF | flags::CF;
    }
    let al = cpu.get::<u8>(RAX) & 0x0F;
    cpu.set(RAX, al);
    cpu.set_flags(flags::ARITHMETIC, carry | szp::<u8>(u64::from(al)));
}

fn aaa(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    ascii_adjust(cpu, 0x106);
    Ok(())
}

fn aas(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    ascii_adjust(cpu, 0x106u16.wrapping_neg());
    Ok(())
}

fn aam(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let al = cpu.get::<u8>(RAX);
    let base = op.imm as u8;
    let (Some(high), Some(low)) = (al.checked_div(base), al.checked_rem(base)) else {
        return Err(cpu.de());
    };
    cpu.set(RAX, u16::from(high) << 8 | u16::from(low));
    cpu.set_flags(flags::ARITHMETIC, szp::<u8>(u64::from(low)));
    Ok(())
}

fn aad(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let [al, ah] = cpu.get::<u16>(RAX).to_le_bytes();
    let add = ah.wrapping_mul(op.imm as u8);
    let low = al.wrapping_add(add);
    cpu.set(RAX, u16::from(low));
    // OF, AF and CF are undefined; Intel's processors add.
    let flags = add_flags::<u8>(u64::from(al), u64::from(add), u64::from(low));
    cpu.set_flags(flags::ARITHMETIC, flags);
    Ok(())
}

/// DAA and DAS; OF, undefined, is cleared.
fn decimal_adjust(cpu: &mut Cpu, subtract: bool) {
    let old = cpu.get::<u8>(RAX);
    let old_carry = cpu.flag(flags::CF);
    let by = |al: u8, n: u8| if subtract { al.wrapping_sub(n) } else { al.wrapping_add(n) };
    let mut al = old;
    let mut out = 0;
    if needs_low_adjust(cpu) {
        let borrow = if subtract { al < 6 } else { al > 0xF9 };
        al = by(al, 6);
        out |= flags::AF;
        if old_carry || borrow {
            out |= flags::CF;
        }
    }
    if old > 0x99 || old_carry {
        al = by(al, 0x60);
        out |= flags::CF;
    } else if !subtract {
        out &= !flags::CF;
    }
    cpu.set(RAX, al);
    cpu.set_flags(flags::ARITHMETIC, out | szp::<u8>(u64::from(al)));
}

fn daa(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    decimal_adjust(cpu, false);
    Ok(())
}

fn das(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    decimal_adjust(cpu, true);
    Ok(())
}

/// AL = CF ? FF : 0; undocumented by Intel, there since the 8086.
fn salc(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    let value = if cpu.flag(flags::CF) { 0xFFu8 } else { 0 };
    cpu.set(RAX, value);
    Ok(())
}

/// The handler of an instruction of this family.
pub(super) fn lower(instr: &Instruction) -> Option<Lowered> {
    let run = match instr.mnemonic() {
        Mnemonic::Aaa => aaa,
        Mnemonic::Aas => aas,
        Mnemonic::Aam => aam,
        Mnemonic::Aad => aad,
        Mnemonic::Daa => daa,
        Mnemonic::Das => das,
        Mnemonic::Salc => salc,
        _ => return None,
    };
    with(run, instr)
}
