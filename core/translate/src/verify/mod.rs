//! # The verifier
//! Checks a block before anybody runs it, from its bytes alone: guest code, translated, can't
//! reach what is not the guest's. The emitter decides what to emit; here nothing is asked about
//! why, and nothing it knows is believed.
//!
//! ## What is proved
//! *However* the guest's registers, flags and memory look, and wherever the block is entered:
//!
//! 1. Every byte belongs to an instruction of a list of harmless ones (`allowed`). Jumps go to the
//!    beginning of such an instruction, never into the middle, never behind the end.
//! 2. RSP is the state block all the time: nothing writes it, reads it or passes it on.
//! 3. Every operand in memory is one of these (`operand`):
//!    - a field of the state block that code may use so (`fields`);
//!    - an entry of a table there, by an index that is less than the table's length;
//!    - guest memory: bytes of a page that the inline TLB of the block's own class lets in, for
//!      writing where they are written, and no byte more than the comparison left room for;
//!    - elements of a string instruction, all of them within such a page.
//! 4. Another block is entered only by a jump table that had the target, or out of a register that
//!    was loaded from there. A table of another class takes the permission that the engine gave
//!    for it, and the word that the engine reads about it (`fields::CROSSINGS`).
//! 5. The engine is told the truth where it believes code: a way out names a site of this block;
//!    what a site of a refused access says of R9 and R10 is so; the bytes that linking changes are
//!    a jump's displacement, aligned, that is bound to the next instruction as long as it is not
//!    linked.
//! 6. Vector instructions stand only where the vector registers are the guest's.
//!
//! What is trusted: iced-x86, the stubs, the engine (what it enters into tables, where it enters
//! code: entries, and the retry that the site says, with R9 and R10 as [`ways`] has it and all other
//! registers as they were), and that the TLB's pages are guest memory. What is *not* proved: that
//! the block does what the guest's code does (comparisons with the interpreter are for that), and
//! anything about speculation.
//!
//! ## How
//! A linear sweep decodes every byte again. Then abstract interpretation forwards over the control
//! flow: [`state::State`] is what is known at an instruction. It is a small lattice: for each
//! register, and the scratch word, a [`state::Value`], which is a number (a symbol and a constant)
//! and maybe what that number is good for; for the flags what was compared; and a set of
//! [`state::Fact`]s, which a conditional jump adds to one of its two ways. Where ways meet, what
//! both know is left; entries know nothing. It goes on until nothing changes. Blocks have no loops
//! but those through a retry, so most instructions are looked at once.
//!
//! The inline TLB's check, with what is known behind each instruction. V is whatever address; on the
//! right the [`state::Meaning`] of the register, or what else is new:
//! ```text
//!     lea   r9, [rbx + 8]                   ; r9 = rbx + 8            call it V
//!     rorx  r10d, r9d, 7                    ; r10 = page of V, ..     Rotated
//!     and   r10d, [rsp + TLB_MASK]          ; r10 = entry of V        TlbIndex
//!     sub   r9, [rsp + r10 + tags]          ; r9 = V - tag            Distance
//!     cmp   r9, 4096 - size                 ; Compared::With
//!     ja    slow                            ; next: `size` bytes from V on are fine: Checked
//!     mov   r10, [rsp + r10 + addends]      ; r10 = host - guest      Addend
//!     mov   rax, [rbx + r10 + 8]            ; rbx + r10 + 8 = host address of V; 8 <= size
//! ```
//! An invalid tag has another index than its place, so a small distance means that the tag is V's
//! page. What is checked is bound to V, not to a register. So the operand may be reached by any
//! sum that comes to V, or lies within `size` bytes behind it, as long as the symbol in it means
//! the same number; `rbx` written in between is another symbol.
//!
//! ## What a violation means
//! A bug in the emitter, or a rule that is missing here. The block is not used, the interpreter
//! does its instructions, and it is counted; a build with debug assertions panics with the code.
//!
//! ## How to extend it
//! | the emitter learns to | add |
//! |---|---|
//! | copy an instruction | its name to `allowed::GENERAL`, its feature to `VECTOR_FEATURES` |
//! | use a field of the state block | a line in `fields::FIELDS` |
//! | use another table there | a variant of `fields::Table`, a line in `fields::table` |
//! | go on in another class | a line in `fields::CROSSINGS` |
//! | compute an address, an index or a hash otherwise | a rule in `rules::RULES`; a `Meaning` if no variant has it |
//! | compare otherwise | a case in `rules::compared` and in `ways::decided` |
//! | leave by another kind of site that comes back | a case in `ways::leave` |
//!
//! A new `Meaning` or `Fact` has to say in `mentions` which symbols it depends on, and a `Fact` in
//! `after_fill` whether it outlives a visit of the engine. A rule must hold for all values, not
//! for those that the emitter happens to have there. Nothing is ever let through by its place.

