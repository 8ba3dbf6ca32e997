//! MOVS, STOS, LODS, SCAS, CMPS with their repeat prefixes (SDM vol. 2, REP).
//!
//! A repeated instruction commits its registers after every iteration, so a fault or an exit in
//! the middle leaves it to be restarted where it was. It also stops by itself now and then, with
//! RIP unchanged, so that interrupts are seen; when single-stepped, after each iteration.
//!
//! # Whole pages at once
//! Ascending MOVS and STOS whose pages need no walk go by the TLB's bulk operations, which work
//! byte by byte. For elements of more than a byte that is the same thing unless source and
//! destination overlap at a distance of less than one element; that is looked for in the offsets
//! in the page, so that two mappings of one page count too.

use iced_x86::{Instruction, Mnemonic, OpKind};
use kasane_cpu::{Gpr, Seg};
use kasane_memory::{Scalar, Stored};
use kasane_spec_x86::control::dr7;
use kasane_spec_x86::flags;

use super::arith::{mask, sub_flags};
use super::form::sized;
use crate::cpu::{Cpu, Stop};
use crate::op::{Lowered, Op};

/// Work after which a repeated instruction looks for interrupts and the clock, in instructions
/// that take as long: an iteration is one, as are 64 bytes of a bulk step.
const LOOK_INTERVAL: u64 = 2048;
const BULK_BYTES: u64 = 64;
const PAGE: u64 = 4096;

const NO_REP: u8 = 0;
const REPE: u8 = 1;
const REPNE: u8 = 2;

/// A string instruction. `imm` of its op is the mask of its address size, `a` the prefix.
trait StringOp {
    /// It sets flags, and a repeat prefix looks at ZF.
    const COMPARES: bool = false;
    /// Repeated with 32-bit addresses, its address registers are zero-extended even if nothing
    /// is done (seen on Intel's processors, for the instructions that have fast forms there).
    const EXTENDS: &'static [Gpr] = &[];
    /// One iteration, without the counter.
    fn once<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop>;
    /// Does up to `count` iterations at once; gives how many. None of them can fault.
    fn bulk<T: Scalar>(_cpu: &mut Cpu, _op: &Op, _count: u64) -> u64 {
        0
    }
}

#[inline(always)]
fn advance<T: Scalar>(cpu: &mut Cpu, r: Gpr, op: &Op, elements: u64) {
    let bytes = (T::SIZE as u64).wrapping_mul(elements);
    let old = cpu.reg(r);
    let new = if cpu.flag(flags::DF) { old.wrapping_sub(bytes) } else { old.wrapping_add(bytes) };
    cpu.set_masked(r, op.imm, new);
}

/// How many elements at a register's address are in the same page, before the address wraps.
fn in_page<T: Scalar>(cpu: &Cpu, seg: Seg, offset: u64, mask: u64) -> (u64, u64) {
    let base = cpu.mode.base.get(seg as usize).copied().unwrap_or(0);
    let va = base.wrapping_add(offset) & cpu.mode.linear_mask;
    let bytes = PAGE - (va & (PAGE - 1));
    let bytes = bytes.min((mask - offset).saturating_add(1));
    (va, bytes / T::SIZE as u64)
}

/// Whether accesses through a segment need no check beyond paging (2: writes, 1: reads).
fn unchecked(cpu: &Cpu, seg: Seg, need: u8) -> bool {
    cpu.mode.plain.get(seg as usize).copied().unwrap_or(0) & need != 0
}

fn note(cpu: &mut Cpu, stored: Stored) {
    cpu.code_written |= stored == Stored::Code;
}

