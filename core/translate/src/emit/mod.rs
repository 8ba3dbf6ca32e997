//! From a run of guest instructions to host code.
//!
//! | module | what |
//! |---|---|
//! | `flags` | where the guest's flags are, saving and restoring them |
//! | `memory` | the inline TLB's check, and how a checked operand is reached |
//! | `flow` | jumps, calls, returns, polls, the ways out |
//! | `held` | what is still known of the last check |
//! | `plain` | the guest's own instruction with its operands renamed |
//! | `own` | the same made of its own bytes, where only the memory operand changes |
//! | `stack` | pushes, pops, frames, return addresses |
//! | `registers` | selectors, bases, control registers, the TSC |
//! | `strings` | string instructions |
//! | `system` | sensitive instructions that are done in place |
//! | `names` | which host register stands for which guest register |

mod flags;
mod flow;
mod held;
mod memory;
mod names;
mod own;
mod plain;
mod registers;
mod stack;
mod strings;
mod system;

use alloc::vec::Vec;

use iced_x86::{Encoder, Instruction};

use crate::asm::{Asm, Jump};
use crate::cache::Key;
use crate::checks::Checks;
use crate::guest::{ALL_FLAGS, Guest, Kind, System};
use crate::mode::Mode;
use crate::sites::{Site, Way};
use crate::slots::{Numbers, Target};
use crate::stubs::Stubs;
use flags::{Flags, Moves};
use flow::condition;
use held::{Held, Recheck};
use names::Unusual;

/// An instruction that may raise a host exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FaultPoint {
    /// Offset in the arena.
    pub(crate) code: u32,
    pub(crate) rip: u64,
    /// The guest's flags are the host's, not the saved ones.
    pub(crate) host_flags: bool,
}

/// What a block is made from.
pub(crate) struct Source<'a> {
    pub(crate) guests: &'a [Guest],
    /// The guest's code, from the first instruction on.
    pub(crate) bytes: &'a [u8],
    /// Flags that are live before each instruction, and after the last.
    pub(crate) live: &'a [u32],
    /// Flags that are live at the targets of branches, by instruction.
    pub(crate) live_at_target: &'a [u32],
    pub(crate) mode: Mode,
    /// Linear address less RIP, within a page.
    pub(crate) skew: u64,
    /// Offset in the arena at which it will stand.
    pub(crate) at: u32,
    pub(crate) stubs: Stubs,
}

/// A translated block.
#[derive(Default)]
pub(crate) struct Translated {
    pub(crate) code: Vec<u8>,
    /// Offset of the entry for the host's flags; that for saved flags is 0.
    pub(crate) host_entry: u32,
    /// Where the addresses of instructions that the interpreter does are to stand in the code, and
    /// their numbers.
    pub(crate) ops: Vec<(usize, u32)>,
    /// Bytes of the code that are sites.
    pub(crate) site_bytes: usize,
    pub(crate) fault_points: Vec<FaultPoint>,
    /// Instructions that the interpreter does.
    pub(crate) left: Vec<Instruction>,
    /// Guest instructions that were translated.
    pub(crate) instructions: usize,
    /// Their length.
    pub(crate) guest_bytes: u64,
}

impl Translated {
    fn clear(&mut self) {
        self.code.clear();
        self.ops.clear();
        self.fault_points.clear();
        self.left.clear();
    }
}

/// An instruction that can't be encoded with its registers renamed: the block ends before it.
struct NotEncodable;

/// Code out of line, to be emitted behind the block.
enum Later {
    Leave {
        from: Jump,
        site: Site<u32>,
        flags: Flags,
    },
    /// With this in R10.
    LeaveIndexed {
        from: Jump,
        index: u32,
        site: Site<u32>,
        flags: Flags,
    },
    Branch {
        from: Jump,
        index: usize,
        target: u64,
        flags: Flags,
    },
    Recheck(Recheck),
}

pub(crate) struct Translator {
    encoder: Encoder,
    checks: Checks,
    moves: Moves,
    /// See [`Unusual::table`].
    registers: [u8; 256],
    /// Empty, with room.
    later: Vec<Later>,
    spare: Option<Translated>,
}

impl Translator {
    pub(crate) fn new() -> Self {
        Self {
            encoder: Encoder::new(64),
            checks: Checks::new(),
            moves: Moves::new(),
            registers: Unusual::table(),
            later: Vec::new(),
            spare: None,
        }
    }

