//! A program under construction: instructions with labels, and how they become bytes.

use iced_x86::{Code, Encoder, Instruction, Register};

use crate::blocks::flow::{self, Step};
use crate::layout::EXIT;
use crate::rng::Rng;

/// A place in the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// The label that stands outside of the program.
pub(super) const OUT: Label = Label(0);

/// An instruction, and what of it depends on a label: the target of a branch, the displacement of
/// an operand in the code, or an immediate.
#[derive(Clone, Copy, Debug)]
struct Slot {
    instr: Instruction,
    to: Option<(Label, u64)>,
    /// A byte before it that changes nothing.
    prefix: Option<u8>,
}

/// The program.
pub(super) struct Program {
    bits: u32,
    slots: Vec<Slot>,
    /// Number of the slot of each label; `usize::MAX` for [`OUT`] and those not placed yet.
    labels: Vec<usize>,
    /// Addresses of data that hold a label's address.
    pub(super) cells: Vec<(u64, Label)>,
    /// Labels whose address somebody has.
    taken: Vec<Label>,
}

/// What comes out.
pub(super) struct Assembled {
    pub(super) bytes: Vec<u8>,
    pub(super) starts: Vec<u32>,
    pub(super) cells: Vec<(u64, u64)>,
    pub(super) taken: Vec<u16>,
}

/// Fixers that are put in at most.
const FIXERS: usize = 60;

