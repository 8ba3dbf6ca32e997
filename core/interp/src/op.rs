//! Decoded instructions.

use iced_x86::{Instruction, OpKind, Register};
use kasane_cpu::Seg;

use crate::cpu::{Cpu, Stop};
use crate::critical::CriticalInstruction;

/// Executes one instruction; see the crate's documentation for the rules.
pub type Handler = fn(&mut Cpu, &Op) -> Result<(), Stop>;

/// A memory operand in a form that is quick to evaluate.
#[derive(Clone, Copy, Debug)]
pub struct MemoryOperand {
    /// Register number 0-15, or 255 for none.
    pub base: u8,
    /// Register number 0-15, or 255 for none.
    pub index: u8,
    /// log2 of the scale.
    pub shift: u8,
    /// Segment, overrides included.
    pub seg: Seg,
    /// Displacement, sign-extended; absolute for RIP-relative operands.
    pub disp: u64,
    /// Mask of the address size.
    pub mask: u64,
}

/// A decoded instruction.
#[derive(Clone, Copy)]
pub struct Op {
    /// What executes it.
    pub run: Handler,
    /// Address of the following instruction (offset in CS, wrapped to the mode's width).
    pub next_rip: u64,
    /// An immediate or whatever the handler's `lower` put there.
    pub imm: u64,
    /// The memory operand, if there is one.
    pub mem: MemoryOperand,
    /// First register operand ([`register_slot`]) or whatever `lower` put there.
    pub a: u8,
    /// Second register operand.
    pub b: u8,
    /// Third register operand.
    pub c: u8,
    /// Which of the critical instructions it is, if it is one.
    pub critical: Option<CriticalInstruction>,
    /// Whole instruction, for handlers that need more.
    pub instr: Instruction,
}

/// What a group's `lower` gives for an instruction that it knows.
#[derive(Clone, Copy)]
pub struct Lowered {
    /// Handler.
    pub run: Handler,
    /// See [`Op::a`].
    pub a: u8,
    /// See [`Op::b`].
    pub b: u8,
    /// See [`Op::c`].
    pub c: u8,
    /// See [`Op::imm`].
    pub imm: u64,
    /// The block ends after this instruction (besides control flow, which always ends it).
    pub ends_block: bool,
}

impl Lowered {
    /// Only a handler.
    #[must_use]
    pub fn plain(run: Handler) -> Self {
        Self { run, a: 0, b: 0, c: 0, imm: 0, ends_block: false }
    }
    /// A handler after which the block ends.
    #[must_use]
    pub fn ending(run: Handler) -> Self {
        Self { ends_block: true, ..Self::plain(run) }
    }
    /// A handler with register slots of operands 0 and 1 and the immediate of the last operand,
    /// as far as they are there.
    #[must_use]
    pub fn operands(run: Handler, instr: &Instruction) -> Self {
        let slot = |n: u32| match instr.op_count() > n {
            true if instr.op_kind(n) == OpKind::Register => register_slot(instr.op_register(n)),
            _ => 255,
        };
        let last = instr.op_count().wrapping_sub(1);
        let imm = if instr.op_count() > 0 && is_immediate(instr.op_kind(last)) {
            instr.immediate(last)
        } else {
            0
        };
        Self { run, a: slot(0), b: slot(1), c: slot(2), imm, ends_block: false }
    }
}

/// Whether an operand is an immediate that [`Instruction::immediate`] gives.
#[must_use]
pub fn is_immediate(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Immediate8
            | OpKind::Immediate8_2nd
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64
    )
}

/// The number of a general register operand: 0-15 whatever its size; 16-19 for AH, CH, DH, BH;
/// 255 if it is no general register.
#[must_use]
pub fn register_slot(register: Register) -> u8 {
    match register {
        Register::AH => 16,
        Register::CH => 17,
        Register::DH => 18,
        Register::BH => 19,
        r if r.is_gpr() => (r.full_register().number() & 15) as u8,
        _ => 255,
    }
}

/// A segment register operand.
#[must_use]
pub fn segment(register: Register) -> Seg {
    match register {
        Register::ES => Seg::Es,
        Register::CS => Seg::Cs,
        Register::SS => Seg::Ss,
        Register::FS => Seg::Fs,
        Register::GS => Seg::Gs,
        _ => Seg::Ds,
    }
}

/// The segment of the memory operand. In 64-bit code overrides but those to FS and GS are ignored,
/// also in that they don't choose between #SS and #GP (seen on Intel's processors).
fn effective_segment(instr: &Instruction) -> Seg {
    match segment(instr.memory_segment()) {
        seg @ (Seg::Fs | Seg::Gs) => seg,
        seg if instr.code_size() != iced_x86::CodeSize::Code64 => seg,
        _ => match instr.memory_base() {
            Register::RSP | Register::RBP | Register::ESP | Register::EBP => Seg::Ss,
            _ => Seg::Ds,
        },
    }
}

impl MemoryOperand {
    /// From an instruction; meaningless if it has no memory operand. String operands
    /// (`OpKind::MemorySegRSI` and the like) are their handlers' business; `seg` is right for them.
    #[must_use]
    pub fn of(instr: &Instruction) -> Self {
        let number = |r: Register| {
            if r.is_gpr() { (r.full_register().number() & 15) as u8 } else { 255 }
        };
        let base = instr.memory_base();
        let index = instr.memory_index();
        let size = |r: Register| if r.is_gpr() { r.size() } else { 0 };
        let width = match (base, size(base).max(size(index))) {
            (Register::RIP, _) | (_, 8) => 64,
            (Register::EIP, _) | (_, 4) => 32,
            (_, 2) => 16,
            _ => match instr.memory_displ_size() {
                8 => 64,
                2 => 16,
                _ => 32,
            },
        };
        Self {
            base: number(base),
            index: number(index),
            shift: instr.memory_index_scale().trailing_zeros() as u8,
            seg: effective_segment(instr),
            disp: instr.memory_displacement64(),
            mask: match width {
                64 => u64::MAX,
                32 => 0xFFFF_FFFF,
                _ => 0xFFFF,
            },
        }
    }
}

impl Cpu {
    /// The effective address (offset in its segment) of the memory operand.
    #[inline(always)]
    #[must_use]
    pub fn ea(&self, op: &Op) -> u64 {
        let m = &op.mem;
        let base = self.gpr(m.base);
        let index = self.gpr(m.index);
        base.wrapping_add(index << (m.shift & 3)).wrapping_add(m.disp) & m.mask
    }
}