mod allowed;
mod fields;
mod operand;
mod rules;
mod state;
#[cfg(test)]
mod tests;
mod ways;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, InstructionInfoFactory, OpKind};

use crate::asm::reg;
use crate::cache::Key;
use crate::emit::Translated;
use crate::mode::Mode;
use crate::sites::{CALL, Origin, Site, unpack};
use crate::slots::Numbers;
use crate::stubs::Stubs;
use operand::Place;
use rules::Step;
use state::State;

/// Which of the guest's vector registers are in the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vectors {
    None,
    /// XMM, MXCSR.
    Sse,
    /// YMM, too.
    Avx,
}

/// A block that is to be verified.
pub(crate) struct Block<'a> {
    pub(crate) code: &'a [u8],
    /// Its offset in the arena.
    pub(crate) at: u32,
    /// Offset in the code of the second entry; the first is 0.
    pub(crate) host_entry: u32,
    /// RIP of its first instruction.
    pub(crate) rip: u64,
    pub(crate) stubs: Stubs,
    pub(crate) slots: &'a Numbers,
    pub(crate) mode: Mode,
}

impl<'a> Block<'a> {
    /// A block as it was just made for `at`.
    pub(crate) fn of(
        translated: &'a Translated,
        at: u32,
        key: Key,
        stubs: Stubs,
        slots: &'a Numbers,
    ) -> Self {
        let Translated { code, host_entry, .. } = translated;
        Self { code, at, host_entry: *host_entry, rip: key.rip, stubs, slots, mode: key.mode }
    }
    /// Offsets in the arena.
    fn range(&self) -> Range<u32> {
        self.at..self.at.saturating_add(self.code.len() as u32)
    }
    fn origin(&self) -> Origin {
        Origin { entry: self.at, rip: self.rip }
    }
    /// Whether an instruction is a way out, or may be one: a site stands behind it.
    fn is_way_out(&self, instruction: &Instruction) -> bool {
        let exits = [self.stubs.exit, self.stubs.exit_host_flags].map(u64::from);
        let target = instruction.near_branch64();
        let leaves = exits.contains(&target) || self.stubs.checks_by(target).is_some();
        instruction.code() == Code::Call_rel32_64 && leaves
    }
    /// Privilege class of its accesses.
    fn class(&self) -> usize {
        self.mode.class()
    }
    fn vectors(&self) -> Vectors {
        match (self.mode.runs_vectors(false), self.mode.runs_vectors(true)) {
            (_, true) => Vectors::Avx,
            (true, false) => Vectors::Sse,
            (false, false) => Vectors::None,
        }
    }
}

