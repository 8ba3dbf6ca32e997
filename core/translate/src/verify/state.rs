//! What is known at a place of the code: the lattice, and how two ways meet in it.
//!
//! # Symbols
//! Most values are unknown, but it matters that two of them are the same: an operand is checked by
//! one register and reached by another. So an unknown value has a name, a [`Symbol`], made of the
//! place and the register where it came up. A state describes a machine if there is *some* choice
//! of a number for each symbol with which all of its registers and facts are right. A place that
//! is passed a second time (by way of a retry) gives its symbols new meanings, so everything else
//! that mentions them is forgotten then: [`State::define`], and the same in [`State::meet`].

use alloc::vec::Vec;

/// The sixteen general registers by number, and behind them [`SCRATCH`].
const SLOTS: usize = 17;
/// The place of `Hot::scratch` among the registers: the one word of memory that is followed.
pub(super) const SCRATCH: u8 = 16;

/// A number that nobody knows, by the place where it came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Symbol {
    /// Offset of the instruction.
    at: u32,
    slot: u8,
    /// It came up before the instruction, where ways meet, and not behind it.
    met: bool,
}

/// A symbol; or, with `cut`, the lower half of a symbol and that constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Term {
    symbol: Symbol,
    cut: Option<u32>,
}

/// A term and a constant, or a constant alone, modulo 2⁶⁴.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sum {
    term: Option<Term>,
    constant: u64,
}

impl Sum {
    pub(super) fn constant(constant: u64) -> Self {
        Self { term: None, constant }
    }
    fn of(symbol: Symbol) -> Self {
        Self { term: Some(Term { symbol, cut: None }), constant: 0 }
    }
    /// Its lower half, zero-extended; `None` if that can't be said.
    pub(super) fn low(self) -> Option<Self> {
        let Some(term) = self.term else {
            return Some(Self::constant(self.constant & 0xFFFF_FFFF));
        };
        match term.cut {
            None => {
                let cut = Some(self.constant as u32);
                Some(Self { term: Some(Term { cut, ..term }), constant: 0 })
            }
            Some(_) => (self.constant == 0).then_some(self),
        }
    }
    pub(super) fn plus(self, more: u64) -> Self {
        Self { constant: self.constant.wrapping_add(more), ..self }
    }
    /// How far it is behind another, if that is known.
    pub(super) fn behind(self, other: Self) -> Option<u64> {
        (self.term == other.term).then(|| self.constant.wrapping_sub(other.constant))
    }
    pub(super) fn known(self) -> Option<u64> {
        self.term.is_none().then_some(self.constant)
    }
    fn mentions(self, wanted: impl Fn(Symbol) -> bool) -> bool {
        self.term.is_some_and(|term| wanted(term.symbol))
    }
}

/// Which tags an address was compared with. Their class is always the block's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tags {
    Read,
    Write,
}

/// How many elements of how many bytes begin at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) of: Sum,
    pub(super) tags: Tags,
    pub(super) count: Sum,
    pub(super) scale: u32,
}

impl Run {
    fn mentions(self, wanted: impl Fn(Symbol) -> bool) -> bool {
        self.of.mentions(&wanted) || self.count.mentions(wanted)
    }
}

/// What a number in a register is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It is not more than this.
    AtMost(u64),
    /// Steps of the jump tables' hash of an address with this lower half: that shifted, both
    /// combined.
    Shifted(Sum),
    Mixed(Sum),
    /// The hash itself, which is an entry's offset.
    JumpOffset(Sum),
    /// The lower half of an address, rotated so that the page's number is lowest.
    Rotated(Sum),
    TlbIndex(Sum),
    /// An address less the tag that the TLB index of `from`, mostly the same address, selects.
    Distance {
        of: Sum,
        from: Sum,
        tags: Tags,
    },
    /// Distance and length of a run.
    End(Run),
    /// Host address less guest address of the page of an address that was checked.
    Addend {
        of: Sum,
    },
    /// The host address of `at`, if that lies in the page of `page`, which was checked.
    Host {
        at: Sum,
        page: Sum,
    },
    /// A block's entry, out of the jump table of a class.
    Entry {
        class: usize,
    },
}

impl Meaning {
    fn mentions(self, wanted: impl Fn(Symbol) -> bool) -> bool {
        match self {
            Self::AtMost(_) | Self::Entry { .. } => false,
            Self::Shifted(of)
            | Self::Mixed(of)
            | Self::JumpOffset(of)
            | Self::Rotated(of)
            | Self::TlbIndex(of)
            | Self::Addend { of } => of.mentions(wanted),
            Self::End(run) => run.mentions(wanted),
            Self::Distance { of, from, .. } => of.mentions(&wanted) || from.mentions(wanted),
            Self::Host { at, page } => at.mentions(&wanted) || page.mentions(wanted),
        }
    }
}

