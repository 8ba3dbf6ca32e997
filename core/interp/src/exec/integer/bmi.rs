//! BMI1, BMI2, ADX and CRC32 (SDM vol. 2).

use iced_x86::{Instruction, Mnemonic};
use kasane_cpu::Gpr;
use kasane_memory::Scalar;
use kasane_spec_x86::flags;

use super::arith::{bits, mask, sign_extend, szp};
use super::form::{Kind, RegB, RegC, Source, kind, long, sized, sourced, with};
use crate::cpu::{Cpu, Stop};
use crate::op::{Lowered, Op};

fn finish<T: Scalar>(cpu: &mut Cpu, op: &Op, r: u64, cf: bool) {
    cpu.set_flags(flags::ARITHMETIC, szp::<T>(r) & !flags::PF | u64::from(cf));
    cpu.set(op.a, T::from_u64(r));
}

fn andn_of<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let b = S::get::<T>(cpu, op)?.to_u64();
    let r = !cpu.get::<T>(op.b).to_u64() & b;
    finish::<T>(cpu, op, r, false);
    Ok(())
}

fn bextr_of<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value = S::get::<T>(cpu, op)?.widen();
    let control = cpu.gpr(op.c);
    let (start, len) = (control & 0xFF, control >> 8 & 0xFF);
    let shifted = if start < 64 { value >> start } else { 0 };
    let kept = if len < 64 { shifted & ((1u128 << len) - 1) } else { shifted };
    let r = kept as u64;
    let zf = if r == 0 { flags::ZF } else { 0 };
    cpu.set_flags(flags::ARITHMETIC, zf);
    cpu.set(op.a, T::from_u64(r));
    Ok(())
}

fn blsi_of<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let v = S::get::<T>(cpu, op)?.to_u64();
    finish::<T>(cpu, op, v & 0u64.wrapping_sub(v), v != 0);
    Ok(())
}

fn blsmsk_of<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let v = S::get::<T>(cpu, op)?.to_u64();
    finish::<T>(cpu, op, (v ^ v.wrapping_sub(1)) & mask::<T>(), v == 0);
    Ok(())
}

fn blsr_of<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let v = S::get::<T>(cpu, op)?.to_u64();
    finish::<T>(cpu, op, v & v.wrapping_sub(1), v == 0);
    Ok(())
}

fn bzhi_of<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let v = S::get::<T>(cpu, op)?.to_u64();
    let n = cpu.gpr(op.c) & 0xFF;
    let beyond = n >= u64::from(bits::<T>());
    let r = if beyond { v } else { v & ((1u64 << n) - 1) };
    finish::<T>(cpu, op, r, beyond);
    Ok(())
}

/// The high half goes to the first destination, which wins if both are one register.
fn mulx_of<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let b = S::get::<T>(cpu, op)?.widen();
    let product = cpu.get::<T>(Gpr::Rdx as u8).widen().wrapping_mul(b);
    cpu.set(op.b, T::truncate(product));
    cpu.set(op.a, T::truncate(product >> bits::<T>()));
    Ok(())
}

fn pdep_of<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let mut places = S::get::<T>(cpu, op)?.to_u64();
    let mut source = cpu.get::<T>(op.b).to_u64();
    let mut r = 0;
    while places != 0 {
        let lowest = places & 0u64.wrapping_sub(places);
        if source & 1 != 0 {
            r |= lowest;
        }
        source >>= 1;
        places ^= lowest;
    }
    cpu.set(op.a, T::from_u64(r));
    Ok(())
}

fn pext_of<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let mut places = S::get::<T>(cpu, op)?.to_u64();
    let source = cpu.get::<T>(op.b).to_u64();
    let (mut r, mut n) = (0u64, 0u32);
    while places != 0 {
        let lowest = places & 0u64.wrapping_sub(places);
        r |= u64::from(source & lowest != 0) << n;
        n = n.wrapping_add(1) & 63;
        places ^= lowest;
    }
    cpu.set(op.a, T::from_u64(r));
    Ok(())
}

fn rorx_of<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let v = S::get::<T>(cpu, op)?.to_u64();
    let n = (op.imm & u64::from(bits::<T>() - 1)) as u32;
    let r = if T::SIZE == 4 { u64::from((v as u32).rotate_right(n)) } else { v.rotate_right(n) };
    cpu.set(op.a, T::from_u64(r));
    Ok(())
}

