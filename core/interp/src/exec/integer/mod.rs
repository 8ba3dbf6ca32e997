//! The integer group.

use iced_x86::Instruction;

use crate::op::Lowered;

/// The handler of an instruction of this group.
#[must_use]
pub fn lower(_instr: &Instruction) -> Option<Lowered> {
    None
}
