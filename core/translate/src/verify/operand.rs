//! What an instruction reaches in memory: part of the state block, or guest memory by an address
//! that was checked. Anything else is a violation.

use iced_x86::{Instruction, Mnemonic, OpAccess, OpKind, Register, UsedMemory};

use super::Why;
use super::allowed::StringUse;
use super::fields::{Table, Use, allows, table};
use super::state::{Fact, Meaning, Outcome, Run, State, Sum, Tags, Value};
use crate::asm::reg;
use crate::layout::{RSP_AT, TlbEntry, tlb_index};

/// The register's number, as [`State`] has it.
pub(super) fn slot(register: Register) -> u8 {
    register.full_register().number() as u8
}

/// Which entry of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Selected by an address's TLB index, or by the hash of one with this lower half.
    Of(Sum),
    Number(usize),
}

/// What an explicit operand turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Nowhere,
    Field { offset: usize, size: usize, writes: bool },
    Element(Table, Entry),
    Guest,
}

/// An access: how many bytes, and whether it writes.
#[derive(Clone, Copy)]
struct Access {
    size: usize,
    writes: bool,
}

pub(super) fn writes(access: OpAccess) -> bool {
    use OpAccess::{CondWrite, ReadCondWrite, ReadWrite, Write};
    matches!(access, Write | CondWrite | ReadWrite | ReadCondWrite)
}

/// Finds out what `instruction` reaches, which is no string instruction; `used` is all the memory
/// that it uses.
pub(super) fn reached(
    state: &State,
    instruction: &Instruction,
    used: &[UsedMemory],
    class: usize,
) -> Result<Place, Why> {
    let memory = match used {
        [] => return Ok(Place::Nowhere),
        [memory] => memory,
        _ => return Err(Why::Operand),
    };
    let explicit = instruction.op_kinds().any(|kind| kind == OpKind::Memory)
        && memory.base() == instruction.memory_base()
        && memory.index() == instruction.memory_index()
        && memory.displacement() == instruction.memory_displacement64();
    let size = memory.memory_size().size();
    if !explicit || size == 0 {
        return Err(Why::Operand);
    }
    let access = Access { size, writes: writes(memory.access()) };
    bit_offset_is_small(state, instruction, access)?;
    if memory.base() == Register::RSP {
        return in_state_block(state, instruction, access, class);
    }
    guest(state, memory, access)?;
    Ok(Place::Guest)
}

/// `[rsp + offset]`, or `[rsp + register + table]`.
fn in_state_block(
    state: &State,
    instruction: &Instruction,
    access: Access,
    class: usize,
) -> Result<Place, Why> {
    let Access { size, writes } = access;
    let displacement = instruction.memory_displacement64();
    let from_rsp = i32::try_from(displacement as i64).map_err(|_| Why::StateBlock)?;
    let offset = RSP_AT.checked_add_signed(from_rsp as isize).ok_or(Why::StateBlock)?;
    let found = table(offset, class);
    let index = instruction.memory_index();
    if index == Register::None && found.is_none() {
        return field(instruction, offset, access);
    }
    let (table, number) = found.ok_or(Why::Table)?;
    let entry = if index == Register::None {
        Entry::Number(number)
    } else {
        let by_tlb = matches!(table, Table::Tags(_) | Table::Hosts | Table::Addends);
        let by_hash = matches!(table, Table::Rips(_) | Table::Codes(_));
        match (state.value(slot(index)).meaning, instruction.memory_index_scale()) {
            (Some(Meaning::TlbIndex(of)), 1) if by_tlb && number == 0 => Entry::Of(of),
            (Some(Meaning::JumpOffset(low)), 1) if by_hash && number == 0 => Entry::Of(low),
            _ => return Err(Why::Table),
        }
    };
    if size == 8 && !writes { Ok(Place::Element(table, entry)) } else { Err(Why::Table) }
}

fn field(instruction: &Instruction, offset: usize, access: Access) -> Result<Place, Why> {
    let Access { size, writes } = access;
    let place = Place::Field { offset, size, writes };
    if allows(offset, size, if writes { Use::ReadWrite } else { Use::Read }) {
        return Ok(place);
    }
    let constant = instruction.code() == iced_x86::Code::Mov_rm32_imm32;
    if constant && allows(offset, size, Use::Constant) {
        return Ok(place);
    }
    Err(Why::StateBlock)
}