struct Movs;
impl StringOp for Movs {
    const EXTENDS: &'static [Gpr] = &[Gpr::Rsi, Gpr::Rdi];
    fn once<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
        let value: T = cpu.read(op.mem.seg, cpu.reg(Gpr::Rsi) & op.imm)?;
        cpu.write(Seg::Es, cpu.reg(Gpr::Rdi) & op.imm, value)?;
        advance::<T>(cpu, Gpr::Rsi, op, 1);
        advance::<T>(cpu, Gpr::Rdi, op, 1);
        Ok(())
    }
    fn bulk<T: Scalar>(cpu: &mut Cpu, op: &Op, count: u64) -> u64 {
        let (src, dst) = (cpu.reg(Gpr::Rsi) & op.imm, cpu.reg(Gpr::Rdi) & op.imm);
        if cpu.flag(flags::DF) || !unchecked(cpu, op.mem.seg, 1) || !unchecked(cpu, Seg::Es, 2) {
            return 0;
        }
        let (src, src_len) = in_page::<T>(cpu, op.mem.seg, src, op.imm);
        let (dst, dst_len) = in_page::<T>(cpu, Seg::Es, dst, op.imm);
        let n = count.min(src_len).min(dst_len);
        let size = T::SIZE as u64;
        let distance = dst.wrapping_sub(src) & (PAGE - 1);
        if n < 2 || distance != 0 && distance < size {
            return 0;
        }
        let Some(stored) = cpu.tlb.copy(cpu.mode.data, dst, src, n.wrapping_mul(size)) else {
            return 0;
        };
        note(cpu, stored);
        advance::<T>(cpu, Gpr::Rsi, op, n);
        advance::<T>(cpu, Gpr::Rdi, op, n);
        n
    }
}

struct Stos;
impl StringOp for Stos {
    const EXTENDS: &'static [Gpr] = &[Gpr::Rdi];
    fn once<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
        let value: T = cpu.get(Gpr::Rax as u8);
        cpu.write(Seg::Es, cpu.reg(Gpr::Rdi) & op.imm, value)?;
        advance::<T>(cpu, Gpr::Rdi, op, 1);
        Ok(())
    }
    fn bulk<T: Scalar>(cpu: &mut Cpu, op: &Op, count: u64) -> u64 {
        let value = cpu.get::<T>(Gpr::Rax as u8).to_u64();
        let byte = value as u8;
        let same = u64::from_le_bytes([byte; 8]) & mask::<T>() == value;
        if cpu.flag(flags::DF) || !unchecked(cpu, Seg::Es, 2) || !same {
            return 0;
        }
        let dst = cpu.reg(Gpr::Rdi) & op.imm;
        let (dst, dst_len) = in_page::<T>(cpu, Seg::Es, dst, op.imm);
        let n = count.min(dst_len);
        let len = n.wrapping_mul(T::SIZE as u64);
        if n < 2 {
            return 0;
        }
        let Some(stored) = cpu.tlb.fill_bytes(cpu.mode.data, dst, byte, len) else { return 0 };
        note(cpu, stored);
        advance::<T>(cpu, Gpr::Rdi, op, n);
        n
    }
}

struct Lods;
impl StringOp for Lods {
    fn once<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
        let value: T = cpu.read(op.mem.seg, cpu.reg(Gpr::Rsi) & op.imm)?;
        cpu.set(Gpr::Rax as u8, value);
        advance::<T>(cpu, Gpr::Rsi, op, 1);
        Ok(())
    }
}

fn compare<T: Scalar>(cpu: &mut Cpu, a: T, b: T) {
    let (a, b) = (a.to_u64(), b.to_u64());
    let r = a.wrapping_sub(b) & mask::<T>();
    cpu.set_flags(flags::ARITHMETIC, sub_flags::<T>(a, b, r));
}

struct Scas;
impl StringOp for Scas {
    const COMPARES: bool = true;
    fn once<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
        let value: T = cpu.read(Seg::Es, cpu.reg(Gpr::Rdi) & op.imm)?;
        let accumulator: T = cpu.get(Gpr::Rax as u8);
        compare(cpu, accumulator, value);
        advance::<T>(cpu, Gpr::Rdi, op, 1);
        Ok(())
    }
}

struct Cmps;
impl StringOp for Cmps {
    const COMPARES: bool = true;
    fn once<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
        // The order shows in which fault comes first; it is that of Intel's processors.
        let b: T = cpu.read(Seg::Es, cpu.reg(Gpr::Rdi) & op.imm)?;
        let a: T = cpu.read(op.mem.seg, cpu.reg(Gpr::Rsi) & op.imm)?;
        compare(cpu, a, b);
        advance::<T>(cpu, Gpr::Rsi, op, 1);
        advance::<T>(cpu, Gpr::Rdi, op, 1);
        Ok(())
    }
}

fn single<T: Scalar, O: StringOp>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    O::once::<T>(cpu, op)
}

