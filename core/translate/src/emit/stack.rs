//! PUSH, POP, LEAVE and return addresses.
//!
//! # Runs
//! Functions begin with several PUSHes and end with several POPs and a RET. In 64-bit code such a
//! run is checked once, as one access to all of its words: they have to lie in one page. Then
//! each instruction reaches its word by the same addend, which stays in R10. If the check fails,
//! nothing of the run was done, and the interpreter does its first instruction.

use iced_x86::OpKind;

use super::memory::Reach;
use super::names::{host_of, is_homed, number};
use super::{Emitter, NotEncodable};
use crate::asm::{Mem, reg};
use crate::guest::{Guest, Kind};
use crate::layout::at;

const RBP: u8 = 5;
/// Words of a run at most.
const LONGEST_RUN: usize = 16;

/// How an instruction of a run moves the stack pointer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Down,
    Up,
}

/// Whether an instruction can be in a run, and whether it ends it.
fn in_run(guest: &Guest) -> Option<(Way, bool)> {
    let instruction = &guest.instruction;
    let is_word = instruction.stack_pointer_increment().unsigned_abs() == 8;
    match guest.kind {
        Kind::Push if is_word && instruction.op0_kind() != OpKind::Memory => {
            Some((Way::Down, false))
        }
        Kind::Pop if is_word && number(instruction.op0_register()) != reg::RSP => {
            Some((Way::Up, false))
        }
        Kind::Call(_) => Some((Way::Down, true)),
        Kind::Return(_) => Some((Way::Up, true)),
        _ => None,
    }
}

impl Emitter<'_> {
    /// How many instructions from `index` on make a run.
    fn run_from(&self, index: usize) -> usize {
        let guests = self.source.guests.get(index..).unwrap_or_default();
        let mut way = None;
        let mut len = 0usize;
        for guest in guests.iter().take(LONGEST_RUN) {
            let Some((here, ends)) = in_run(guest) else { break };
            if *way.get_or_insert(here) != here {
                break;
            }
            len = len.wrapping_add(1);
            if ends {
                break;
            }
        }
        len
    }
    /// Reaches a word at `disp` from the stack pointer, by a check for all of its run or by the
    /// check that was made for it.
    pub(super) fn in_run(&mut self, disp: i32, size: u32, write: bool) -> Reach {
        let base = reg::R15;
        if let Some(left) = self.run_left.checked_sub(1) {
            self.run_left = left;
            return Reach::Base { base, disp };
        }
        let words = self.run_from(self.index).max(1);
        let bytes = size.wrapping_mul(words as u32);
        let lowest = if disp < 0 { (bytes as i32).wrapping_neg() } else { disp };
        self.run_left = words.wrapping_sub(1);
        self.based(base, lowest, bytes, write);
        Reach::Base { base, disp }
    }

    pub(super) fn push(&mut self, index: usize, guest: &Guest) -> Result<(), NotEncodable> {
        self.give_up_flags(self.live(index));
        let instruction = &guest.instruction;
        let size = instruction.stack_pointer_increment().unsigned_abs();
        let mut value = reg::R11;
        match instruction.op0_kind() {
            OpKind::Memory => {
                let reach = self.operand(guest, 0)?;
                self.asm.load_sized(size, reg::R11, reach.mem());
            }
            OpKind::Register => {
                let pushed = number(instruction.op0_register());
                if is_homed(pushed) {
                    self.asm.load(reg::R11, Mem::state(at::homed(pushed)));
                } else {
                    value = host_of(pushed);
                }
            }
            _ => {
                self.push_constant(size, instruction.immediate(0));
                return Ok(());
            }
        }
        self.push_value(size, value);
        Ok(())
    }
    /// Pushes the low bytes of a register that is neither R9 nor R10.
    fn push_value(&mut self, size: u32, value: u8) {
        let down = (size as i32).wrapping_neg();
        let reach = self.on_stack(reg::R15, down, size, true);
        self.asm.store_sized(size, reach.mem(), value);
        self.set_stack_pointer(reg::R15, down);
    }

    pub(super) fn pop(&mut self, index: usize, guest: &Guest) {
        self.give_up_flags(self.live(index));
        let size = guest.instruction.stack_pointer_increment().unsigned_abs();
        let to = number(guest.instruction.op0_register());
        let host = if is_homed(to) || size == 2 { reg::R11 } else { host_of(to) };
        let reach = self.on_stack(reg::R15, 0, size, false);
        self.asm.load_sized(size, host, reach.mem());
        if to == reg::RSP {
            return; // what was popped, not what comes behind it
        }
        self.set_stack_pointer(reg::R15, size as i32);
        if is_homed(to) {
            self.asm.store_sized(size, Mem::state(at::homed(to)), reg::R11);
        } else if host == reg::R11 {
            self.asm.mov_sized(size, host_of(to), reg::R11);
        }
    }

    pub(super) fn leave_frame(&mut self, index: usize) {
        self.give_up_flags(self.live(index));
        let size = self.source.mode.word();
        let reach = self.on_stack(RBP, 0, size, false);
        self.asm.load_sized(size, reg::R11, reach.mem());
        self.set_stack_pointer(RBP, size as i32);
        self.asm.mov_sized(size, RBP, reg::R11);
    }

    /// The flags have been given up. R11 is kept.
    pub(super) fn push_return_address(&mut self, guest: &Guest) {
        self.push_constant(self.source.mode.word(), guest.instruction.next_ip());
    }
    fn push_constant(&mut self, size: u32, value: u64) {
        let down = (size as i32).wrapping_neg();
        let reach = self.on_stack(reg::R15, down, size, true);
        let low = value as i32;
        if size < 8 || i64::from(low) as u64 == value {
            self.asm.store_imm(size, reach.mem(), low);
        } else {
            self.asm.mov_imm(reg::R9, value); // 64-bit code doesn't reach its stack by R9
            self.asm.store(reach.mem(), reg::R9);
        }
        self.set_stack_pointer(reg::R15, down);
    }
}
