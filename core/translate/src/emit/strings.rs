//! String instructions upwards: single steps, and REP STOS and REP MOVS within a page. Those that go
//! down are the interpreter's.
//!
//! The repeated ones are the host's own instruction on host addresses:
//! ```text
//!     cmp   rcx, 4096 / size
//!     ja    interpret
//!     mov   r9, rdi
//!     (the TLB's check, of one element)   ; r9: offset in the page, r10: index
//!     lea   r11, [r9 + rcx*size]
//!     cmp   r11, 4096
//!     ja    interpret
//!     mov   r10, [rsp + r10 + addend]
//!     add   rdi, r10
//!     rep   stos
//!     sub   rdi, r10
//! ```
//! What is longer, or nothing at all, is the interpreter's, which copies in bulk. Nobody can tell
//! where in between an interrupt could have come: it comes behind.

use iced_x86::Register;
use kasane_interp::op::segment;

use super::flags::Flags;
use super::memory::Reach;
use super::{Emitter, NotEncodable, Way};
use crate::asm::{Condition, Mem, reg};
use crate::checks::Reached;
use crate::guest::{Guest, StringAction, StringStep};
use crate::layout::at;
use kasane_spec_x86::flags;

const RCX: u8 = 1;
const RSI: u8 = 6;
const RDI: u8 = 7;
const PAGE: i32 = 4096;
// Opcodes of MOV and CMP with a register and an operand in memory.
const STORE: u8 = 0x89;
const LOAD: u8 = 0x8B;
const COMPARE: u8 = 0x3B;

