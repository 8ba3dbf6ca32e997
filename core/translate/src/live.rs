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
    /// Code size: 64, 32 or 16.
    pub(crate) bits: u32,
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

/// Looks at a run of instructions, and says in `found` what it found. `strict`: flags are read by whatever handles a fault.
pub(crate) fn find(
    found: &mut Liveness,
    analyst: &mut Analyst,
    guests: &[Guest],
    page: &Page<'_>,
    options: u32,
    strict: bool,
) {
    let mut ahead = Ahead { analyst, page, options, first: 4096, end: 0, strict };
    let next = guests.last().map_or(0, |guest| guest.instruction.next_ip());
    let Liveness { before, at_target, looked_at } = found;
    at_target.clear();
    at_target.extend(guests.iter().map(|guest| match guest.kind {
        Kind::Branch(target) | Kind::Jump(target) | Kind::Call(target) => ahead.at(target),
        _ => ALL_FLAGS,
    }));
    let ends = guests.last().is_some_and(|guest| ends_block(guest.kind));
    let mut live = if ends { ALL_FLAGS } else { ahead.at(next) };
    before.clear();
    before.resize(guests.len().saturating_add(1), live);
    // The last place is that behind the run; it has its value already.
    for ((guest, target), place) in guests.iter().zip(at_target.iter()).zip(before.iter_mut()).rev()
    {
        live = match guest.kind {
            Kind::Branch(_) => live | target | guest.flags_read,
            Kind::Jump(_) | Kind::Call(_) => *target,
            kind if ends_block(kind) => ALL_FLAGS,
            _ => live & !guest.flags_written | guest.flags_read,
        };
        if strict && guest.may_fault {
            live = ALL_FLAGS;
        }
        *place = live;
    }
    *looked_at = (ahead.first, ahead.end);
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

struct Ahead<'a> {
    analyst: &'a mut Analyst,
    page: &'a Page<'a>,
    options: u32,
    first: u64,
    end: u64,
    strict: bool,
}

impl Ahead<'_> {
    /// Flags that are live at `rip`: all that can't be told.
    fn at(&mut self, rip: u64) -> u32 {
        let offset = rip.wrapping_sub(self.page.rip);
        let Some(bytes) = self.page.bytes.get(offset as usize..).filter(|_| offset < 4096) else {
            return ALL_FLAGS;
        };
        let mut decoder = Decoder::with_ip(self.page.bits, bytes, rip, self.options);
        let mut pending = ALL_FLAGS;
        let mut read = 0;
        for _ in 0..AHEAD {
            if !decoder.can_decode() {
                break;
            }
            let instruction = decoder.decode();
            if instruction.is_invalid() {
                break;
            }
            let guest = self.analyst.look_at(&instruction);
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
            self.end = self.end.max(offset.wrapping_add(decoder.position() as u64));
            read |= guest.flags_read & pending;
            pending &= !guest.flags_written;
            if pending == 0 {
                return read;
            }
        }
        read | pending
    }
}
