//! What is still known of the last access that was checked: its operand's page, by its addend in
//! R10 or the operand's host address in R9.
//!
//! The same operand, or a part of it, is reached again without another check. One with the same
//! base register and another displacement mostly lies in the same page, so only that is looked at:
//! ```text
//!     lea   r11, [r9 + distance of the displacements]
//!     cmp   r11, 4096 - size
//!     ja    other                    ; page
//! back:
//!     OP    [rbase + r10 + disp]
//!     ...
//! other:
//!     lea   r9, [rbase + disp]
//!     call  check                    ; the whole check, a stub; behind it the site of this access
//!     lea   r9, [r9 - distance]
//!     jmp   back
//! ```
//! On both ways R9 is the first operand's address less the page of the last, whose addend is in
//! R10. What is held is let go when R9, R10 or a register of the operand changes, and behind
//! everything that may go somewhere else in between. No poll comes between two instructions of a
//! run, so a mapping that was good for the first is good for all.
//!
//! A read whose operand is soon written to is checked for the write. The engine makes no page
//! dirty for it: as long as the page is clean, the interpreter does the read.

use iced_x86::{Instruction, OpKind, Register};

use super::memory::Reach;
use super::names::number;
use super::{Emitter, Later};
use crate::asm::{Condition, Jump, Mem, reg};
use crate::checks::{is_within, number_of};
use crate::guest::{Access, Guest, Kind};
use crate::sites::{Site, Way};

/// How many instructions a write may come behind the read of its operand.
const SOON: usize = 8;

/// An operand by what it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Operand {
    base: Register,
    index: Register,
    scale: u32,
    segment: Register,
}

/// See above.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    operand: Operand,
    reach: Reach,
    /// What was checked: displacement and size.
    disp: u64,
    size: u32,
    write: bool,
    /// R9 is the address with this displacement less the page; nothing if R9 is the host address.
    anchor: Option<u64>,
}

/// The check of an access that turned out to leave the page, out of line.
#[derive(Clone, Copy)]
pub(super) struct Recheck {
    from: Jump,
    back: usize,
    base: u8,
    disp: i32,
    distance: i32,
    /// Its number among the sizes that stubs check.
    size: usize,
    way: Way,
    rip: u64,
}

impl Operand {
    fn of(instruction: &Instruction) -> Self {
        Self {
            base: instruction.memory_base(),
            index: instruction.memory_index(),
            scale: instruction.memory_index_scale(),
            segment: instruction.memory_segment(),
        }
    }
    fn has(&self, guest_register: u8) -> bool {
        let is = |register: Register| register.is_gpr() && number(register) == guest_register;
        is(self.base) || is(self.index)
    }
}

impl Held {
    /// Whether an access to the same operand needs no check at all.
    fn covers(&self, disp: u64, access: Access) -> bool {
        let behind = disp.wrapping_sub(self.disp);
        let end = behind.checked_add(access.size.into());
        let inside = end.is_some_and(|end| end <= self.size.into());
        // By its host address only the operand itself is reached.
        let reached = self.anchor.is_some() || behind == 0;
        inside && reached && (self.write || !access.write)
    }
}

