//! Pushes, pops, frames.

use iced_x86::{Code, Instruction, Mnemonic};
use kasane_spec_x86::flags;

use super::shapes::Level;
use super::{Maker, RSP};

impl Maker<'_> {
    pub(super) fn stack_instruction(&mut self) {
        let pool = self.pool;
        let code = pool.stack.pick(&mut self.rng);
        match code.mnemonic() {
            Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => self.flags_to_pop(),
            Mnemonic::Leave | Mnemonic::Enter if !self.rng.chance(5) => return self.push_or_pop(),
            _ => {}
        }
        if let Some(instr) = self.instruction(code) {
            self.program.push(instr);
        }
    }
    fn push_or_pop(&mut self) {
        let Some(number) = self.free() else { return };
        let codes = if self.bits == 64 {
            [Code::Push_r64, Code::Pop_r64]
        } else {
            [Code::Push_r32, Code::Pop_r32]
        };
        let code = self.rng.pick(&codes);
        let word = self.word(number);
        self.one(code, word);
    }
    /// Seldom with TF or AC, which stay.
    fn flags_to_pop(&mut self) {
        let mut value = self.rng.next() & 0xFFFF & !flags::TF & !flags::NT | flags::FIXED;
        for (flag, percent) in [(flags::TF, 3), (flags::NT, 5), (flags::AC, 4), (flags::ID, 10)] {
            if self.rng.chance(percent) {
                value |= flag;
            }
        }
        let code = if self.bits == 64 { Code::Pushq_imm32 } else { Code::Pushd_imm32 };
        if let Ok(instr) = Instruction::with1(code, value as u32) {
            self.program.push(instr);
        }
    }
    pub(super) fn frame(&mut self) {
        const RBP: u32 = 5;
        if self.is_reserved(RBP) {
            return;
        }
        let (push, leave) = if self.bits == 64 {
            (Code::Push_r64, Code::Leaveq)
        } else {
            (Code::Push_r32, Code::Leaved)
        };
        let (frame, stack) = (self.word(RBP), self.word(RSP));
        self.settle();
        self.one(push, frame);
        let copy = if self.bits == 64 { Code::Mov_r64_rm64 } else { Code::Mov_r32_rm32 };
        if let Ok(instr) = Instruction::with2(copy, frame, stack) {
            self.program.push(instr);
        }
        let before = self.reserved;
        self.reserved |= 1 << RBP;
        for _ in 0..self.rng.below(5) {
            self.piece(Level::Inner);
        }
        self.settle();
        self.reserved = before;
        self.program.push(Instruction::with(leave));
    }
}
