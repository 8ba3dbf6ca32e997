//! Where code goes: jumps inside the block, the ways out of it, and the ways back in.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use iced_x86::{Code, ConditionCode, Instruction, OpKind};

use super::fields::{Table, Told, crossings};
use super::operand::{Entry, Place, refused, slot};
use super::rules::is_present;
use super::state::{Compared, Fact, Meaning, Outcome, State, Sum, Tags, Value};
use super::{Block, Why};
use crate::asm::reg;
use crate::layout::at;
use crate::sites::Site;

/// Where an instruction goes, with what is known there.
#[derive(Default)]
pub(super) struct Ways {
    /// The instruction behind it.
    pub(super) next: Option<State>,
    /// Places in the block, by their offset in the arena.
    pub(super) jumps: Vec<(u32, State)>,
}

pub(super) fn ways(
    block: &Block<'_>,
    state: State,
    instruction: &Instruction,
    place: Place,
) -> Result<Ways, Why> {
    match instruction.code() {
        Code::Jmp_rel8_64 | Code::Jmp_rel32_64 => {
            let jumps = Vec::from([(inside(block, instruction)?, state)]);
            Ok(Ways { next: None, jumps })
        }
        Code::Jmp_rm64 => {
            if may_go(block, &state, instruction, place) {
                Ok(Ways::default())
            } else {
                Err(Why::Target)
            }
        }
        _ if instruction.op0_kind() == OpKind::NearBranch64 => {
            let (taken, next) = decided(&state, instruction.condition_code());
            let jumps = Vec::from([(inside(block, instruction)?, taken)]);
            Ok(Ways { next: Some(next), jumps })
        }
        _ => Ok(Ways { next: Some(state), jumps: Vec::new() }),
    }
}

/// The target of a jump, if it lies in the block.
pub(super) fn inside(block: &Block<'_>, instruction: &Instruction) -> Result<u32, Why> {
    u32::try_from(instruction.near_branch64())
        .ok()
        .filter(|target| block.range().contains(target))
        .ok_or(Why::Target)
}

/// A stub that has a site behind the CALL.
pub(super) fn called(
    block: &Block<'_>,
    sites: &BTreeMap<u32, Site<u64>>,
    state: State,
    call: &Instruction,
) -> Result<Ways, Why> {
    let at = call.ip() as u32;
    let site = sites.get(&(call.next_ip() as u32)).ok_or(Why::Site)?;
    let Some((class, write, size)) = block.stubs.checks_by(call.near_branch64()) else {
        // Out to the engine, which finds the address again by R9 and R10, and maybe back in.
        let Site::Access { retry, way, .. } = site else { return Ok(Ways::default()) };
        let (of, tags) = refused(&state).ok_or(Why::Retry)?;
        if way.writes() != (tags == Tags::Write) {
            return Err(Why::Retry);
        }
        return Ok(Ways { next: None, jumps: Vec::from([(*retry, filled(state, at, of))]) });
    };
    let Site::Access { retry, way, .. } = site else { return Err(Why::Site) };
    if class != block.class() || *retry != at || way.writes() != write {
        return Err(Why::Retry);
    }
    let of = state.value(reg::R9).number;
    let again = filled(state.clone(), at, of);
    let next = checked(
        state,
        at,
        Fact::Checked {
            of,
            tags: if write { Tags::Write } else { Tags::Read },
            size: size.into(),
            held: true,
        },
    );
    Ok(Ways { next: Some(next), jumps: Vec::from([(at, again)]) })
}

/// Behind a visit of the engine that filled the TLB for an address.
fn filled(mut state: State, at: u32, of: Sum) -> State {
    state.set(reg::R9, Value::number(of));
    state.after_fill();
    state.define(at, reg::R10);
    state
}

/// Behind a stub that found a fact about an address: the offset in the page is in R9, and its
/// addend in R10.
fn checked(mut state: State, at: u32, fact: Fact) -> State {
    let Fact::Checked { of, tags, .. } = fact else { return state };
    state.compared = Compared::Nothing;
    state.assign(at, reg::R9, Outcome::means(Meaning::Distance { of, from: of, tags }));
    state.assign(at, reg::R10, Outcome::means(Meaning::Addend { of }));
    state.learn(fact);
    state
}