impl Emitter<'_> {
    pub(super) fn string(&mut self, index: usize, guest: &Guest, step: StringStep) {
        self.give_up_flags(self.live(index));
        self.interpret_downwards(guest);
        let source = guest.instruction.memory_segment();
        let StringStep { action, size, .. } = step;
        match action {
            StringAction::Load => {
                let from = self.element(RSI, source, step, false);
                self.asm.any_size(size, LOAD, reg::RAX, from.mem());
            }
            StringAction::Store => {
                let to = self.element(RDI, Register::ES, step, true);
                self.asm.any_size(size, STORE, reg::RAX, to.mem());
            }
            StringAction::Scan => {
                let with = self.element(RDI, Register::ES, step, false);
                self.asm.any_size(size, COMPARE, reg::RAX, with.mem());
            }
            StringAction::Move | StringAction::Compare => {
                let is_move = action == StringAction::Move;
                let from = self.element(RSI, source, step, false);
                self.asm.any_size(size, LOAD, reg::R11, from.mem());
                let with = self.element(RDI, Register::ES, step, is_move);
                let opcode = if is_move { STORE } else { COMPARE };
                self.asm.any_size(size, opcode, reg::R11, with.mem());
            }
        }
        if matches!(action, StringAction::Load | StringAction::Move | StringAction::Compare) {
            self.advance(RSI, step);
        }
        if action != StringAction::Load {
            self.advance(RDI, step);
        }
        if matches!(action, StringAction::Scan | StringAction::Compare) {
            self.flags = Flags { host: true, saved: false };
        }
    }
    /// Checks the element at RSI or RDI. The flags have been given up.
    fn element(&mut self, at: u8, by: Register, step: StringStep, write: bool) -> Reach {
        if step.width == 8 && self.source.mode.is_flat(segment(by)) {
            return self.based(at, 0, step.size, write);
        }
        self.asm.zero_extend(step.width, reg::R9, at);
        self.reach_host(by, step.size, write)
    }
    /// Leaves the flags alone.
    fn advance(&mut self, register: u8, step: StringStep) {
        self.asm.lea_sized(step.width, register, Mem::base(register, step.size as i32));
    }

    /// REP STOS or REP MOVS, in 64-bit or flat 32-bit code.
    pub(super) fn repeated(
        &mut self,
        index: usize,
        guest: &Guest,
        step: StringStep,
    ) -> Result<(), NotEncodable> {
        let StringStep { action, size, width } = step;
        let copies = action == StringAction::Move;
        let source = segment(guest.instruction.memory_segment());
        let mode = self.source.mode;
        if !mode.is_flat(segment(Register::ES)) || copies && !mode.is_flat(source) {
            return Err(NotEncodable);
        }
        self.give_up_flags(self.live(index));
        self.interpret_downwards(guest);
        let wide = width == 8;
        self.asm.op_reg(wide, &[0x83], 7, RCX); // cmp rcx, imm8
        self.asm.bytes(&[0]);
        self.interpret_unless(Condition::NotEqual, guest);
        self.asm.op_reg(wide, &[0x81], 7, RCX); // cmp rcx, imm32
        self.asm.bytes(&(PAGE / size as i32).to_le_bytes());
        self.interpret_unless(Condition::BelowOrEqual, guest);
        if copies {
            self.whole_range(RSI, step, false, guest);
            self.asm.store(Mem::state(at::SCRATCH), reg::R10);
        }
        self.whole_range(RDI, step, true, guest);
        self.cut_off(step);
        if copies {
            self.asm.op_mem(true, &[0x03], RSI, Mem::state(at::SCRATCH)); // add
        }
        self.asm.op_reg(true, &[0x01], reg::R10, RDI); // add rdi, r10
        self.string_instruction(size, copies);
        self.asm.op_reg(true, &[0x29], reg::R10, RDI); // sub rdi, r10
        if copies {
            self.asm.op_mem(true, &[0x2B], RSI, Mem::state(at::SCRATCH)); // sub
        }
        self.cut_off(step);
        Ok(())
    }
    /// Checks all elements from a register on; the addend of their page is in R10.
    fn whole_range(&mut self, from: u8, step: StringStep, write: bool, guest: &Guest) {
        self.asm.zero_extend(step.width, reg::R9, from);
        self.check(step.size, Way::of(write, write), Reached::Otherwise);
        self.asm.zero_extend(step.width, reg::R11, RCX);
        let shift = step.size.trailing_zeros() as u8;
        let end = Mem::new(Some(reg::R9), Some((reg::R11, shift)), 0);
        self.asm.lea(true, reg::R11, end);
        self.asm.cmp_imm(reg::R11, PAGE);
        self.interpret_unless(Condition::BelowOrEqual, guest);
        self.load_addend();
    }
    /// Outside 64-bit code: the upper halves of the registers are no part of address and count.
    fn cut_off(&mut self, step: StringStep) {
        if step.width == 8 {
            return;
        }
        let copies = step.action == StringAction::Move;
        let registers: &[u8] = if copies { &[RCX, RDI, RSI] } else { &[RCX, RDI] };
        registers.iter().for_each(|register| self.asm.zero_extend(4, *register, *register));
    }
    fn interpret_downwards(&mut self, guest: &Guest) {
        self.asm.op_mem(false, &[0xF7], 0, Mem::state(at::RFLAGS)); // test dword, imm32
        self.asm.bytes(&(flags::DF as u32).to_le_bytes());
        self.interpret_unless(Condition::Equal, guest);
    }
    fn interpret_unless(&mut self, condition: Condition, guest: &Guest) {
        let leaves = self.asm.jcc_code(condition as u8 ^ 1);
        self.interpret_later(leaves, guest);
    }
    fn string_instruction(&mut self, size: u32, copies: bool) {
        let byte = if copies { 0xA4 } else { 0xAA };
        match size {
            1 => self.asm.bytes(&[0xF3, byte]),
            2 => self.asm.bytes(&[0xF3, 0x66, byte | 1]),
            4 => self.asm.bytes(&[0xF3, byte | 1]),
            _ => self.asm.bytes(&[0xF3, 0x48, byte | 1]),
        }
    }
}