/// What is wrong with an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    NoInstruction,
    Instruction,
    Prefix,
    Register,
    Vectors,
    Operand,
    StateBlock,
    Told,
    Table,
    BitOffset,
    Unchecked,
    Target,
    Inside,
    End,
    Site,
    Retry,
    Link,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoInstruction => "no instruction",
            Self::Instruction => "an instruction that may not stand in a block",
            Self::Prefix => "a prefix that may not stand there",
            Self::Register => "a register that may not be used so",
            Self::Vectors => "vector registers that are not the guest's",
            Self::Operand => "an operand in memory that can't be judged",
            Self::StateBlock => "a part of the state block that code may not use so",
            Self::Told => "a word for the engine that is not proved",
            Self::Table => "a table entry whose index or use is not proved",
            Self::BitOffset => "a bit offset that may reach beyond its operand",
            Self::Unchecked => "a guest address that is not proved to be checked",
            Self::Target => "a jump to where no block is proved to begin",
            Self::Inside => "a jump into the middle of an instruction",
            Self::End => "code that goes on behind the block's end",
            Self::Site => "a way out without a site of this block",
            Self::Retry => "a refused access that can't be retried",
            Self::Link => "a jump that can't be linked",
        })
    }
}

/// Where and why a block is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Offset in the code.
    pub(crate) offset: u32,
    pub(crate) code: Code,
    pub(crate) why: Why,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?} at offset {:#x} of the block)", self.why, self.code, self.offset)
    }
}

/// A block and the violation in it, for a message.
pub(crate) struct Dump<'a>(pub(crate) &'a Block<'a>, pub(crate) &'a Violation);

impl fmt::Display for Dump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(block, violation) = self;
        writeln!(f, "{violation}; {:?}", block.mode)?;
        for Decoded { instruction, site } in sweep(block) {
            let at = (instruction.ip() as u32).wrapping_sub(block.at) as usize;
            let mark = if at == violation.offset as usize { "->" } else { "  " };
            write!(f, "{mark} {at:#06x} {:?}:", instruction.code())?;
            let end = at.saturating_add(instruction.len());
            for byte in block.code.get(at..end).unwrap_or_default() {
                write!(f, " {byte:02x}")?;
            }
            writeln!(f)?;
            if let Some(site) = site {
                writeln!(f, "          {site:x?}")?;
            }
        }
        Ok(())
    }
}

/// Verifies blocks.
pub(crate) struct Verifier {
    factory: InstructionInfoFactory,
}

impl Verifier {
    pub(crate) fn new() -> Self {
        Self { factory: InstructionInfoFactory::new() }
    }

    /// The first violation that is found in a block.
    pub(crate) fn verify(&mut self, block: &Block<'_>) -> Result<(), Violation> {
        let (instructions, sites) = decode(block)?;
        let factory = &mut self.factory;
        let mut proof = Proof { block, instructions, sites, factory, places: BTreeMap::new() };
        proof.find_places()?;
        proof.follow()
    }
}

fn violation(block: &Block<'_>, instruction: &Instruction, why: Why) -> Violation {
    let offset = (instruction.ip() as u32).wrapping_sub(block.at);
    Violation { offset, code: instruction.code(), why }
}

/// An instruction at its offset in the arena, with the site behind it.
struct Decoded {
    instruction: Instruction,
    site: Option<Site<u64>>,
}

/// Every byte, as instructions and sites. Behind a way out without a site it goes on with the next
/// byte.
fn sweep(block: &Block<'_>) -> impl Iterator<Item = Decoded> {
    let mut decoder = Decoder::with_ip(64, block.code, u64::from(block.at), DecoderOptions::NONE);
    core::iter::from_fn(move || {
        if !decoder.can_decode() {
            return None;
        }
        let instruction = decoder.decode();
        let mut site = None;
        if block.is_way_out(&instruction) {
            let begin = decoder.position();
            let bytes = block.code.get(begin..).unwrap_or_default();
            if let Some((found, len)) = unpack(bytes, block.origin(), |op| op) {
                site = Some(found);
                let end = begin.saturating_add(len);
                decoder.set_position(end).ok()?;
                decoder.set_ip(u64::from(block.at).wrapping_add(end as u64));
            }
        }
        Some(Decoded { instruction, site })
    })
}