impl Emitter<'_> {
    /// The way to the operand, if what is held is enough. `kept`: scratch registers that the
    /// instruction needs besides.
    pub(super) fn held_reach(&self, guest: &Guest, kept: usize) -> Option<Reach> {
        let (held, access) = (self.held?, guest.access?);
        let instruction = &guest.instruction;
        let disp = instruction.memory_displacement64();
        if held.operand != Operand::of(instruction) || !held.covers(disp, access) {
            return None;
        }
        let reach = match held.reach {
            Reach::Base { base, .. } => Reach::Base { base, disp: disp as i32 },
            Reach::Host => Reach::Host,
        };
        (reach.free().len() >= kept).then_some(reach)
    }

    /// Checks `[base + disp]` of an instruction, with what is held if that helps.
    pub(super) fn anchored(&mut self, guest: &Guest, access: Access, base: u8) {
        let instruction = &guest.instruction;
        let operand = Operand::of(instruction);
        let disp = instruction.memory_displacement64();
        let held =
            self.held.filter(|held| held.operand == operand && (held.write || !access.write));
        let anchor = held.and_then(|held| held.anchor);
        let size = number_of(access.size);
        if let (Some(held), Some(anchor), Some(size)) = (held, anchor, size) {
            let distance = disp.wrapping_sub(anchor) as i32;
            self.asm.lea(true, reg::R11, Mem::base(reg::R9, distance));
            is_within(&mut self.asm, reg::R11, access.size, 0);
            let from = self.asm.jcc(Condition::Above);
            let back = self.asm.here();
            let way = if held.write { Way::of(access.write, true) } else { Way::Read };
            let (rip, signed) = (self.rip, disp as i32);
            let recheck = Recheck { from, back, base, disp: signed, distance, size, way, rip };
            self.later.push(Later::Recheck(recheck));
            self.held = Some(Held { disp, size: access.size, ..held });
            return;
        }
        let write = access.write || self.writes_soon(&operand, disp);
        let way = Way::of(access.write, write);
        let reach = self.based_by(base, disp as i32, access.size, way);
        let size = access.size;
        self.held = Some(Held { operand, reach, disp, size, write, anchor: Some(disp) });
    }
    /// Emits the whole check of an access that left the page, and the way back.
    pub(super) fn recheck(&mut self, recheck: Recheck) {
        let Recheck { from, back, base, disp, distance, size, way, rip } = recheck;
        self.asm.bind(from);
        self.address_of(base, disp);
        let retry = self.here();
        let class = self.source.mode.class();
        let stub = self.source.stubs.check(class, way.writes(), size);
        self.leave_by(stub, Site::Access { rip, retry, way });
        self.asm.lea(true, reg::R9, Mem::base(reg::R9, distance.wrapping_neg()));
        let jump = self.asm.jmp();
        self.asm.bind_to(jump, back as i64);
    }

    /// What was checked is now held by its host address in R9.
    pub(super) fn hold_host(&mut self, guest: &Guest, access: Access) {
        let operand = Operand::of(&guest.instruction);
        let disp = guest.instruction.memory_displacement64();
        let Access { size, write } = access;
        self.held = Some(Held { operand, reach: Reach::Host, disp, size, write, anchor: None });
    }

    /// Whether the same operand is written to by one of the next instructions, without anything in
    /// between that would need another check.
    fn writes_soon(&self, operand: &Operand, disp: u64) -> bool {
        let behind = self.source.guests.get(self.index..).unwrap_or_default();
        for (n, guest) in behind.iter().take(SOON).enumerate() {
            let is_it = || {
                let same = guest.instruction.memory_displacement64() == disp;
                same && Operand::of(&guest.instruction) == *operand
            };
            match (guest.kind, guest.access) {
                (Kind::Plain, Some(access)) if n > 0 && is_it() && access.write => return true,
                (Kind::Plain, Some(_)) if n > 0 && !is_it() => return false,
                (Kind::Plain | Kind::Nop | Kind::Lea, _) => {}
                _ => return false,
            }
            if changes(guest, operand) {
                return false;
            }
        }
        false
    }

    /// Lets go of what an instruction that was emitted has changed.
    pub(super) fn settle(&mut self, guest: &Guest) {
        let Some(held) = self.held else { return };
        let goes_on = matches!(guest.kind, Kind::Plain | Kind::Nop | Kind::Lea | Kind::Branch(_));
        if !goes_on || changes(guest, &held.operand) {
            self.held = None;
        }
    }
    /// A scratch register has another value now.
    pub(super) fn overwrites(&mut self, scratch: u8) {
        let by_addend = self.held.is_some_and(|held| held.reach != Reach::Host);
        if scratch == reg::R9 || scratch == reg::R10 && by_addend {
            self.held = None;
        }
    }
}

/// Whether an instruction writes to a register of the operand.
fn changes(guest: &Guest, operand: &Operand) -> bool {
    if guest.writes_others {
        return true;
    }
    let instruction = &guest.instruction;
    let mut written = guest.written_operands | u8::from(guest.kind == Kind::Lea);
    while written != 0 {
        let n = written.trailing_zeros();
        written &= written.wrapping_sub(1);
        let register = instruction.op_register(n);
        let general = instruction.op_kind(n) == OpKind::Register && register.is_gpr();
        if general && operand.has(number(register)) {
            return true;
        }
    }
    false
}
