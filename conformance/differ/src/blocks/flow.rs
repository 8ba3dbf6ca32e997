//! Which flags are undefined before each instruction of a block.
//!
//! The three sides give undefined flags different values. So no instruction of a block may read
//! one, and where a block ends they are not compared. Undefinedness is followed forwards, over all
//! ways that the block can take; [`crate::undefined`] says where it begins.

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, RflagsBits};
use kasane_spec_x86::flags::{AF, ARITHMETIC, CF, OF, PF, SF, ZF};

use super::Block;
use crate::case::Case;
use crate::layout::EXIT;
use crate::undefined;

/// What an instruction does to the flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// It depends on these.
    pub reads: u64,
    /// These are defined afterwards, whatever they were.
    pub defines: u64,
    /// These may be undefined afterwards.
    pub undefines: u64,
    /// Not compared if it faults.
    pub at_fault: u64,
}

/// Where an instruction goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// To the one behind it.
    On,
    /// There, or on.
    Branch(Option<usize>),
    /// There. `None`: out of the block.
    Jump(Option<usize>),
    /// Where a register or memory says.
    Indirect,
    /// Behind any call.
    Return,
}

/// An instruction as the analysis sees it.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// On flags.
    pub effect: Effect,
    /// Afterwards.
    pub next: Next,
    /// It is a call, so that a return comes to what is behind it.
    pub calls: bool,
}

/// Undefined flags.
#[derive(Clone, Debug, Default)]
pub struct Undefined {
    before: Vec<u64>,
    at_fault: Vec<u64>,
    /// At the exit.
    pub at_exit: u64,
}

fn from_iced(bits: u32) -> u64 {
    [
        (RflagsBits::OF, OF),
        (RflagsBits::SF, SF),
        (RflagsBits::ZF, ZF),
        (RflagsBits::AF, AF),
        (RflagsBits::CF, CF),
        (RflagsBits::PF, PF),
    ]
    .into_iter()
    .filter(|(iced, _)| bits & iced != 0)
    .fold(0, |all, (_, flag)| all | flag)
}

fn is_repeated(instruction: &Instruction) -> bool {
    instruction.is_string_instruction()
        && (instruction.has_rep_prefix() || instruction.has_repne_prefix())
}

/// The effect of an instruction.
#[must_use]
pub fn effect(instruction: &Instruction) -> Effect {
    let by_cl = (0..instruction.op_count())
        .any(|n| instruction.op_kind(n) == OpKind::Register && is_cl(instruction, n));
    let modified = from_iced(instruction.rflags_modified());
    let reads = from_iced(instruction.rflags_read());
    let undefines = match shift(instruction) {
        Some(flags) if by_cl => flags,
        _ => undefined::flags(instruction, &Case::default()),
    };
    let conditional = by_cl && shift(instruction).is_some() || is_repeated(instruction);
    let defines = if conditional || count_is_zero(instruction) { 0 } else { modified & !undefines };
    let at_fault = if is_repeated(instruction) { ARITHMETIC } else { 0 };
    Effect { reads, defines, undefines, at_fault }
}

fn is_cl(instruction: &Instruction, n: u32) -> bool {
    n > 0 && instruction.op_register(n) == iced_x86::Register::CL
}

fn count_is_zero(instruction: &Instruction) -> bool {
    shift(instruction).is_some()
        && (0..instruction.op_count()).any(|n| {
            instruction.op_kind(n) == OpKind::Immediate8 && instruction.immediate8() & 0x3F == 0
                || instruction.op_kind(n) == OpKind::Immediate8 && instruction.immediate8() == 32
        })
}

/// What a shift by a count that is not known may leave undefined.
fn shift(instruction: &Instruction) -> Option<u64> {
    match instruction.mnemonic() {
        Mnemonic::Shl | Mnemonic::Shr | Mnemonic::Sal => Some(AF | OF | CF),
        Mnemonic::Sar => Some(AF | OF),
        Mnemonic::Rol | Mnemonic::Ror | Mnemonic::Rcl | Mnemonic::Rcr => Some(OF),
        Mnemonic::Shld | Mnemonic::Shrd => Some(ARITHMETIC),
        _ => None,
    }
}

/// The step of an instruction; `target` tells the number of the instruction at an address.
#[must_use]
pub fn step(instruction: &Instruction, target: impl Fn(u64) -> Option<usize>) -> Step {
    let to = || target(instruction.near_branch_target());
    let far = matches!(instruction.op0_kind(), OpKind::FarBranch16 | OpKind::FarBranch32);
    let next = match instruction.flow_control() {
        FlowControl::ConditionalBranch => Next::Branch(to()),
        FlowControl::UnconditionalBranch if far => Next::Jump(None),
        FlowControl::UnconditionalBranch | FlowControl::Call => Next::Jump(to()),
        FlowControl::IndirectBranch | FlowControl::IndirectCall => Next::Indirect,
        FlowControl::Return => Next::Return,
        _ => Next::On,
    };
    let calls = matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall);
    Step { effect: effect(instruction), next, calls }
}

