//! REP STOS and REP MOVS within a page, upwards: the host's own instruction, on host addresses.
//!
//! ```text
//!     mov   r9, rdi
//!     (the TLB's check, of one element)   ; r9: offset in the page, r10: index
//!     lea   r11, [r9 + rcx*size]
//!     cmp   rcx, 4096 / size
//!     ja    interpret
//!     cmp   r11, 4096
//!     ja    interpret
//!     mov   r10, [rsp + r10*8 + addends]
//!     add   rdi, r10
//!     rep   stos
//!     sub   rdi, r10
//! ```
//! What is longer, downwards or nothing at all is the interpreter's, which copies in bulk. Nobody
//! can tell where in between an interrupt could have come: it comes behind.

use super::Emitter;
use crate::asm::{Condition, Mem, reg};
use crate::guest::Guest;
use crate::layout::at;
use kasane_spec_x86::flags;

const RCX: u8 = 1;
const RSI: u8 = 6;
const RDI: u8 = 7;
const PAGE: i32 = 4096;

impl Emitter<'_> {
    pub(super) fn repeated(&mut self, index: usize, guest: &Guest, size: u8, copies: bool) {
        self.give_up_flags(self.live(index));
        self.asm.op_mem(false, &[0xF7], 0, Mem::state(at::RFLAGS)); // test dword, imm32
        self.asm.bytes(&(flags::DF as u32).to_le_bytes());
        self.interpret_unless(Condition::Equal, guest);
        self.asm.op_reg(true, &[0x83], 7, RCX); // cmp rcx, imm8
        self.asm.bytes(&[0]);
        self.interpret_unless(Condition::NotEqual, guest);
        self.asm.cmp_imm(RCX, PAGE / i32::from(size));
        self.interpret_unless(Condition::BelowOrEqual, guest);
        if copies {
            self.whole_range(RSI, size, false, guest);
            self.asm.store(Mem::state(at::SCRATCH), reg::R10);
        }
        self.whole_range(RDI, size, true, guest);
        if copies {
            self.asm.op_mem(true, &[0x03], RSI, Mem::state(at::SCRATCH)); // add
        }
        self.asm.op_reg(true, &[0x01], reg::R10, RDI); // add rdi, r10
        self.string_instruction(size, copies);
        self.asm.op_reg(true, &[0x29], reg::R10, RDI); // sub rdi, r10
        if copies {
            self.asm.op_mem(true, &[0x2B], RSI, Mem::state(at::SCRATCH)); // sub
        }
    }
    /// Checks all elements from a register on; the addend of their page is in R10.
    fn whole_range(&mut self, from: u8, size: u8, write: bool, guest: &Guest) {
        self.asm.mov(reg::R9, from);
        self.check(u32::from(size), write);
        let shift = size.trailing_zeros() as u8;
        let end = Mem { base: Some(reg::R9), index: Some((RCX, shift)), disp: 0 };
        self.asm.lea(true, reg::R11, end);
        self.asm.cmp_imm(reg::R11, PAGE);
        self.interpret_unless(Condition::BelowOrEqual, guest);
        self.load_addend();
    }
    fn interpret_unless(&mut self, condition: Condition, guest: &Guest) {
        let leaves = self.asm.jcc_code(condition as u8 ^ 1);
        self.interpret_later(leaves, guest);
    }
    fn string_instruction(&mut self, size: u8, copies: bool) {
        let byte = if copies { 0xA4 } else { 0xAA };
        match size {
            1 => self.asm.bytes(&[0xF3, byte]),
            2 => self.asm.bytes(&[0xF3, 0x66, byte | 1]),
            4 => self.asm.bytes(&[0xF3, byte | 1]),
            _ => self.asm.bytes(&[0xF3, 0x48, byte | 1]),
        }
    }
}
