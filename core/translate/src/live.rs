//! Which of the arithmetic flags are still going to be read.

use alloc::vec::Vec;

use iced_x86::Decoder;

use crate::guest::{ALL_FLAGS, Analyst, Guest, Kind};

/// How many instructions are looked at behind a jump.
const AHEAD: usize = 8;

/// The page that a block lies in.
pub(crate) struct Page<'a> {
    pub(crate) bytes: &'a [u8],
    /// RIP of the page's first byte.
    pub(crate) rip: u64,
}

impl Page<'_> {
    /// Lets a decoder of the page's bytes go on at `rip`; false if that is not in the page.
    pub(crate) fn go_to(&self, decoder: &mut Decoder<'_>, rip: u64) -> bool {
        let offset = rip.wrapping_sub(self.rip);
        decoder.set_ip(rip);
        offset < self.bytes.len() as u64 && decoder.set_position(offset as usize).is_ok()
    }
}

/// What was found, and which part of the page it was found in.
#[derive(Default)]
pub(crate) struct Liveness {
    /// Live before each instruction, and after the last.
    pub(crate) before: Vec<u32>,
    /// Live at the target of each instruction's branch; all where it has none or is not known.
    pub(crate) at_target: Vec<u32>,
    /// Offsets of the first and behind the last byte that were looked at.
    pub(crate) looked_at: (u64, u64),
}

/// Looks at a run of instructions, and says in `found` what it found.
pub(crate) fn find(found: &mut Liveness, guests: &[Guest], mut ahead: Ahead<'_, '_>) {
    let strict = ahead.strict;
    let next = guests.last().map_or(0, |guest| guest.instruction.next_ip());
    let Liveness { before, at_target, looked_at } = found;
    let ends = guests.last().is_some_and(|guest| ends_block(guest.kind));
    let mut live = if ends { ALL_FLAGS } else { ahead.at(next) };
    at_target.clear();
    at_target.resize(guests.len(), ALL_FLAGS);
    before.clear();
    before.resize(guests.len().saturating_add(1), live);
    // The last place is that behind the run; it has its value already.
    for (n, guest) in guests.iter().enumerate().rev() {
        live = match guest.kind {
            Kind::Branch(target) | Kind::Jump(target) | Kind::Call(target) => {
                let there = match further_on(guests, before, n, target) {
                    Some(known) => known,
                    None if !matters(guests, n) => ALL_FLAGS,
                    None => ahead.at(target),
                };
                if let Some(place) = at_target.get_mut(n) {
                    *place = there;
                }
                match guest.kind {
                    Kind::Branch(_) => live | there | guest.flags_read,
                    _ => there,
                }
            }
            kind if ends_block(kind) => ALL_FLAGS,
            _ => live & !guest.flags_written | guest.flags_read,
        };
        if strict && guest.may_fault {
            live = ALL_FLAGS;
        }
        if let Some(place) = before.get_mut(n) {
            *place = live;
        }
    }
    *looked_at = (ahead.first, ahead.end);
}

/// Whether it makes a difference what is live at the target of number `n`. Not for a branch
/// forward on flags that were all new just before: nobody in front of them asks, and the way to
/// the target gives up no flags.
fn matters(guests: &[Guest], n: usize) -> bool {
    let before = guests.get(..n).unwrap_or_default();
    let Some(guest) = guests.get(n) else { return true };
    match guest.kind {
        Kind::Branch(target) if target > guest.instruction.ip() => {
            let last = before.iter().rev().find(|guest| guest.changes_flags);
            last.is_none_or(|guest| guest.flags_written != ALL_FLAGS)
        }
        _ => true,
    }
}

/// What is live at a target behind number `n` of the run, where that is known already.
fn further_on(guests: &[Guest], live: &[u32], n: usize, target: u64) -> Option<u32> {
    let from = n.wrapping_add(1);
    let (guests, live) = (guests.get(from..)?, live.get(from..)?);
    if target > guests.last()?.instruction.ip() || target < guests.first()?.instruction.ip() {
        return None;
    }
    let place = guests.iter().position(|guest| guest.instruction.ip() == target)?;
    live.get(place).copied()
}

/// Whether the code does not simply go on behind it.
pub(crate) fn ends_block(kind: Kind) -> bool {
    matches!(kind, Kind::System(system) if system.crosses())
        || matches!(
            kind,
            Kind::Jump(_)
                | Kind::Call(_)
                | Kind::Return(_)
                | Kind::JumpIndirect
                | Kind::CallIndirect
                | Kind::Interpreted
        )
}

/// Looks ahead.
pub(crate) struct Ahead<'a, 'b> {
    analyst: &'a mut Analyst,
    /// Of the page's bytes.
    decoder: &'a mut Decoder<'b>,
    page: &'a Page<'b>,
    first: u64,
    end: u64,
    /// Flags are read by whatever handles a fault.
    strict: bool,
}

impl<'a, 'b> Ahead<'a, 'b> {
    pub(crate) fn new(
        analyst: &'a mut Analyst,
        decoder: &'a mut Decoder<'b>,
        page: &'a Page<'b>,
        strict: bool,
    ) -> Self {
        Self { analyst, decoder, page, first: 4096, end: 0, strict }
    }
    /// Flags that are live at `rip`: all that can't be told.
    fn at(&mut self, rip: u64) -> u32 {
        let offset = rip.wrapping_sub(self.page.rip);
        if !self.page.go_to(self.decoder, rip) {
            return ALL_FLAGS;
        }
        let mut guest = Guest::default();
        let mut pending = ALL_FLAGS;
        let mut read = 0;
        for _ in 0..AHEAD {
            if !self.decoder.can_decode() {
                break;
            }
            self.decoder.decode_out(&mut guest.instruction);
            if guest.instruction.is_invalid() {
                break;
            }
            self.analyst.look_at(&mut guest);
            if self.strict && guest.may_fault {
                break;
            }
            match guest.kind {
                Kind::Plain
                | Kind::Nop
                | Kind::Lea
                | Kind::Push
                | Kind::Pop
                | Kind::Leave
                | Kind::String(_) => {}
                _ => {
                    read |= guest.flags_read & pending;
                    break;
                }
            }
            self.first = self.first.min(offset);
            self.end = self.end.max(self.decoder.position() as u64);
            read |= guest.flags_read & pending;
            pending &= !guest.flags_written;
            if pending == 0 {
                return read;
            }
        }
        read | pending
    }
}
