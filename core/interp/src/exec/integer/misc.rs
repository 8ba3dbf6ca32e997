//! Flag instructions, NOPs and hints, fences, cache-line flushes, random numbers, BOUND, UDn.

use core::sync::atomic::{Ordering, fence};

use iced_x86::{Instruction, Mnemonic};
use kasane_cpu::Gpr;
use kasane_cpu::paging::Access;
use kasane_memory::Scalar;
use kasane_spec_x86::{flags, vector};

use super::arith::sign_extend;
use super::form::{size, wide, with};
use crate::cpu::{Cpu, Stop};
use crate::op::{Lowered, Op};

const RAX: u8 = Gpr::Rax as u8;
/// The flags that LAHF and SAHF move.
const AH_FLAGS: u64 = flags::SF | flags::ZF | flags::AF | flags::PF | flags::CF;

fn clc(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    cpu.set_flags(flags::CF, 0);
    Ok(())
}
fn stc(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    cpu.set_flags(flags::CF, flags::CF);
    Ok(())
}
fn cmc(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    cpu.state.rflags ^= flags::CF;
    Ok(())
}
fn cld(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    cpu.set_flags(flags::DF, 0);
    Ok(())
}
fn std(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    cpu.set_flags(flags::DF, flags::DF);
    Ok(())
}
fn lahf(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    let value = cpu.state.rflags & AH_FLAGS | flags::FIXED;
    cpu.set(16 + RAX, value as u8);
    Ok(())
}
fn sahf(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    let value = u64::from(cpu.get::<u8>(16 + RAX));
    cpu.set_flags(AH_FLAGS, value);
    Ok(())
}

fn nop(_cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    Ok(())
}
fn pause(_cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    core::hint::spin_loop();
    Ok(())
}
fn full_fence(_cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    fence(Ordering::SeqCst);
    Ok(())
}

/// CLFLUSH and the like are checked as a load of a byte (SDM vol. 2, CLFLUSH).
fn flush_line(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let va = cpu.linear(op.mem.seg, cpu.ea(op), 1, Access::Read)?;
    cpu.probe_linear(op.mem.seg, va, 1, Access::Read, cpu.mode.data)?;
    fence(Ordering::SeqCst);
    Ok(())
}

/// RDRAND and RDSEED: always there, so CF is set and the other flags are cleared.
fn random<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let mut bytes = [0; 8];
    cpu.entropy.fill(&mut bytes);
    cpu.set(op.a, T::from_u64(u64::from_le_bytes(bytes)));
    cpu.set_flags(flags::ARITHMETIC, flags::CF);
    Ok(())
}

/// #BR if the signed index is outside the two bounds in memory.
fn bound_check<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let at = cpu.ea(op);
    let signed = |v: T| sign_extend::<T>(v.to_u64()) as i64;
    let index = signed(cpu.get(op.a));
    let lower: T = cpu.read(op.mem.seg, at)?;
    if index < signed(lower) {
        return Err(cpu.raise(vector::BR, None));
    }
    let upper: T = cpu.read(op.mem.seg, at.wrapping_add(T::SIZE as u64))?;
    if index > signed(upper) {
        return Err(cpu.raise(vector::BR, None));
    }
    Ok(())
}

fn undefined(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    Err(cpu.ud())
}

/// The handler of an instruction of this family.
pub(super) fn lower(instr: &Instruction) -> Option<Lowered> {
    let run = match instr.mnemonic() {
        Mnemonic::Clc => clc,
        Mnemonic::Stc => stc,
        Mnemonic::Cmc => cmc,
        Mnemonic::Cld => cld,
        Mnemonic::Std => std,
        Mnemonic::Lahf => lahf,
        Mnemonic::Sahf => sahf,
        Mnemonic::Pause => pause,
        // RDSSP without shadow stacks is one of the reserved NOPs that it was made from.
        Mnemonic::Nop
        | Mnemonic::Reservednop
        | Mnemonic::Endbr32
        | Mnemonic::Endbr64
        | Mnemonic::Rdsspd
        | Mnemonic::Rdsspq
        | Mnemonic::Prefetch
        | Mnemonic::Prefetchw
        | Mnemonic::Prefetchwt1
        | Mnemonic::Prefetchnta
        | Mnemonic::Prefetcht0
        | Mnemonic::Prefetcht1
        | Mnemonic::Prefetcht2
        | Mnemonic::Prefetchit0
        | Mnemonic::Prefetchit1 => nop,
        Mnemonic::Lfence | Mnemonic::Sfence | Mnemonic::Mfence => full_fence,
        Mnemonic::Clflush | Mnemonic::Clflushopt | Mnemonic::Clwb => flush_line,
        Mnemonic::Rdrand | Mnemonic::Rdseed => wide!(size(instr, 0), random),
        Mnemonic::Bound => match size(instr, 0) {
            2 => bound_check::<u16>,
            _ => bound_check::<u32>,
        },
        Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 => undefined,
        _ => return None,
    };
    with(run, instr)
}
