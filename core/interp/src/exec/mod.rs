//! What instructions do, by group. Each group has a `lower` that knows its instructions.

use iced_x86::Instruction;

use crate::cpu::{Cpu, Stop};
use crate::op::{Lowered, Op};

pub mod integer;
pub mod system;
pub mod vector;

pub use system::{enter_by_syscall, syscall_selectors};

/// The handler of an instruction, if there is one.
#[must_use]
pub fn lower(instr: &Instruction) -> Option<Lowered> {
    integer::lower(instr).or_else(|| system::lower(instr)).or_else(|| vector::lower(instr))
}

/// What the decoder calls invalid: #UD, or #GP(0) for more than 15 bytes (see `block`).
pub fn invalid(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    if op.instr.len() >= 15 { Err(cpu.gp(0)) } else { Err(cpu.ud()) }
}

/// A valid instruction that we lack: #UD, counted.
pub fn missing(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let count = cpu.missing.entry(op.instr.code()).or_insert(0);
    *count = count.wrapping_add(1);
    Err(cpu.ud())
}