/// What is in a register. Guest code may come to any meaning by itself, and use the number as an
/// address all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) number: Sum,
    pub(super) meaning: Option<Meaning>,
}

impl Value {
    pub(super) fn number(number: Sum) -> Self {
        Self { number, meaning: None }
    }
    /// It is not more than this.
    pub(super) fn bound(self) -> Option<u64> {
        match self.meaning {
            Some(Meaning::AtMost(bound)) => Some(bound),
            _ => self.number.known(),
        }
    }
    fn mentions(self, wanted: impl Fn(Symbol) -> bool) -> bool {
        self.number.mentions(&wanted) || self.meaning.is_some_and(|m| m.mentions(wanted))
    }
}

/// What an instruction gives; a number that is not known is a new symbol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) number: Option<Sum>,
    pub(super) meaning: Option<Meaning>,
}

impl Outcome {
    pub(super) fn means(meaning: Meaning) -> Self {
        Self { number: None, meaning: Some(meaning) }
    }
    pub(super) fn plus(self, more: u64) -> Self {
        let meaning = match self.meaning {
            Some(Meaning::Host { at, page }) => Some(Meaning::Host { at: at.plus(more), page }),
            Some(Meaning::Distance { of, from, tags }) => {
                Some(Meaning::Distance { of: of.plus(more), from, tags })
            }
            meaning => meaning.filter(|_| more == 0),
        };
        Self { number: self.number.map(|number| number.plus(more)), meaning }
    }
}

impl From<Value> for Outcome {
    fn from(value: Value) -> Self {
        Self { number: Some(value.number), meaning: value.meaning }
    }
}

/// What the host's flags tell: the outcome of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    Nothing,
    /// 64 bits of a value with a constant.
    With(Value, u64),
    /// An address with the one that its hash selects in the jump table of a class.
    Target {
        class: usize,
        of: Sum,
    },
    /// A field, by its offset, with zero.
    Zero {
        field: usize,
    },
}

/// What is known besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// `size` bytes from an address on lie in a page that these tags let in. `held`: and the TLB
    /// still has that page at this address's index.
    Checked { of: Sum, tags: Tags, size: u64, held: bool },
    /// So does a run of elements.
    Within(Run),
    /// A number is not more than this.
    AtMost { of: Sum, bound: u64 },
    /// The jump table of a class has this address.
    Present { class: usize, of: Sum },
    /// A field of the state block, by its offset, is not zero.
    NotZero { field: usize },
    /// A field of 32 bits has this value.
    Holds { field: usize, value: u32 },
    /// AC in `Hot::rflags`.
    Ac(bool),
}

impl Fact {
    /// What both say.
    fn meet(self, other: Self) -> Option<Self> {
        match (self, other) {
            (
                Self::Checked { of, tags, size, held },
                Self::Checked { of: of2, tags: tags2, size: size2, held: held2 },
            ) if of == of2 && tags == tags2 => {
                Some(Self::Checked { of, tags, size: size.min(size2), held: held && held2 })
            }
            (Self::AtMost { of, bound }, Self::AtMost { of: of2, bound: bound2 }) if of == of2 => {
                Some(Self::AtMost { of, bound: bound.max(bound2) })
            }
            _ => (self == other).then_some(self),
        }
    }
    /// One fact that says what both say, if there is one: `newer` holds, too.
    fn join(self, newer: Self) -> Option<Self> {
        match (self, newer) {
            (
                Self::Checked { of, tags, size, .. },
                Self::Checked { of: of2, tags: tags2, size: size2, held },
            ) if of == of2 && tags == tags2 => {
                Some(Self::Checked { of, tags, size: size.max(size2), held })
            }
            (Self::AtMost { of, bound }, Self::AtMost { of: of2, bound: bound2 }) if of == of2 => {
                Some(Self::AtMost { of, bound: bound.min(bound2) })
            }
            _ => (self == newer).then_some(self),
        }
    }
    fn mentions(self, wanted: impl Fn(Symbol) -> bool) -> bool {
        match self {
            Self::NotZero { .. } | Self::Holds { .. } | Self::Ac(_) => false,
            Self::Checked { of, .. } | Self::AtMost { of, .. } | Self::Present { of, .. } => {
                of.mentions(wanted)
            }
            Self::Within(run) => run.mentions(wanted),
        }
    }
    /// What is left of it when the engine was at work on the TLB in between.
    fn after_fill(self) -> Option<Self> {
        match self {
            Self::Checked { of, tags, size, .. } => {
                Some(Self::Checked { of, tags, size, held: false })
            }
            Self::Within(_) | Self::AtMost { .. } => Some(self),
            Self::Present { .. } | Self::NotZero { .. } | Self::Holds { .. } | Self::Ac(_) => None,
        }
    }
}