impl Program {
    pub(super) fn new(bits: u32) -> Self {
        let labels = vec![usize::MAX];
        Self { bits, slots: Vec::new(), labels, cells: Vec::new(), taken: Vec::new() }
    }
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
    pub(super) fn push(&mut self, instr: Instruction) {
        self.slots.push(Slot { instr, to: None, prefix: None });
    }
    pub(super) fn push_prefixed(&mut self, prefix: u8, instr: Instruction) {
        self.slots.push(Slot { instr, to: None, prefix: Some(prefix) });
    }
    /// An instruction that refers to the byte `offset` behind a label.
    pub(super) fn push_to(&mut self, instr: Instruction, label: Label, offset: u64) {
        self.slots.push(Slot { instr, to: Some((label, offset)), prefix: None });
    }
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(usize::MAX);
        Label(self.labels.len() - 1)
    }
    /// The label stands before the next instruction.
    pub(super) fn place(&mut self, label: Label) {
        let here = self.slots.len();
        if let Some(place) = self.labels.get_mut(label.0) {
            *place = here;
        }
    }
    /// Its address is going to be in a register or in memory.
    pub(super) fn take(&mut self, label: Label) {
        self.taken.push(label);
    }
    pub(super) fn cell(&mut self, address: u64, label: Label) {
        self.take(label);
        self.cells.push((address, label));
    }

    fn slot_of(&self, label: Label) -> Option<usize> {
        self.labels.get(label.0).copied().filter(|slot| *slot != usize::MAX)
    }
    fn steps(&self) -> Vec<Step> {
        self.slots
            .iter()
            .map(|slot| flow::step(&slot.instr, |_| self.slot_of(slot.to?.0)))
            .collect()
    }
    fn taken(&self) -> Vec<usize> {
        self.taken.iter().filter_map(|label| self.slot_of(*label)).collect()
    }

    /// Puts comparisons before instructions that would read an undefined flag. False if that
    /// comes to no end.
    pub(super) fn define_flags(&mut self, rng: &mut Rng) -> bool {
        let mut steps = self.steps();
        for _ in 0..FIXERS {
            let Err(reader) = flow::follow(&steps, &self.taken()) else { return true };
            let (a, b) = (rng.below(8) as u32, rng.below(8) as u32);
            let code = rng.pick(&[Code::Cmp_r32_rm32, Code::Cmp_rm32_r32]);
            let Ok(instr) = Instruction::with2(code, Register::EAX + a, Register::EAX + b) else {
                return false;
            };
            self.slots.insert(reader, Slot { instr, to: None, prefix: None });
            for place in &mut self.labels {
                if *place != usize::MAX && *place > reader {
                    *place += 1;
                }
            }
            steps = self.steps();
        }
        false
    }

    /// The bytes for the address that `choose` gives for their length.
    pub(super) fn assemble(
        &mut self,
        encoder: &mut Encoder,
        rng: &mut Rng,
        choose: impl FnOnce(u64, &mut Rng) -> u64,
    ) -> Option<Assembled> {
        let mut lengths = self.lengths(encoder)?;
        self.shorten(&mut lengths, rng);
        let rip = choose(lengths.iter().sum(), rng);
        let mut addresses = vec![rip];
        let mut next = rip;
        for length in &lengths {
            next += length;
            addresses.push(next);
        }
        let address = |label: Label| match self.slot_of(label) {
            Some(slot) => addresses.get(slot).copied(),
            None => Some(EXIT),
        };
        let mut bytes = Vec::with_capacity(lengths.iter().sum::<u64>() as usize);
        for (slot, at) in self.slots.iter().zip(&addresses) {
            let mut instr = slot.instr;
            if let Some((label, offset)) = slot.to {
                resolve(&mut instr, self.bits, address(label)?.wrapping_add(offset));
            }
            bytes.extend(slot.prefix);
            encoder.encode(&instr, at + u64::from(slot.prefix.is_some())).ok()?;
            bytes.append(&mut encoder.take_buffer());
        }
        if bytes.len() as u64 != next - rip {
            return None;
        }
        let mut cells = Vec::new();
        for (at, label) in &self.cells {
            cells.push((*at, address(*label)?));
        }
        let taken = self.taken().into_iter().map(|slot| slot as u16).collect();
        addresses.pop();
        let starts = addresses.into_iter().map(|at| (at - rip) as u32).collect();
        Some(Assembled { bytes, starts, cells, taken })
    }

    /// How long the instructions are; branches take the long form.
    fn lengths(&self, encoder: &mut Encoder) -> Option<Vec<u64>> {
        const SOMEWHERE: u64 = 0x1010_0000;
        let mut lengths = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let mut instr = slot.instr;
            if slot.to.is_some() {
                resolve(&mut instr, self.bits, SOMEWHERE);
            }
            let length = encoder.encode(&instr, SOMEWHERE).ok()?;
            let _ = encoder.take_buffer();
            lengths.push(length as u64 + u64::from(slot.prefix.is_some()));
        }
        Some(lengths)
    }

    /// Makes some of the branches short that can be. Others only come nearer by that.
    fn shorten(&mut self, lengths: &mut [u64], rng: &mut Rng) {
        for n in 0..self.slots.len() {
            let Some(slot) = self.slots.get(n).copied() else { continue };
            let Some(target) = slot.to.and_then(|(label, _)| self.slot_of(label)) else { continue };
            let branch = slot.instr.is_jcc_near() || slot.instr.is_jmp_near();
            let between = lengths.get(n.min(target)..=n.max(target)).unwrap_or_default();
            if !branch || between.iter().sum::<u64>() > 120 || rng.chance(25) {
                continue;
            }
            if let (Some(slot), Some(length)) = (self.slots.get_mut(n), lengths.get_mut(n)) {
                slot.instr.as_short_branch();
                *length = 2;
            }
        }
    }
}

/// Fills in an address.
fn resolve(instr: &mut Instruction, bits: u32, address: u64) {
    let branch = instr.is_jcc_short_or_near()
        || instr.is_jmp_short_or_near()
        || instr.is_call_near()
        || instr.is_loop()
        || instr.is_loopcc()
        || instr.is_jcx_short();
    if branch {
        if bits == 64 {
            instr.set_near_branch64(address);
        } else {
            instr.set_near_branch32(address as u32);
        }
    } else if instr.memory_base() == Register::RIP || has_memory(instr) {
        instr.set_memory_displacement64(address);
    } else {
        let last = instr.op_count().saturating_sub(1);
        instr.set_immediate_u64(last, address);
    }
}

fn has_memory(instr: &Instruction) -> bool {
    (0..instr.op_count()).any(|n| instr.op_kind(n) == iced_x86::OpKind::Memory)
}