/// All instructions of a block, and its sites by the offset in the arena.
type Contents = (Vec<Instruction>, BTreeMap<u32, Site<u64>>);

fn decode(block: &Block<'_>) -> Result<Contents, Violation> {
    let mut instructions = Vec::new();
    let mut sites = BTreeMap::new();
    for Decoded { instruction, site } in sweep(block) {
        let begin = (instruction.ip() as u32).wrapping_sub(block.at) as usize;
        let bytes = block.code.get(begin..begin.saturating_add(instruction.len()));
        allowed::judge(&instruction, bytes.unwrap_or_default(), block.vectors())
            .map_err(|why| violation(block, &instruction, why))?;
        if let Some(site) = site {
            sites.insert(instruction.next_ip() as u32, site);
        } else if block.is_way_out(&instruction) {
            return Err(violation(block, &instruction, Why::Site));
        }
        instructions.push(instruction);
    }
    Ok((instructions, sites))
}

/// A proof in the making.
struct Proof<'a> {
    block: &'a Block<'a>,
    instructions: Vec<Instruction>,
    sites: BTreeMap<u32, Site<u64>>,
    factory: &'a mut InstructionInfoFactory,
    /// Where ways may meet, by the offset in the arena, with what is known there; nothing as long
    /// as no way was found that leads there.
    places: BTreeMap<u32, Option<State>>,
}