/// What is known at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    slots: [Value; SLOTS],
    pub(super) compared: Compared,
    facts: Vec<Fact>,
}

fn each_slot() -> impl Iterator<Item = u8> {
    0..SLOTS as u8
}

impl State {
    /// Where anybody may come from: nothing is known.
    pub(super) fn entry(at: u32) -> Self {
        let mut slots = [Value::number(Sum::constant(0)); SLOTS];
        for (place, slot) in slots.iter_mut().zip(each_slot()) {
            place.number = Sum::of(Symbol { at, slot, met: true });
        }
        Self { slots, compared: Compared::Nothing, facts: Vec::new() }
    }

    pub(super) fn value(&self, slot: u8) -> Value {
        let nobodys = Symbol { at: u32::MAX, slot, met: true };
        let found = self.slots.get(usize::from(slot)).copied();
        found.unwrap_or(Value::number(Sum::of(nobodys)))
    }
    pub(super) fn set(&mut self, slot: u8, value: Value) {
        if let Some(place) = self.slots.get_mut(usize::from(slot)) {
            *place = value;
        }
    }
    /// The instruction at `at` gives a register a value.
    pub(super) fn assign(&mut self, at: u32, slot: u8, outcome: Outcome) {
        if let Some(number) = outcome.number {
            self.set(slot, Value { number, meaning: outcome.meaning });
            return;
        }
        self.define(at, slot);
        // It may be about what this place's symbols meant before.
        let stale = |symbol: Symbol| symbol.at == at && !symbol.met;
        let number = self.value(slot).number;
        let meaning = outcome.meaning.filter(|meaning| !meaning.mentions(stale));
        self.set(slot, Value { number, meaning });
    }
    /// The instruction at `at` gives a register a value that nobody knows.
    pub(super) fn define(&mut self, at: u32, slot: u8) {
        self.rename(Symbol { at, slot, met: false });
    }
    /// A slot gets a symbol that may have had another meaning before.
    fn rename(&mut self, symbol: Symbol) {
        let mut pending = Vec::from([symbol]);
        while let Some(symbol) = pending.pop() {
            let stale = |other: Symbol| other == symbol;
            self.facts.retain(|fact| !fact.mentions(stale));
            let compared = match self.compared {
                Compared::With(value, _) => value.mentions(stale),
                Compared::Target { of, .. } => of.mentions(stale),
                Compared::Nothing | Compared::Zero { .. } => false,
            };
            if compared {
                self.compared = Compared::Nothing;
            }
            for (place, slot) in self.slots.iter_mut().zip(each_slot()) {
                if slot != symbol.slot && place.number.mentions(stale) {
                    let other = Symbol { slot, ..symbol };
                    *place = Value::number(Sum::of(other));
                    pending.push(other);
                }
                place.meaning = place.meaning.filter(|meaning| !meaning.mentions(stale));
            }
            self.set(symbol.slot, Value::number(Sum::of(symbol)));
        }
    }

    // --- facts -------------------------------------------------------------------------------

    pub(super) fn learn(&mut self, fact: Fact) {
        for known in &mut self.facts {
            if let Some(both) = known.join(fact) {
                *known = both;
                return;
            }
        }
        self.facts.push(fact);
    }
    pub(super) fn any(&self, mut holds: impl FnMut(Fact) -> bool) -> bool {
        self.facts.iter().any(|fact| holds(*fact))
    }
    /// The TLB holds the page of this address, and these tags let it in.
    pub(super) fn is_held(&self, wanted: Sum, by: Tags) -> bool {
        self.any(|fact| match fact {
            Fact::Checked { of, tags, held, .. } => of == wanted && tags == by && held,
            _ => false,
        })
    }
    /// The same, whatever the tags.
    pub(super) fn is_held_by_any(&self, wanted: Sum) -> bool {
        [Tags::Read, Tags::Write].into_iter().any(|tags| self.is_held(wanted, tags))
    }
    /// Two addresses lie in one page: what is known of that is said by the second.
    pub(super) fn rebase(&mut self, old: Sum, new: Sum) {
        for place in &mut self.slots {
            match &mut place.meaning {
                Some(Meaning::Distance { from, .. }) if *from == old => *from = new,
                Some(Meaning::Addend { of }) if *of == old => *of = new,
                _ => {}
            }
        }
    }
    pub(super) fn has(&self, fact: Fact) -> bool {
        self.facts.contains(&fact)
    }
    /// What a field of 32 bits holds.
    pub(super) fn held(&self, wanted: usize) -> Option<u32> {
        self.facts.iter().find_map(|fact| match *fact {
            Fact::Holds { field, value } if field == wanted => Some(value),
            _ => None,
        })
    }
    /// The fields from `start` to `end` were written to.
    pub(super) fn forget_fields(&mut self, start: usize, end: usize) {
        let keeps = |field: usize| !(start..end).contains(&field);
        self.facts.retain(|fact| match *fact {
            Fact::NotZero { field } | Fact::Holds { field, .. } => keeps(field),
            _ => true,
        });
        if matches!(self.compared, Compared::Zero { field } if !keeps(field)) {
            self.compared = Compared::Nothing;
        }
    }
    pub(super) fn forget_ac(&mut self) {
        self.facts.retain(|fact| !matches!(fact, Fact::Ac(_)));
    }

