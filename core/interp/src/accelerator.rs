//! Where something faster than the interpreter does what it can, and leaves it the rest.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use iced_x86::Instruction;
use kasane_cpu::EngineFault;

use crate::cpu::{Cpu, Stop};
use crate::critical::Critical;
use crate::op::Op;

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
    /// An instruction that it had the interpreter do ([`step`]) left something to see to.
    Again,
    /// An instruction that it had the interpreter do stopped before it was done.
    Stopped(Stop),
    /// It found that it is wrong itself: see [`Accelerator::fault`].
    Failed,
}

/// Runs guest code on a processor between two of the interpreter's looks around.
pub trait Accelerator: Send {
    /// Goes on from the processor's state, which is complete before and after.
    fn run(&mut self, cpu: &mut Cpu) -> Ran;
    /// Who has to know of pages that become code.
    fn followers(&self) -> Option<Arc<dyn CodeFollowers>> {
        None
    }
    /// Why it failed; the guest can't go on.
    fn fault(&mut self) -> EngineFault {
        EngineFault { message: String::new() }
    }
    /// The critical instructions in the code that it translated.
    fn critical(&self) -> Critical {
        Critical::default()
    }
    /// What it counted, by name.
    fn counts(&self) -> Vec<(String, u64)> {
        Vec::new()
    }
}

/// Those who write to guest memory without asking whether a page is code.
pub trait CodeFollowers: Send + Sync {
    /// The page at host address `host` became code through processor `index`. Returns when every
    /// other processor asks before it writes there. `relax` passes a little time.
    fn became_code(&self, index: u32, host: u64, relax: &dyn Fn());
}

/// How an instruction went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is done.
    Done,
    /// It is done, and the run loop has to look.
    Look,
    /// It stopped before it was done.
    Stopped(Stop),
}

/// Does one instruction at RIP, outside of single stepping and the like.
pub fn step(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.next_rip = op.next_rip;
    let result = (op.run)(cpu, op);
    if let Some(which) = op.critical
        && result != Err(Stop::Exit)
    {
        cpu.critical.trapped(which);
    }
    match result {
        Ok(()) | Err(Stop::Break) => {}
        Err(stop) => {
            if stop == Stop::Exit {
                cpu.replay.keep(cpu.state.rip, op);
            }
            return Step::Stopped(stop);
        }
    }
    cpu.state.rip = cpu.next_rip;
    cpu.code_written = false;
    if !core::mem::take(&mut cpu.unfinished) {
        cpu.retired = cpu.retired.wrapping_add(1);
    }
    if cpu.step_override == Some(false) {
        cpu.step_override = None;
    }
    let look =
        cpu.debug_hits != 0 || cpu.step_override.is_some() || cpu.stepping() || cpu.has_business();
    if look { Step::Look } else { Step::Done }
}

pub use crate::exec::{enter_by_syscall, syscall_selectors};

/// Prepares an instruction for [`step`].
#[must_use]
pub fn prepared(cpu: &Cpu, instruction: Instruction) -> Op {
    crate::block::make_op(cpu, instruction)
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
