//! Operand forms: which operands an instruction has, and where its source comes from, decided
//! once when the instruction is decoded.

use iced_x86::{Instruction, OpKind};
use kasane_memory::Scalar;

use crate::cpu::{Cpu, Stop};
use crate::op::{Lowered, Op, is_immediate, register_slot};

/// Where a source operand comes from.
pub(super) trait Source {
    /// Its value.
    fn get<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<T, Stop>;
}

/// Register operand 0.
pub(super) struct RegA;
/// Register operand 1.
pub(super) struct RegB;
/// Register operand 2.
pub(super) struct RegC;
/// The immediate.
pub(super) struct Imm;
/// The memory operand.
pub(super) struct Mem;

impl Source for RegA {
    #[inline(always)]
    fn get<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<T, Stop> {
        Ok(cpu.get(op.a))
    }
}
impl Source for RegB {
    #[inline(always)]
    fn get<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<T, Stop> {
        Ok(cpu.get(op.b))
    }
}
impl Source for RegC {
    #[inline(always)]
    fn get<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<T, Stop> {
        Ok(cpu.get(op.c))
    }
}
impl Source for Imm {
    #[inline(always)]
    fn get<T: Scalar>(_cpu: &mut Cpu, op: &Op) -> Result<T, Stop> {
        Ok(T::from_u64(op.imm))
    }
}
impl Source for Mem {
    #[inline(always)]
    fn get<T: Scalar>(cpu: &mut Cpu, op: &Op) -> Result<T, Stop> {
        cpu.read(op.mem.seg, cpu.ea(op))
    }
}

/// Whether a read-modify-write is atomic.
pub(super) trait Lock {
    /// It is.
    const LOCKED: bool;
}
/// No LOCK prefix.
pub(super) struct Plain;
/// LOCK prefix.
pub(super) struct Locked;
impl Lock for Plain {
    const LOCKED: bool = false;
}
impl Lock for Locked {
    const LOCKED: bool = true;
}

/// The kind of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A general register.
    Reg,
    /// Memory.
    Mem,
    /// An immediate.
    Imm,
    /// Anything else: not of this group.
    Other,
}

/// The kind of operand `n`.
pub(super) fn kind(instr: &Instruction, n: u32) -> Kind {
    if n >= instr.op_count() {
        return Kind::Other;
    }
    match instr.op_kind(n) {
        OpKind::Register if register_slot(instr.op_register(n)) != 255 => Kind::Reg,
        OpKind::Memory => Kind::Mem,
        k if is_immediate(k) => Kind::Imm,
        _ => Kind::Other,
    }
}

/// Size of operand `n` in bytes; 0 if it is neither register nor memory.
pub(super) fn size(instr: &Instruction, n: u32) -> usize {
    match kind(instr, n) {
        Kind::Reg => instr.op_register(n).size(),
        Kind::Mem => instr.memory_size().size(),
        Kind::Imm | Kind::Other => 0,
    }
}

/// A handler with its operands.
pub(super) fn with(run: crate::op::Handler, instr: &Instruction) -> Option<Lowered> {
    Some(Lowered::operands(run, instr))
}

/// The handler for an operand size in bytes.
macro_rules! sized {
    ($size:expr, $f:ident $(, $g:ty)*) => {
        match $size {
            1 => $f::<u8 $(, $g)*> as crate::op::Handler,
            2 => $f::<u16 $(, $g)*> as crate::op::Handler,
            4 => $f::<u32 $(, $g)*> as crate::op::Handler,
            8 => $f::<u64 $(, $g)*> as crate::op::Handler,
            _ => return None,
        }
    };
}

/// The handler for an operand size of 2, 4 or 8 bytes.
macro_rules! wide {
    ($size:expr, $f:ident $(, $g:ty)*) => {
        match $size {
            2 => $f::<u16 $(, $g)*> as crate::op::Handler,
            4 => $f::<u32 $(, $g)*> as crate::op::Handler,
            8 => $f::<u64 $(, $g)*> as crate::op::Handler,
            _ => return None,
        }
    };
}

/// The handler for an operand size of 4 or 8 bytes.
macro_rules! long {
    ($size:expr, $f:ident $(, $g:ty)*) => {
        match $size {
            4 => $f::<u32 $(, $g)*> as crate::op::Handler,
            8 => $f::<u64 $(, $g)*> as crate::op::Handler,
            _ => return None,
        }
    };
}

/// The handler for a register or memory operand `$n`: `$r` names the register source.
macro_rules! sourced {
    ($m:ident, $instr:expr, $n:expr, $r:ty, $f:ident $(, $g:ty)*) => {
        match $crate::exec::integer::form::kind($instr, $n) {
            $crate::exec::integer::form::Kind::Reg => {
                $m!($crate::exec::integer::form::size($instr, $n), $f $(, $g)*, $r)
            }
            $crate::exec::integer::form::Kind::Mem => {
                $m!($crate::exec::integer::form::size($instr, $n), $f $(, $g)*,
                    $crate::exec::integer::form::Mem)
            }
            _ => return None,
        }
    };
}

/// The handler for a condition number 0-15.
macro_rules! conditional {
    ($cc:expr, $f:ident $(, $t:ty)*) => {
        match $cc {
            0 => $f::<$($t,)* 0> as crate::op::Handler,
            1 => $f::<$($t,)* 1> as crate::op::Handler,
            2 => $f::<$($t,)* 2> as crate::op::Handler,
            3 => $f::<$($t,)* 3> as crate::op::Handler,
            4 => $f::<$($t,)* 4> as crate::op::Handler,
            5 => $f::<$($t,)* 5> as crate::op::Handler,
            6 => $f::<$($t,)* 6> as crate::op::Handler,
            7 => $f::<$($t,)* 7> as crate::op::Handler,
            8 => $f::<$($t,)* 8> as crate::op::Handler,
            9 => $f::<$($t,)* 9> as crate::op::Handler,
            10 => $f::<$($t,)* 10> as crate::op::Handler,
            11 => $f::<$($t,)* 11> as crate::op::Handler,
            12 => $f::<$($t,)* 12> as crate::op::Handler,
            13 => $f::<$($t,)* 13> as crate::op::Handler,
            14 => $f::<$($t,)* 14> as crate::op::Handler,
            15 => $f::<$($t,)* 15> as crate::op::Handler,
            _ => return None,
        }
    };
}

pub(super) use {conditional, long, sized, sourced, wide};
