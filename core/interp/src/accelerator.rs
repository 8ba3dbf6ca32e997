//! Where something faster than the interpreter does what it can, and leaves it the rest.

use iced_x86::Instruction;

use crate::cpu::Cpu;

/// What an accelerator did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// It has nothing for the instruction at RIP: the interpreter does a block.
    Cold,
    /// The interpreter does the instruction at RIP, and asks again.
    One,
    /// It is time to look at clock and mailbox.
    Around,
    /// First the instruction at RIP, then a look around.
    OneThenAround,
}

/// Runs guest code on a processor between two of the interpreter's looks around.
pub trait Accelerator: Send {
    /// Goes on from the processor's state, which is complete before and after.
    fn run(&mut self, cpu: &mut Cpu) -> Ran;
}

/// Whether the processor's model shows an instruction.
#[must_use]
pub fn shown(cpu: &Cpu, instruction: &Instruction) -> bool {
    crate::guard::shown(&cpu.model, instruction)
}

/// How the processor's model decodes.
#[must_use]
pub fn decoder_options(cpu: &Cpu) -> u32 {
    crate::block::decoder_options(cpu)
}
