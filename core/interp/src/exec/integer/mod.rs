//! The integer group: everything that touches only general registers, arithmetic flags and
//! memory, and near control flow.
//!
//! Each family decides by mnemonic, operand kinds and sizes which specialised handler runs, so
//! that a handler itself decides nothing but what the instruction does. Flags that the manual
//! leaves undefined get what Intel's processors give where that is cheap; the families say so,
//! and the comparison with the real processor (`conformance/differ`) lists them.

mod alu;
mod arith;
mod bits;
mod bmi;
mod branch;
mod decimal;
mod exchange;
mod form;
mod misc;
mod moves;
mod muldiv;
mod shift;
mod stack;
mod string;

use iced_x86::Instruction;

use crate::op::Lowered;

/// The handler of an instruction of this group.
#[must_use]
pub fn lower(instr: &Instruction) -> Option<Lowered> {
    moves::lower(instr)
        .or_else(|| alu::lower(instr))
        .or_else(|| branch::lower(instr))
        .or_else(|| stack::lower(instr))
        .or_else(|| shift::lower(instr))
        .or_else(|| bits::lower(instr))
        .or_else(|| muldiv::lower(instr))
        .or_else(|| string::lower(instr))
        .or_else(|| exchange::lower(instr))
        .or_else(|| misc::lower(instr))
        .or_else(|| bmi::lower(instr))
        .or_else(|| decimal::lower(instr))
}

#[cfg(test)]
mod tests;