fn repeated<T: Scalar, O: StringOp>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let step_by_step =
        cpu.flag(flags::TF) || cpu.state.dr7 & dr7::ENABLES != 0 || cpu.debugger.single_step;
    let mut count = cpu.reg(Gpr::Rcx) & op.imm;
    let flags_before = cpu.state.rflags;
    cpu.set_masked(Gpr::Rcx, op.imm, count); // 32 bits zero-extend, whatever comes
    for register in O::EXTENDS {
        cpu.set_masked(*register, op.imm, cpu.reg(*register));
    }
    let mut work = 0u64;
    while work < LOOK_INTERVAL {
        if count == 0 {
            return Ok(());
        }
        let bulk = if step_by_step { 0 } else { O::bulk::<T>(cpu, op, count) };
        if bulk == 0 {
            let done = O::once::<T>(cpu, op);
            if O::COMPARES && done == Err(Stop::Fault) {
                // SDM vol. 2, REP: a fault restores the flags to those before the instruction.
                cpu.state.rflags = flags_before;
            }
            done?;
            cpu.replay.commit();
        }
        let step = bulk.saturating_mul(T::SIZE as u64) / BULK_BYTES + 1;
        work = work.saturating_add(step);
        cpu.clock_check = cpu.clock_check.saturating_sub(step);
        count = count.wrapping_sub(bulk.max(1));
        cpu.set_masked(Gpr::Rcx, op.imm, count);
        let done = O::COMPARES
            && match op.a {
                REPE => !cpu.flag(flags::ZF),
                _ => cpu.flag(flags::ZF),
            };
        if done || count == 0 {
            return Ok(());
        }
        if step_by_step || cpu.mailbox.pending() != 0 {
            break;
        }
    }
    cpu.next_rip = cpu.state.rip;
    cpu.unfinished = true;
    cpu.suppress_rf_clear = true;
    Err(Stop::Break)
}

fn prefix(instr: &Instruction) -> u8 {
    if instr.has_repne_prefix() {
        REPNE
    } else if instr.has_rep_prefix() {
        REPE
    } else {
        NO_REP
    }
}

fn address_mask(instr: &Instruction) -> u64 {
    for n in 0..instr.op_count() {
        match instr.op_kind(n) {
            OpKind::MemorySegSI | OpKind::MemoryESDI => return 0xFFFF,
            OpKind::MemorySegESI | OpKind::MemoryESEDI => return 0xFFFF_FFFF,
            _ => {}
        }
    }
    u64::MAX
}

/// The handler of an instruction of this family.
pub(super) fn lower(instr: &Instruction) -> Option<Lowered> {
    macro_rules! handler {
        ($size:expr, $o:ty) => {
            if prefix(instr) == NO_REP {
                sized!($size, single, $o)
            } else {
                sized!($size, repeated, $o)
            }
        };
    }
    if !instr.is_string_instruction() {
        return None;
    }
    let run = match instr.mnemonic() {
        Mnemonic::Movsb => handler!(1, Movs),
        Mnemonic::Movsw => handler!(2, Movs),
        Mnemonic::Movsd => handler!(4, Movs),
        Mnemonic::Movsq => handler!(8, Movs),
        Mnemonic::Stosb => handler!(1, Stos),
        Mnemonic::Stosw => handler!(2, Stos),
        Mnemonic::Stosd => handler!(4, Stos),
        Mnemonic::Stosq => handler!(8, Stos),
        Mnemonic::Lodsb => handler!(1, Lods),
        Mnemonic::Lodsw => handler!(2, Lods),
        Mnemonic::Lodsd => handler!(4, Lods),
        Mnemonic::Lodsq => handler!(8, Lods),
        Mnemonic::Scasb => handler!(1, Scas),
        Mnemonic::Scasw => handler!(2, Scas),
        Mnemonic::Scasd => handler!(4, Scas),
        Mnemonic::Scasq => handler!(8, Scas),
        Mnemonic::Cmpsb => handler!(1, Cmps),
        Mnemonic::Cmpsw => handler!(2, Cmps),
        Mnemonic::Cmpsd => handler!(4, Cmps),
        Mnemonic::Cmpsq => handler!(8, Cmps),
        _ => return None,
    };
    Some(Lowered { a: prefix(instr), imm: address_mask(instr), ..Lowered::plain(run) })
}
