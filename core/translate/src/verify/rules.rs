//! What instructions do to what is known: a table by mnemonic. Where it has nothing, a register
//! that is written holds a number that nobody knows.

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

use super::fields::{Table, constant};
use super::operand::{Entry, Place, add as sum, selects, slot};
use super::state::{Compared, Fact, Meaning, Outcome, Run, SCRATCH, State, Sum, Value};
use crate::layout::{JUMP_MASK, TLB_MASK, TLB_ROTATION, at, jump_index};
use kasane_spec_x86::flags;

/// The lower half of a register.
const LOW: u64 = 0xFFFF_FFFF;
/// How far the jump tables' hash shifts an address ([`jump_index`]).
const JUMP_SHIFT: u64 = 4;

/// An instruction with what it reaches, before it is done.
pub(super) struct Step<'a> {
    pub(super) state: &'a State,
    pub(super) instruction: &'a Instruction,
    pub(super) place: Place,
}

/// The new value of the first operand; `None` if nothing is known of it.
type Rule = fn(&Step<'_>) -> Option<Outcome>;

/// Rules for instructions that change no register but their first operand.
const RULES: &[(Mnemonic, Rule)] = &[
    (Mnemonic::Mov, moved),
    (Mnemonic::Lea, address),
    (Mnemonic::Rorx, rotated),
    (Mnemonic::Add, added),
    (Mnemonic::Sub, subtracted),
    (Mnemonic::And, masked),
    (Mnemonic::Shl, shifted),
    (Mnemonic::Xor, combined),
];

impl Step<'_> {
    /// What the first operand becomes, if there is a rule for it.
    pub(super) fn result(&self) -> Option<Outcome> {
        let mnemonic = self.instruction.mnemonic();
        let (_, rule) = RULES.iter().find(|(name, _)| *name == mnemonic)?;
        rule(self)
    }
    /// Whether it writes to all of a register with 64 bits (8) or with 32, the others zero (4).
    fn width(&self) -> Option<usize> {
        match self.instruction.op0_kind() {
            OpKind::Register => {
                Some(self.instruction.op0_register().size()).filter(|size| *size >= 4)
            }
            _ => None,
        }
    }
    fn is_wide(&self) -> bool {
        self.width() == Some(8)
    }
    /// The value of all of an operand's register, or of a constant, or of the scratch word.
    fn operand(&self, n: u32) -> Option<Value> {
        match self.instruction.op_kind(n) {
            OpKind::Register => {
                let register = self.instruction.op_register(n);
                (register.is_gpr64() || register.is_gpr32())
                    .then(|| self.state.value(slot(register)))
            }
            OpKind::Memory => match self.place {
                Place::Field { offset: at::SCRATCH, size: 8, .. } => {
                    Some(self.state.value(SCRATCH))
                }
                _ => None,
            },
            kind if is_constant(kind) => {
                Some(Value::number(Sum::constant(self.instruction.immediate(n))))
            }
            _ => None,
        }
    }
    fn constant(&self, n: u32) -> Option<u64> {
        match (self.instruction.op_kind(n), self.place) {
            (OpKind::Memory, Place::Field { offset, size, .. }) => constant(offset, size),
            (kind, _) => is_constant(kind).then(|| self.instruction.immediate(n)),
        }
    }
    fn number(&self, n: u32) -> Option<Sum> {
        self.operand(n).map(|value| value.number)
    }
    fn meaning(&self, n: u32) -> Option<Meaning> {
        self.operand(n)?.meaning
    }
    /// The table's entry that an operand is.
    fn element(&self) -> Option<(Table, Entry)> {
        match self.place {
            Place::Element(table, entry) => Some((table, entry)),
            _ => None,
        }
    }
}

fn is_constant(kind: OpKind) -> bool {
    use OpKind::{
        Immediate8, Immediate8to32, Immediate8to64, Immediate16, Immediate32, Immediate32to64,
        Immediate64,
    };
    matches!(
        kind,
        Immediate8
            | Immediate8to32
            | Immediate8to64
            | Immediate16
            | Immediate32
            | Immediate32to64
            | Immediate64
    )
}

/// MOV copies; out of the tables it takes addends and entries.
fn moved(step: &Step<'_>) -> Option<Outcome> {
    let width = step.width()?;
    if let Some(element) = step.element() {
        return match element {
            (Table::Addends, Entry::Of(of)) if step.state.is_held_by_any(of) => {
                Some(Outcome::means(Meaning::Addend { of }))
            }
            (Table::Codes(class), entry) if is_present(step.state, class, entry) => {
                Some(Outcome::means(Meaning::Entry { class }))
            }
            _ => None,
        };
    }
    let value = step.operand(1)?;
    if width == 8 {
        return Some(value.into());
    }
    let bound = value.bound().unwrap_or(LOW).min(LOW);
    Some(Outcome { number: value.number.low(), meaning: Some(Meaning::AtMost(bound)) })
}