fn shift_count<T: Scalar>(cpu: &Cpu, op: &Op) -> u32 {
    (cpu.gpr(op.c) & u64::from(bits::<T>() - 1)) as u32
}

fn sarx_of<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let v = sign_extend::<T>(S::get::<T>(cpu, op)?.to_u64()) as i64;
    let r = v >> shift_count::<T>(cpu, op);
    cpu.set(op.a, T::from_u64(r as u64));
    Ok(())
}

fn shlx_of<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let v = S::get::<T>(cpu, op)?.to_u64();
    let r = v << shift_count::<T>(cpu, op);
    cpu.set(op.a, T::from_u64(r));
    Ok(())
}

fn shrx_of<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let v = S::get::<T>(cpu, op)?.to_u64();
    let r = v >> shift_count::<T>(cpu, op);
    cpu.set(op.a, T::from_u64(r));
    Ok(())
}

/// An addition through one flag only.
fn add_through<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op, flag: u64) -> Result<(), Stop> {
    let b = S::get::<T>(cpu, op)?.widen();
    let carry = u128::from(cpu.flag(flag));
    let sum = cpu.get::<T>(op.a).widen().wrapping_add(b).wrapping_add(carry);
    cpu.set_flags(flag, if sum >> bits::<T>() != 0 { flag } else { 0 });
    cpu.set(op.a, T::truncate(sum));
    Ok(())
}

fn adcx_of<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    add_through::<T, S>(cpu, op, flags::CF)
}

fn adox_of<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    add_through::<T, S>(cpu, op, flags::OF)
}

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0x82F6_3B78 } else { 0 };
            bit += 1;
        }
        #[allow(clippy::indexing_slicing)] // evaluated at compile time
        {
            table[i] = crc;
        }
        i += 1;
    }
    table
}

/// The Castagnoli polynomial 0x11EDC6F41, reflected.
static CRC: [u32; 256] = crc_table();

fn crc32_of<T: Scalar, S: Source>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let data = S::get::<T>(cpu, op)?.to_u64();
    let mut crc = cpu.gpr(op.a) as u32;
    for byte in data.to_le_bytes().into_iter().take(T::SIZE) {
        let entry = CRC.get(usize::from(crc as u8 ^ byte)).copied().unwrap_or(0);
        crc = crc >> 8 ^ entry;
    }
    cpu.set_gpr(op.a, u64::from(crc));
    Ok(())
}

fn crc32(instr: &Instruction) -> Option<Lowered> {
    let run = sourced!(sized, instr, 1, RegB, crc32_of);
    with(run, instr)
}

/// MULX's, PDEP's and PEXT's last operand must be register or memory, never an immediate.
fn third(instr: &Instruction) -> bool {
    matches!(kind(instr, 2), Kind::Reg | Kind::Mem)
}

/// The handler of an instruction of this family.
pub(super) fn lower(instr: &Instruction) -> Option<Lowered> {
    let run = match instr.mnemonic() {
        Mnemonic::Andn if third(instr) => sourced!(long, instr, 2, RegC, andn_of),
        Mnemonic::Bextr if kind(instr, 2) == Kind::Reg => sourced!(long, instr, 1, RegB, bextr_of),
        Mnemonic::Blsi => sourced!(long, instr, 1, RegB, blsi_of),
        Mnemonic::Blsmsk => sourced!(long, instr, 1, RegB, blsmsk_of),
        Mnemonic::Blsr => sourced!(long, instr, 1, RegB, blsr_of),
        Mnemonic::Bzhi => sourced!(long, instr, 1, RegB, bzhi_of),
        Mnemonic::Mulx if third(instr) => sourced!(long, instr, 2, RegC, mulx_of),
        Mnemonic::Pdep if third(instr) => sourced!(long, instr, 2, RegC, pdep_of),
        Mnemonic::Pext if third(instr) => sourced!(long, instr, 2, RegC, pext_of),
        Mnemonic::Rorx => sourced!(long, instr, 1, RegB, rorx_of),
        Mnemonic::Sarx => sourced!(long, instr, 1, RegB, sarx_of),
        Mnemonic::Shlx => sourced!(long, instr, 1, RegB, shlx_of),
        Mnemonic::Shrx => sourced!(long, instr, 1, RegB, shrx_of),
        Mnemonic::Adcx => sourced!(long, instr, 1, RegB, adcx_of),
        Mnemonic::Adox => sourced!(long, instr, 1, RegB, adox_of),
        Mnemonic::Crc32 => return crc32(instr),
        _ => return None,
    };
    with(run, instr)
}