    /// Takes a block that is no longer needed: the next is made in its room.
    pub(crate) fn reuse(&mut self, translated: Translated) {
        self.spare = Some(translated);
    }
    pub(crate) fn translate(&mut self, source: &Source<'_>, slots: &mut Numbers) -> Translated {
        let mut room = self.spare.take().unwrap_or_default();
        room.clear();
        let mut emitter = Emitter {
            asm: Asm { code: room.code },
            source,
            encoder: &mut self.encoder,
            checks: &self.checks,
            moves: &self.moves,
            registers: &self.registers,
            slots,
            ops: room.ops,
            site_bytes: 0,
            fault_points: room.fault_points,
            left: room.left,
            later: core::mem::take(&mut self.later),
            flags: Flags { host: true, saved: false },
            rip: 0,
            index: 0,
            run_left: 0,
            held: None,
            in_shadow: false,
        };
        let live_in = source.live.first().copied().unwrap_or(ALL_FLAGS);
        if live_in != 0 {
            emitter.restore();
        }
        let host_entry = emitter.asm.here() as u32;
        let mut done = 0;
        let mut open = true;
        for (index, guest) in source.guests.iter().enumerate() {
            emitter.rip = guest.instruction.ip();
            emitter.index = index;
            let before_that = index.checked_sub(1).and_then(|n| source.guests.get(n));
            emitter.in_shadow =
                before_that.is_some_and(|guest| guest.kind == Kind::System(System::Sti));
            let before = emitter.mark();
            match emitter.instruction(index, guest) {
                Ok(goes_on) => {
                    emitter.settle(guest);
                    done = index.saturating_add(1);
                    open = goes_on;
                }
                Err(NotEncodable) => {
                    emitter.back_to(before);
                    break;
                }
            }
            if !open {
                break;
            }
        }
        if open {
            emitter.end(done);
        }
        emitter.later();
        let Emitter { asm, ops, site_bytes, fault_points, left, mut later, .. } = emitter;
        later.clear();
        self.later = later;
        let instructions = done;
        let guest_bytes =
            source.guests.iter().take(done).map(|guest| guest.instruction.len() as u64).sum();
        let code = asm.code;
        Translated {
            code,
            host_entry,
            ops,
            site_bytes,
            fault_points,
            left,
            instructions,
            guest_bytes,
        }
    }
}

/// A block that jumps to its own address by a slot, if there is one left.
pub(crate) fn signpost(key: Key, slots: &mut Numbers) -> Option<Translated> {
    let number = slots.of(Target { rip: key.rip, mode: key.mode, saved: false })?;
    let mut asm = Asm::default();
    flow::jump_by_slot(&mut asm, number);
    Some(Translated { code: asm.code, ..Translated::default() })
}

struct Emitter<'a> {
    asm: Asm,
    source: &'a Source<'a>,
    encoder: &'a mut Encoder,
    checks: &'a Checks,
    moves: &'a Moves,
    registers: &'a [u8; 256],
    slots: &'a mut Numbers,
    ops: Vec<(usize, u32)>,
    site_bytes: usize,
    fault_points: Vec<FaultPoint>,
    left: Vec<Instruction>,
    later: Vec<Later>,
    flags: Flags,
    /// Of the instruction at hand.
    rip: u64,
    /// Number of the instruction at hand.
    index: usize,
    /// Words of a run on the stack that are checked already.
    run_left: usize,
    held: Option<Held>,
    /// No interrupt may come before the instruction at hand.
    in_shadow: bool,
}

/// A place to go back to.
struct Mark {
    code: usize,
    later: usize,
    faults: usize,
    left: usize,
    flags: Flags,
}

impl Emitter<'_> {
    fn mark(&self) -> Mark {
        Mark {
            code: self.asm.here(),
            later: self.later.len(),
            faults: self.fault_points.len(),
            left: self.left.len(),
            flags: self.flags,
        }
    }
    fn back_to(&mut self, mark: Mark) {
        self.asm.code.truncate(mark.code);
        self.later.truncate(mark.later);
        self.fault_points.truncate(mark.faults);
        self.left.truncate(mark.left);
        self.flags = mark.flags;
    }
    /// The arena offset of the next instruction.
    #[inline]
    fn here(&self) -> u32 {
        self.source.at.wrapping_add(self.asm.here() as u32)
    }
    #[inline]
    fn live(&self, index: usize) -> u32 {
        self.source.live.get(index).copied().unwrap_or(ALL_FLAGS)
    }

    /// True if the code goes on behind it.
    fn instruction(&mut self, index: usize, guest: &Guest) -> Result<bool, NotEncodable> {
        match guest.kind {
            Kind::Plain => self.plain(index, guest)?,
            Kind::Nop => {}
            Kind::Lea => self.lea(guest)?,
            Kind::Push => self.push(index, guest)?,
            Kind::Pop => self.pop(index, guest),
            Kind::Leave => self.leave_frame(index),
            Kind::String(step) => self.string(index, guest, step),
            Kind::System(system) => return self.system(index, guest, system),
            Kind::Repeated(step) => self.repeated(index, guest, step)?,
            Kind::BitString => self.bit_string(index, guest)?,
            Kind::Branch(target) => {
                self.need_host_flags();
                let code = condition(guest.instruction.condition_code())?;
                if target <= self.rip {
                    // A loop: where it goes on, nothing is taken but the jump back.
                    let over = self.asm.jcc_code(code ^ 1);
                    let flags = self.flags;
                    self.go(target, self.live_at_target(index));
                    self.asm.bind(over);
                    self.flags = flags;
                } else {
                    self.align_displacement(2);
                    let from = self.asm.jcc_code(code);
                    self.later.push(Later::Branch { from, index, target, flags: self.flags });
                }
            }
            Kind::Jump(target) => {
                if target == guest.instruction.next_ip() {
                    return Ok(true);
                }
                let live = self.live_at_target(index);
                self.go(target, live);
                return Ok(false);
            }
            Kind::Call(target) => {
                self.call(index, guest, target);
                return Ok(false);
            }
            Kind::Return(more) => {
                self.ret(guest, more);
                return Ok(false);
            }
            Kind::JumpIndirect => {
                self.jump_indirect(guest)?;
                return Ok(false);
            }
            Kind::CallIndirect => {
                self.call_indirect(guest)?;
                return Ok(false);
            }
            Kind::Interpreted => return Err(NotEncodable),
        }
        Ok(true)
    }

    fn live_at_target(&self, index: usize) -> u32 {
        self.source.live_at_target.get(index).copied().unwrap_or(ALL_FLAGS)
    }
}