/// Whether a jump table was found to have the target that an entry is for.
pub(super) fn is_present(state: &State, class: usize, entry: Entry) -> bool {
    match entry {
        Entry::Of(low) => state.any(|fact| match fact {
            Fact::Present { class: other, of } => other == class && of.low() == Some(low),
            _ => false,
        }),
        Entry::Number(n) => state.any(|fact| match fact {
            Fact::Present { class: other, of } => {
                other == class && of.known().is_some_and(|target| jump_index(target) == n)
            }
            _ => false,
        }),
    }
}

/// LEA: an address with a constant added, or the end of a run of elements.
fn address(step: &Step<'_>) -> Option<Outcome> {
    if !step.is_wide() {
        return None;
    }
    let instruction = step.instruction;
    let more = instruction.memory_displacement64();
    let value =
        |register: Register| (register != Register::None).then(|| step.state.value(slot(register)));
    let (base, index) = (value(instruction.memory_base()), value(instruction.memory_index()));
    let scale = instruction.memory_index_scale();
    match (base?, index) {
        (Value { meaning: Some(Meaning::Distance { of, from, tags }), .. }, Some(count))
            if more == 0 && of == from =>
        {
            let run = Run { of, tags, count: count.number, scale };
            fits(step.state, run).then_some(Outcome::means(Meaning::End(run)))
        }
        (base, None) => Some(Outcome::from(base).plus(more)),
        (base, Some(index)) if scale == 1 => Some(sum(base, index).plus(more)),
        _ => None,
    }
}

/// Whether the end of a run can be computed without an overflow: it begins in its page, and there
/// are not too many elements.
fn fits(state: &State, run: Run) -> bool {
    const ENOUGH: u64 = 1 << 32;
    let begins = state.any(|fact| match fact {
        Fact::Checked { of, tags, .. } => of == run.of && tags == run.tags,
        _ => false,
    });
    begins
        && state.any(|fact| match fact {
            Fact::AtMost { of, bound } => of == run.count && bound <= ENOUGH,
            _ => false,
        })
}

/// RORX puts the number of an address's page where the offset of its TLB entry is, with some bits
/// more on both sides.
fn rotated(step: &Step<'_>) -> Option<Outcome> {
    match (step.width()?, step.number(1)?, step.constant(2)?) {
        (4, of, rotation) if rotation == u64::from(TLB_ROTATION) => {
            Some(Outcome::means(Meaning::Rotated(of)))
        }
        _ => None,
    }
}

/// ADD of a host address to the distance from its page, of an addend to an address, of constants.
fn added(step: &Step<'_>) -> Option<Outcome> {
    if !step.is_wide() {
        return None;
    }
    let first = step.operand(0)?;
    if let Some((table, entry)) = step.element() {
        return match (first.meaning?, table) {
            (Meaning::Distance { of, from, tags }, Table::Hosts)
                if of == from && selects(entry, of) =>
            {
                // The distance is one from its own page if the check with these tags was passed.
                let checked = step.state.is_held(of, tags);
                checked.then_some(Outcome::means(Meaning::Host { at: of, page: of }))
            }
            _ => None,
        };
    }
    Some(sum(first, step.operand(1)?))
}

/// SUB of a tag, or of a constant.
fn subtracted(step: &Step<'_>) -> Option<Outcome> {
    if !step.is_wide() {
        return None;
    }
    let first = step.operand(0)?;
    let of = first.number;
    match step.element() {
        Some((Table::Tags(tags), entry)) if selects(entry, of) => {
            Some(Outcome::means(Meaning::Distance { of, from: of, tags }))
        }
        Some(_) => None,
        None => Some(Outcome::from(first).plus(step.constant(1)?.wrapping_neg())),
    }
}

/// AND with a constant, which is the most that it can give.
fn masked(step: &Step<'_>) -> Option<Outcome> {
    let width = step.width()?;
    let mask = step.constant(1)?;
    let mask = if width == 4 { mask & LOW } else { mask };
    Some(Outcome::means(match step.meaning(0) {
        Some(Meaning::Mixed(low)) if mask == u64::from(JUMP_MASK) => Meaning::JumpOffset(low),
        Some(Meaning::Rotated(of)) if mask == u64::from(TLB_MASK) => Meaning::TlbIndex(of),
        _ => Meaning::AtMost(mask),
    }))
}