    // --- ways --------------------------------------------------------------------------------

    /// The engine filled the TLB in between. What is in registers stays; a distance may be one
    /// from a tag that is gone.
    pub(super) fn after_fill(&mut self) {
        self.compared = Compared::Nothing;
        self.facts = self.facts.iter().filter_map(|fact| fact.after_fill()).collect();
        for place in &mut self.slots {
            place.meaning = place.meaning.filter(|m| !matches!(m, Meaning::Distance { .. }));
        }
    }

    /// Another way comes to the place `at` that this is the state of. True if less is known then.
    pub(super) fn meet(&mut self, other: &Self, at: u32) -> bool {
        let before = self.clone();
        if self.compared != other.compared {
            self.compared = Compared::Nothing;
        }
        self.facts = before
            .facts
            .iter()
            .filter_map(|fact| other.facts.iter().find_map(|theirs| fact.meet(*theirs)))
            .collect();
        for slot in each_slot() {
            let (ours, theirs) = (before.value(slot), other.value(slot));
            if ours.number != theirs.number {
                self.rename(Symbol { at, slot, met: true });
                // They may be good for the same all the same.
                let new = |symbol: Symbol| symbol.at == at && symbol.met;
                let same = ours.meaning.filter(|_| ours.meaning == theirs.meaning);
                let number = self.value(slot).number;
                self.set(slot, Value { number, meaning: same.filter(|m| !m.mentions(new)) });
            } else if ours.meaning != theirs.meaning {
                let number = self.value(slot).number;
                self.set(slot, Value::number(number));
            }
        }
        *self != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(state: &State, slot: u8) -> Sum {
        state.value(slot).number
    }

    #[test]
    fn a_place_passed_again_takes_what_was_known_of_its_symbol() {
        let mut state = State::entry(0);
        state.define(8, 0);
        let old = symbol(&state, 0);
        state.set(3, Value::number(old.plus(4)));
        state.learn(Fact::AtMost { of: old, bound: 9 });
        state.define(8, 0);
        assert_eq!(symbol(&state, 0), old);
        assert_eq!(symbol(&state, 3).behind(old), None);
        assert!(!state.has(Fact::AtMost { of: old, bound: 9 }));
    }

    #[test]
    fn ways_that_differ_in_a_register_meet_in_a_new_symbol() {
        let mut state = State::entry(0);
        let mut other = state.clone();
        let kept = symbol(&state, 1);
        state.set(2, Value::number(kept.plus(1)));
        other.set(2, Value::number(kept.plus(2)));
        assert!(state.meet(&other, 40));
        assert_eq!(symbol(&state, 1), kept);
        assert_eq!(symbol(&state, 2).behind(kept), None);
        assert!(!state.meet(&other, 40));
    }

    #[test]
    fn only_what_both_ways_know_is_known_behind_them() {
        let mut state = State::entry(0);
        let mut other = state.clone();
        let of = symbol(&state, 1);
        let checked = |size, held| Fact::Checked { of, tags: Tags::Read, size, held };
        state.learn(checked(8, true));
        state.learn(Fact::Ac(true));
        other.learn(checked(4, false));
        assert!(state.meet(&other, 40));
        assert!(state.has(checked(4, false)) && !state.has(Fact::Ac(true)));
    }

    #[test]
    fn a_second_meaning_of_a_meeting_place_keeps_no_fact_of_the_first() {
        let mut state = State::entry(40);
        let of = symbol(&state, 1);
        state.learn(Fact::AtMost { of, bound: 9 });
        let mut other = state.clone();
        other.set(1, Value::number(of.plus(1)));
        assert!(state.meet(&other, 40));
        assert_eq!(symbol(&state, 1), of);
        assert!(!state.has(Fact::AtMost { of, bound: 9 }));
    }
}
