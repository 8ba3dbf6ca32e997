//! The vector group: x87, MMX, SSE and AVX.
//!
//! Arithmetic is the host CPU's (`pass`); done here are the checks before it, the memory
//! operands, the exceptions, and what a host can't do for a guest: images of the state, masked
//! accesses, MXCSR, XCR0. The hottest moves are done here too, because a stub costs more.

use iced_x86::Instruction;

use crate::op::Lowered;

mod checks;
mod control;
mod fpu;
mod fxsave;
mod masked;
mod moves;
mod operand;
mod pass;
mod strings;
#[cfg(test)]
mod tests;
mod xsave;

/// The handler of an instruction of this group.
#[must_use]
pub fn lower(instr: &Instruction) -> Option<Lowered> {
    moves::lower(instr)
        .or_else(|| strings::lower(instr))
        .or_else(|| control::lower(instr))
        .or_else(|| fpu::lower(instr))
        .or_else(|| fxsave::lower(instr))
        .or_else(|| xsave::lower(instr))
        .or_else(|| masked::lower(instr))
        .or_else(|| masked::lower_movnti(instr))
        .or_else(|| pass::lower(instr))
}