/// The bit tests with a bit offset in a register reach as far as that says.
fn bit_offset_is_small(
    state: &State,
    instruction: &Instruction,
    access: Access,
) -> Result<(), Why> {
    use Mnemonic::{Bt, Btc, Btr, Bts};
    let by_register = matches!(instruction.mnemonic(), Bt | Btc | Btr | Bts)
        && instruction.op1_kind() == OpKind::Register;
    if !by_register {
        return Ok(());
    }
    let bits = (access.size as u64).saturating_mul(8);
    let bound = state.value(slot(instruction.op1_register())).bound();
    if bound.is_some_and(|bound| bound < bits) { Ok(()) } else { Err(Why::BitOffset) }
}

/// An operand in guest memory: an address in a page plus that page's addend.
fn guest(state: &State, memory: &UsedMemory, access: Access) -> Result<(), Why> {
    let value =
        |register: Register| (register != Register::None).then(|| state.value(slot(register)));
    let index = match (memory.index(), memory.scale()) {
        (Register::None, _) => None,
        (index, 1) => value(index),
        _ => return Err(Why::Unchecked),
    };
    let sum = match (value(memory.base()), index) {
        (Some(a), Some(b)) => add(a, b),
        (Some(one), None) | (None, Some(one)) => one.into(),
        (None, None) => Outcome::default(),
    };
    let Some(Meaning::Host { at, page }) = sum.meaning else { return Err(Why::Unchecked) };
    if is_checked(state, at.plus(memory.displacement()), page, access) {
        Ok(())
    } else {
        Err(Why::Unchecked)
    }
}

/// Whether an access at `at` lies in what was checked of the page of `page`.
fn is_checked(state: &State, at: Sum, page: Sum, access: Access) -> bool {
    let Some(behind) = at.behind(page) else { return false };
    let Some(end) = behind.checked_add(access.size as u64) else { return false };
    state.any(|fact| match fact {
        Fact::Checked { of, tags, size, .. } => {
            of == page && end <= size && (tags == Tags::Write || !access.writes)
        }
        _ => false,
    })
}

/// The sum of two values.
pub(super) fn add(a: Value, b: Value) -> Outcome {
    match (a, b) {
        (at, Value { meaning: Some(Meaning::Addend { of }), .. })
        | (Value { meaning: Some(Meaning::Addend { of }), .. }, at) => {
            Outcome::means(Meaning::Host { at: at.number, page: of })
        }
        _ => match (a.number.known(), b.number.known()) {
            (_, Some(more)) => Outcome::from(a).plus(more),
            (Some(more), None) => Outcome::from(b).plus(more),
            (None, None) => Outcome::default(),
        },
    }
}

/// A string instruction: RCX elements at the host addresses in RDI and, maybe, RSI, upwards,
/// because nothing that may stand in a block sets DF.
pub(super) fn string(state: &State, used: StringUse) -> Result<(), Why> {
    const RCX: u8 = 1;
    const RSI: u8 = 6;
    const RDI: u8 = 7;
    let count = state.value(RCX).number;
    let within = |register: u8, writes: bool| {
        let Some(Meaning::Host { at, page }) = state.value(register).meaning else { return false };
        let run = |tags| Fact::Within(Run { of: page, tags, count, scale: used.size });
        at == page && (state.has(run(Tags::Write)) || !writes && state.has(run(Tags::Read)))
    };
    if within(RDI, true) && (!used.copies || within(RSI, false)) {
        Ok(())
    } else {
        Err(Why::Unchecked)
    }
}

/// Whether this entry of an inline TLB is the one that an address selects.
pub(super) fn selects(entry: Entry, address: Sum) -> bool {
    match entry {
        Entry::Of(other) => other == address,
        Entry::Number(n) => address.known().is_some_and(|known| tlb_index(known) == n),
    }
}

/// The address that the engine finds in R9 and R10 if its check was not passed, and by which tags.
pub(super) fn refused(state: &State) -> Option<(Sum, Tags)> {
    let Some(Meaning::Distance { of, from, tags }) = state.value(reg::R9).meaning else {
        return None;
    };
    let index = state.value(reg::R10);
    let entry = match index.meaning {
        Some(Meaning::TlbIndex(index)) => Entry::Of(index),
        _ => {
            let offset = usize::try_from(index.number.known()?).ok()?;
            let entry = size_of::<TlbEntry>();
            Entry::Number(offset.is_multiple_of(entry).then_some(offset / entry)?)
        }
    };
    (of == from && selects(entry, of)).then_some((of, tags))
}
