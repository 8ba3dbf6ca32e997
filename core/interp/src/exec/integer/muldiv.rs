//! MUL, IMUL, DIV, IDIV, and the sign extensions that go with them (CBW and CWD families).

use iced_x86::{Instruction, Mnemonic};
use kasane_cpu::Gpr;
use kasane_memory::Scalar;
use kasane_spec_x86::flags;

use super::arith::{bits, mask, parity, sign_extend, top};
use super::form::{RegA, RegB, Source, sized, sourced, wide, with};
use crate::cpu::{Cpu, Stop};
use crate::op::{Lowered, Op};

const RAX: u8 = Gpr::Rax as u8;
const RDX: u8 = Gpr::Rdx as u8;

/// The flags of a product. Only CF and OF are defined (SDM vol. 2, MUL and IMUL); SF and PF
/// follow the low half, ZF and AF are cleared, as Intel's processors do.
fn set_product_flags<T: Scalar>(cpu: &mut Cpu, low: u64, overflow: bool) {
    let carry = if overflow { flags::CF | flags::OF } else { 0 };
    cpu.set_flags(flags::ARITHMETIC, carry | top::<T>(low) << 7 | parity(low));
}

/// Writes a double-width value to AX or DX:AX, EDX:EAX, RDX:RAX.
fn set_double<T: Scalar>(cpu: &mut Cpu, value: u128) {
    if T::SIZE == 1 {
        cpu.set(RAX, value as u16);
    } else {
        cpu.set(RAX, T::truncate(value));
        cpu.set(RDX, T::truncate(value >> bits::<T>()));
    }
}

/// Reads AX or DX:AX, EDX:EAX, RDX:RAX.
fn double_value<T: Scalar>(cpu: &Cpu) -> u128 {
    if T::SIZE == 1 {
        u128::from(cpu.get::<u16>(RAX))
    } else {
        cpu.get::<T>(RAX).widen() | cpu.get::<T>(RDX).widen() << bits::<T>()
    }
}

fn mul_by<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let b = S::get::<T>(cpu, op)?.widen();
    let product = cpu.get::<T>(RAX).widen().wrapping_mul(b);
    set_double::<T>(cpu, product);
    set_product_flags::<T>(cpu, product as u64 & mask::<T>(), product >> bits::<T>() != 0);
    Ok(())
}

/// The product of two zero-extended operands as signed ones, and whether it overflows `T`.
fn signed_product<T: Scalar>(a: u64, b: u64) -> (i128, bool) {
    let a = i128::from(sign_extend::<T>(a) as i64);
    let b = i128::from(sign_extend::<T>(b) as i64);
    let product = a.wrapping_mul(b);
    let low = sign_extend::<T>(product as u64 & mask::<T>()) as i64;
    (product, i128::from(low) != product)
}

fn imul_by<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let b = S::get::<T>(cpu, op)?.to_u64();
    let (product, overflow) = signed_product::<T>(cpu.get::<T>(RAX).to_u64(), b);
    set_double::<T>(cpu, product as u128);
    set_product_flags::<T>(cpu, product as u64 & mask::<T>(), overflow);
    Ok(())
}

fn imul_2<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let b = S::get::<T>(cpu, op)?.to_u64();
    let (product, overflow) = signed_product::<T>(cpu.get::<T>(op.a).to_u64(), b);
    cpu.set(op.a, T::from_u64(product as u64));
    set_product_flags::<T>(cpu, product as u64 & mask::<T>(), overflow);
    Ok(())
}

fn imul_3<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let a = S::get::<T>(cpu, op)?.to_u64();
    let (product, overflow) = signed_product::<T>(a, op.imm);
    cpu.set(op.a, T::from_u64(product as u64));
    set_product_flags::<T>(cpu, product as u64 & mask::<T>(), overflow);
    Ok(())
}