/// SHL in the jump tables' hash.
fn shifted(step: &Step<'_>) -> Option<Outcome> {
    match (step.width()?, step.number(0)?, step.constant(1)?) {
        (4, of, JUMP_SHIFT) => Some(Outcome::means(Meaning::Shifted(of.low()?))),
        _ => None,
    }
}

/// XOR in the jump tables' hash.
fn combined(step: &Step<'_>) -> Option<Outcome> {
    match (step.width()?, step.meaning(0)?, step.number(1)?) {
        (4, Meaning::Shifted(low), other) if other.low() == Some(low) => {
            Some(Outcome::means(Meaning::Mixed(low)))
        }
        _ => None,
    }
}

// --- flags -----------------------------------------------------------------------------------

/// What the host's flags tell behind an instruction that changes them.
pub(super) fn compared(step: &Step<'_>) -> Compared {
    if step.instruction.mnemonic() != Mnemonic::Cmp {
        return Compared::Nothing;
    }
    let found = match step.place {
        Place::Element(Table::Rips(class), entry) => step.number(0).and_then(|of| {
            let own = match entry {
                Entry::Of(low) => of.low() == Some(low),
                Entry::Number(n) => of.known().is_some_and(|target| jump_index(target) == n),
            };
            let first = step.instruction.op0_kind() == OpKind::Register;
            (own && first).then_some(Compared::Target { class, of })
        }),
        Place::Field { offset, size: 4, .. } if step.instruction.op0_kind() == OpKind::Memory => {
            (step.constant(1) == Some(0)).then_some(Compared::Zero { field: offset })
        }
        _ => of_register(step),
    };
    found.unwrap_or(Compared::Nothing)
}

/// A register, or its lower half, with a constant.
fn of_register(step: &Step<'_>) -> Option<Compared> {
    let (value, with) = (step.operand(0)?, step.constant(1)?);
    if step.is_wide() {
        return Some(Compared::With(value, with));
    }
    step.width()?;
    Some(Compared::With(Value::number(value.number.low()?), with & LOW))
}

/// What is known of a table is known only by these rules: an instruction that takes an entry in
/// another way is not.
pub(super) fn takes_entry(step: &Step<'_>, result: Option<Outcome>) -> bool {
    match step.instruction.mnemonic() {
        Mnemonic::Cmp => compared(step) != Compared::Nothing,
        Mnemonic::Jmp => true, // see `ways`
        _ => result.is_some(),
    }
}

// --- the state block -------------------------------------------------------------------------

/// What is stored in a field, as far as it is followed.
pub(super) fn stored(step: &Step<'_>) -> Option<Value> {
    let is_move = step.instruction.mnemonic() == Mnemonic::Mov;
    is_move.then(|| step.operand(1)).flatten()
}

/// `instruction`, which stands at `at`, writes `size` bytes at an offset in the state block; a MOV
/// writes `stored`.
pub(super) fn write_field(
    state: &mut State,
    instruction: &Instruction,
    (offset, size): (usize, usize),
    stored: Option<Value>,
    at: u32,
) {
    let end = offset.saturating_add(size);
    let reaches = |field: usize, len: usize| offset < field.saturating_add(len) && field < end;
    // Facts are about 32 bits, which may begin before this.
    state.forget_fields(offset.saturating_sub(3), end);
    if reaches(at::SCRATCH, 8) {
        match stored.filter(|_| (offset, size) == (at::SCRATCH, 8)) {
            Some(value) => state.set(SCRATCH, value),
            None => state.define(at, SCRATCH),
        }
    }
    if reaches(at::RFLAGS, 4) {
        write_rflags(state, instruction, offset);
    }
    if instruction.code() == Code::Mov_rm32_imm32 {
        state.learn(Fact::Holds { field: offset, value: instruction.immediate32() });
    }
}

/// Follows AC.
fn write_rflags(state: &mut State, instruction: &Instruction, offset: usize) {
    let mask = is_constant(instruction.op1_kind()).then(|| instruction.immediate(1));
    let ac = match (instruction.mnemonic(), mask) {
        _ if offset != at::RFLAGS => None,
        (Mnemonic::Or, Some(mask)) if mask & flags::AC != 0 => Some(true),
        (Mnemonic::And, Some(mask)) if mask & flags::AC == 0 => Some(false),
        (Mnemonic::Or | Mnemonic::And, Some(_)) => return, // left as it is
        _ => None,
    };
    state.forget_ac();
    if let Some(ac) = ac {
        state.learn(Fact::Ac(ac));
    }
}