// --- jumps to other blocks ---------------------------------------------------------------------

/// Whether an indirect jump goes to a block's entry, of a class that it may go to.
fn may_go(block: &Block<'_>, state: &State, instruction: &Instruction, place: Place) -> bool {
    let class = block.class();
    let to = match (instruction.op0_kind(), place) {
        (OpKind::Register, _) => match state.value(slot(instruction.op0_register())).meaning {
            Some(Meaning::Entry { class }) => class,
            _ => return false,
        },
        (_, Place::Element(Table::Codes(class), entry)) if is_present(state, class, entry) => class,
        (_, Place::Element(Table::Slots, Entry::Number(n))) if is_slot(block, state, n) => class,
        _ => return false,
    };
    let allowed = |told: Told| match told {
        Told::Ring(ring) => {
            state.held(at::RING) == Some(ring) && state.held(at::CROSSED) == Some(1)
        }
        Told::Ac(ac) => state.has(Fact::Ac(ac)),
    };
    to == class && state.held(at::CROSSED).is_none()
        || crossings(class).any(|crossing| {
            crossing.leads_to(to)
                && state.has(Fact::NotZero { field: crossing.permitted_by })
                && allowed(crossing.told)
        })
}

/// Whether a slot is one for code of the block's mode, and the engine will be told its number if it
/// is empty.
fn is_slot(block: &Block<'_>, state: &State, n: usize) -> bool {
    let told = state.value(reg::R9).number.known() == Some(n as u64);
    told && u32::try_from(n)
        .ok()
        .and_then(|n| block.slots.target(n))
        .is_some_and(|target| target.mode == block.mode)
}

/// Whether a constant may be written to a field that the engine believes.
pub(super) fn may_tell(state: &State, class: usize, field: usize, value: u32) -> bool {
    let to_ring = |ring: u32| {
        crossings(class).any(|crossing| {
            state.has(Fact::NotZero { field: crossing.permitted_by })
                && matches!(crossing.told, Told::Ring(told) if told == ring)
        })
    };
    match field {
        at::RING => to_ring(value),
        at::CROSSED => value == 1 && state.held(at::RING).is_some_and(to_ring),
        _ => false,
    }
}

// --- conditions --------------------------------------------------------------------------------

/// What is known if a jump is taken, and if it is not.
fn decided(state: &State, condition: ConditionCode) -> (State, State) {
    let (mut taken, mut next) = (state.clone(), state.clone());
    match state.compared {
        Compared::Nothing => {}
        Compared::With(value, with) => match condition {
            ConditionCode::a => at_most(&mut next, value, with),
            ConditionCode::be => at_most(&mut taken, value, with),
            ConditionCode::ae => less_than(&mut next, value, with),
            ConditionCode::b => less_than(&mut taken, value, with),
            _ => {}
        },
        Compared::Target { class, of } => match condition {
            ConditionCode::e => taken.learn(Fact::Present { class, of }),
            ConditionCode::ne => next.learn(Fact::Present { class, of }),
            _ => {}
        },
        Compared::Zero { field } => match condition {
            ConditionCode::e => next.learn(Fact::NotZero { field }),
            ConditionCode::ne => taken.learn(Fact::NotZero { field }),
            _ => {}
        },
    }
    (taken, next)
}

fn less_than(state: &mut State, value: Value, bound: u64) {
    if let Some(bound) = bound.checked_sub(1) {
        at_most(state, value, bound);
    }
}

/// A value turned out to be not more than this.
fn at_most(state: &mut State, value: Value, bound: u64) {
    const PAGE: u64 = 4096;
    state.learn(Fact::AtMost { of: value.number, bound });
    match value.meaning {
        // So the tag is the page's: no other page's distance is that small.
        Some(Meaning::Distance { of, from, tags }) if bound < PAGE => {
            let size = PAGE.saturating_sub(bound);
            let fact = Fact::Checked { of, tags, size, held: true };
            if of == from {
                state.learn(fact);
            } else if state.is_held(from, tags) {
                // Both lie in one page.
                state.learn(fact);
                state.rebase(from, of);
            }
        }
        Some(Meaning::End(run)) if bound <= PAGE => state.learn(Fact::Within(run)),
        _ => {}
    }
}