/// Follows the undefined flags. `Err`: the number of an instruction that may read one.
///
/// # Errors
/// As said.
pub fn follow(steps: &[Step], taken: &[usize]) -> Result<Undefined, usize> {
    let mut found = Undefined { before: vec![0; steps.len()], ..Undefined::default() };
    let behind_calls: Vec<usize> =
        (1..).zip(steps).filter(|(_, step)| step.calls).map(|(n, _)| n).collect();
    loop {
        let before = (found.before.clone(), found.at_exit);
        for (n, step) in steps.iter().enumerate() {
            let flags = found.before.get(n).copied().unwrap_or(0);
            let after = flags & !step.effect.defines | step.effect.undefines;
            let mut goes = |to: usize| match found.before.get_mut(to) {
                Some(place) => *place |= after,
                None => found.at_exit |= after,
            };
            match step.next {
                Next::On => goes(n + 1),
                Next::Branch(to) => {
                    goes(n + 1);
                    goes(to.unwrap_or(usize::MAX));
                }
                Next::Jump(to) => goes(to.unwrap_or(usize::MAX)),
                Next::Indirect => taken.iter().for_each(|to| goes(*to)),
                Next::Return => behind_calls.iter().chain(taken).for_each(|to| goes(*to)),
            }
        }
        if before == (found.before.clone(), found.at_exit) {
            break;
        }
    }
    let reader = steps.iter().zip(&found.before).position(|(step, u)| step.effect.reads & u != 0);
    if let Some(reader) = reader {
        return Err(reader);
    }
    found.at_fault =
        steps.iter().zip(&found.before).map(|(step, u)| u | step.effect.at_fault).collect();
    Ok(found)
}

/// The same for a finished block.
///
/// # Errors
/// When an instruction may read an undefined flag.
pub fn of(block: &Block) -> Result<Undefined, usize> {
    let steps: Vec<Step> = block
        .instructions()
        .map(|instruction| step(&instruction, |address| block.index_at(address)))
        .collect();
    let taken: Vec<usize> = block.taken.iter().map(|n| usize::from(*n)).collect();
    follow(&steps, &taken)
}

impl Undefined {
    /// Flags that are not compared when a block stops at `rip` with a fault.
    #[must_use]
    pub fn at(&self, block: &Block, rip: u64) -> u64 {
        if rip == EXIT {
            return self.at_exit;
        }
        let known = block.index_at(rip).and_then(|index| self.at_fault.get(index).copied());
        // A wild target: whatever came before.
        known.unwrap_or_else(|| self.before.iter().fold(self.at_exit, |all, flags| all | flags))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::CODE;

    /// The instructions at these offsets.
    fn block(bytes: &[u8], starts: &[u32]) -> Block {
        let case = Case { bytes: bytes.to_vec(), bits: 64, rip: CODE, ..Case::default() };
        Block { case, starts: starts.to_vec(), ..Block::default() }
    }

    #[test]
    fn an_undefined_flag_stays_until_it_is_defined() {
        // and eax, ecx; inc eax; and eax, ecx
        let it = block(&[0x21, 0xC8, 0xFF, 0xC0, 0x21, 0xC8], &[0, 2, 4]);
        let found = of(&it).unwrap();
        assert_eq!(found.at(&it, CODE), 0);
        assert_eq!(found.at(&it, CODE + 2), AF);
        assert_eq!(found.at(&it, CODE + 4), 0);
        assert_eq!(found.at(&it, EXIT), AF);
    }

    #[test]
    fn a_reader_of_an_undefined_flag_is_found() {
        // and eax, ecx; pushfq
        assert_eq!(of(&block(&[0x21, 0xC8, 0x9C], &[0, 2])).unwrap_err(), 1);
    }

    #[test]
    fn a_shift_by_cl_defines_nothing() {
        // and eax, ecx; shl eax, cl; setc al
        let it = block(&[0x21, 0xC8, 0xD3, 0xE0, 0x0F, 0x92, 0xC0], &[0, 2, 4]);
        assert_eq!(of(&it).unwrap_err(), 2);
    }

    #[test]
    fn undefined_flags_go_along_branches() {
        // bsf eax, ecx; jz +2; cmp eax, ecx; setc al
        let bytes = [0x0F, 0xBC, 0xC1, 0x74, 0x02, 0x39, 0xC8, 0x0F, 0x92, 0xC0];
        assert_eq!(of(&block(&bytes, &[0, 3, 5, 7])).unwrap_err(), 3);
    }

    #[test]
    fn undefined_flags_go_around_loops() {
        // setc al; and.. shl eax, 40h-ish by cl; dec ecx; jnz back
        let bytes = [0x0F, 0x92, 0xC0, 0xD3, 0xE0, 0xFF, 0xC9, 0x75, 0xF7];
        assert_eq!(of(&block(&bytes, &[0, 3, 5, 7])).unwrap_err(), 0);
    }

    #[test]
    fn undefined_flags_go_through_returns() {
        // call +7; setc al; jmp +; ud2 | shl eax, cl; ret
        let bytes = [0xE8, 5, 0, 0, 0, 0x0F, 0x92, 0xC0, 0x0F, 0x0B, 0xD3, 0xE0, 0xC3];
        assert_eq!(of(&block(&bytes, &[0, 5, 8, 10, 12])).unwrap_err(), 1);
    }
}