fn imul(instr: &Instruction) -> Option<Lowered> {
    let run = match instr.op_count() {
        1 => sourced!(sized, instr, 0, RegA, imul_by),
        2 => sourced!(wide, instr, 1, RegB, imul_2),
        _ => sourced!(wide, instr, 1, RegB, imul_3),
    };
    with(run, instr)
}

/// Writes quotient and remainder. The flags, all undefined (SDM vol. 2, DIV), stay.
fn set_quotient<T: Scalar>(cpu: &mut Cpu, quotient: u128, remainder: u128) {
    if T::SIZE == 1 {
        cpu.set(RAX, (quotient as u16) & 0xFF | (remainder as u16) << 8);
    } else {
        cpu.set(RAX, T::truncate(quotient));
        cpu.set(RDX, T::truncate(remainder));
    }
}

fn div_by<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let divisor = S::get::<T>(cpu, op)?.widen();
    let dividend = double_value::<T>(cpu);
    // Most divisions fit 64 bits, where the host divides by itself.
    let (quotient, remainder) = match (u64::try_from(dividend), divisor as u64) {
        (_, 0) => return Err(cpu.de()),
        (Ok(a), b) => (u128::from(a / b), u128::from(a % b)),
        (Err(_), _) => (dividend / divisor, dividend % divisor),
    };
    if quotient >> bits::<T>() != 0 {
        return Err(cpu.de());
    }
    set_quotient::<T>(cpu, quotient, remainder);
    Ok(())
}

fn idiv_by<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let divisor = i128::from(sign_extend::<T>(S::get::<T>(cpu, op)?.to_u64()) as i64);
    let unused = 128 - 2 * bits::<T>();
    let dividend = (double_value::<T>(cpu) << unused) as i128 >> unused;
    let (Some(quotient), Some(remainder)) =
        (dividend.checked_div(divisor), dividend.checked_rem(divisor))
    else {
        return Err(cpu.de());
    };
    let low = i128::from(sign_extend::<T>(quotient as u64 & mask::<T>()) as i64);
    if low != quotient {
        return Err(cpu.de());
    }
    set_quotient::<T>(cpu, quotient as u128, remainder as u128);
    Ok(())
}

/// CBW, CWDE, CDQE: AL, AX or EAX sign-extended to `T`.
fn extend_accumulator<T: Scalar>(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    let rax = cpu.reg(Gpr::Rax);
    let value = match T::SIZE {
        2 => sign_extend::<u8>(rax & 0xFF),
        4 => sign_extend::<u16>(rax & 0xFFFF),
        _ => sign_extend::<u32>(rax & 0xFFFF_FFFF),
    };
    cpu.set(RAX, T::from_u64(value));
    Ok(())
}

/// CWD, CDQ, CQO: the accumulator's sign into rDX.
fn extend_to_rdx<T: Scalar>(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    let sign = top::<T>(cpu.get::<T>(RAX).to_u64());
    cpu.set(RDX, T::from_u64(0u64.wrapping_sub(sign)));
    Ok(())
}

/// The handler of an instruction of this family.
pub(super) fn lower(instr: &Instruction) -> Option<Lowered> {
    let run = match instr.mnemonic() {
        Mnemonic::Mul => sourced!(sized, instr, 0, RegA, mul_by),
        Mnemonic::Imul => return imul(instr),
        Mnemonic::Div => sourced!(sized, instr, 0, RegA, div_by),
        Mnemonic::Idiv => sourced!(sized, instr, 0, RegA, idiv_by),
        Mnemonic::Cbw => extend_accumulator::<u16>,
        Mnemonic::Cwde => extend_accumulator::<u32>,
        Mnemonic::Cdqe => extend_accumulator::<u64>,
        Mnemonic::Cwd => extend_to_rdx::<u16>,
        Mnemonic::Cdq => extend_to_rdx::<u32>,
        Mnemonic::Cqo => extend_to_rdx::<u64>,
        _ => return None,
    };
    with(run, instr)
}