impl Proof<'_> {
    fn index(&self, at: u32) -> Option<usize> {
        self.instructions.binary_search_by_key(&u64::from(at), Instruction::ip).ok()
    }

    /// Finds the places where anything but the instruction before leads to, and judges the sites.
    fn find_places(&mut self) -> Result<(), Violation> {
        let block = self.block;
        let error = |offset: u32, why| Violation { offset, code: Code::INVALID, why };
        for offset in [0, block.host_entry] {
            self.enter(block.at.wrapping_add(offset)).map_err(|why| error(offset, why))?;
        }
        let sites: Vec<(u32, Site<u64>)> =
            self.sites.iter().map(|(at, site)| (*at, *site)).collect();
        for (at, site) in sites {
            let (at, found) = match site {
                Site::Access { retry, .. } => (retry, self.meeting(retry)),
                // The engine may have done anything in between.
                Site::Indirect { retry, .. } => (retry, self.enter(retry)),
                Site::Link { patch, .. } => (patch, self.judge_link(patch, at)),
                Site::Refused { .. } | Site::Interpret { .. } | Site::Go { .. } | Site::Arrived => {
                    continue;
                }
            };
            found.map_err(|why| error(at.wrapping_sub(block.at), why))?;
        }
        for n in 0..self.instructions.len() {
            let Some(instruction) = self.instructions.get(n).copied() else { break };
            if instruction.op0_kind() == OpKind::NearBranch64
                && let Ok(target) = ways::inside(block, &instruction)
            {
                self.meeting(target).map_err(|why| violation(block, &instruction, why))?;
            }
        }
        Ok(())
    }
    /// Ways may meet there.
    fn meeting(&mut self, at: u32) -> Result<(), Why> {
        self.index(at).ok_or(Why::Inside)?;
        self.places.entry(at).or_default();
        Ok(())
    }
    /// Anybody may come there from outside.
    fn enter(&mut self, at: u32) -> Result<(), Why> {
        self.meeting(at)?;
        self.places.insert(at, Some(State::entry(at)));
        Ok(())
    }
    /// The four bytes at `patch` will be changed, and changed back, while somebody may run: they
    /// are the displacement of a jump to the way out by the site at `site`.
    fn judge_link(&self, patch: u32, site: u32) -> Result<(), Why> {
        let ends_there = |jump: &&Instruction| jump.next_ip() == u64::from(patch).wrapping_add(4);
        let jump = self.instructions.iter().find(ends_there).ok_or(Why::Link)?;
        let jumps = jump.code() == Code::Jmp_rel32_64 || jump.is_jcc_near();
        let way_out = u64::from(site).checked_sub(CALL).ok_or(Why::Link)?;
        let within_a_word = patch & 7 <= 4;
        if jumps && jump.near_branch64() == way_out && within_a_word {
            Ok(())
        } else {
            Err(Why::Link)
        }
    }

    /// From all entries, as long as anything new is found.
    fn follow(&mut self) -> Result<(), Violation> {
        let known = |(at, state): (&u32, &Option<State>)| state.as_ref().map(|_| *at);
        let mut pending: BTreeSet<u32> = self.places.iter().filter_map(known).collect();
        while let Some(at) = pending.pop_first() {
            self.follow_from(at, &mut pending)?;
        }
        Ok(())
    }
    /// From a place on until ways meet, or none goes on.
    fn follow_from(&mut self, at: u32, pending: &mut BTreeSet<u32>) -> Result<(), Violation> {
        let Some(mut state) = self.places.get(&at).cloned().flatten() else { return Ok(()) };
        let Some(mut index) = self.index(at) else { return Ok(()) };
        loop {
            let Some(instruction) = self.instructions.get(index).copied() else {
                let offset = self.block.code.len() as u32;
                return Err(Violation { offset, code: Code::INVALID, why: Why::End });
            };
            let here = instruction.ip() as u32;
            if here != at && self.places.contains_key(&here) {
                self.arrive(here, state, pending);
                return Ok(());
            }
            let ways = self
                .step(state, &instruction)
                .map_err(|why| violation(self.block, &instruction, why))?;
            for (target, state) in ways.jumps {
                self.arrive(target, state, pending);
            }
            let Some(next) = ways.next else { return Ok(()) };
            state = next;
            index = index.wrapping_add(1);
        }
    }
    fn arrive(&mut self, at: u32, state: State, pending: &mut BTreeSet<u32>) {
        let Some(place) = self.places.get_mut(&at) else { return };
        let news = match place {
            Some(known) => known.meet(&state, at),
            None => {
                *place = Some(state);
                true
            }
        };
        if news {
            pending.insert(at);
        }
    }

    /// One instruction: what it reaches, what it changes, where it goes.
    fn step(&mut self, mut state: State, instruction: &Instruction) -> Result<ways::Ways, Why> {
        let at = instruction.ip() as u32;
        let class = self.block.class();
        if instruction.code() == Code::Call_rel32_64 {
            // What it pushes goes below the state block, where there is room.
            return ways::called(self.block, &self.sites, state, instruction);
        }
        let info = self.factory.info(instruction);
        let place = match allowed::string(instruction) {
            Some(used) => operand::string(&state, used).map(|()| Place::Guest)?,
            None => operand::reached(&state, instruction, info.used_memory(), class)?,
        };
        let step = Step { state: &state, instruction, place };
        let result = step.result();
        let compared = rules::compared(&step);
        let stored = rules::stored(&step);
        if matches!(place, Place::Element(..)) && !rules::takes_entry(&step, result) {
            return Err(Why::Table);
        }
        if let Place::Field { offset, size, writes: true } = place {
            let told = instruction.immediate32();
            if fields::is_believed(offset) && !ways::may_tell(&state, class, offset, told) {
                return Err(Why::Told);
            }
            rules::write_field(&mut state, instruction, (offset, size), stored, at);
        }
        for used in info.used_registers() {
            let register = used.register();
            if operand::writes(used.access()) && register.is_gpr() {
                let slot = operand::slot(register);
                if slot == reg::RSP {
                    return Err(Why::Register);
                }
                let own = slot == operand::slot(instruction.op0_register());
                state.assign(at, slot, result.filter(|_| own).unwrap_or_default());
            }
        }
        if instruction.rflags_modified() != 0 {
            state.compared = compared;
        }
        ways::ways(self.block, state, instruction, place)
    }
}
