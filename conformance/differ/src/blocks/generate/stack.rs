//! Pushes, pops, frames.

use iced_x86::{Code, Instruction, Mnemonic};
use kasane_spec_x86::flags;

use super::shapes::Level;
use super::{Maker, RSP};

impl Maker<'_> {
    /// Pushes or pops in a row, as functions have them at both ends.
    pub(super) fn stack_run(&mut self) {
        let word = if self.bits == 64 { 8 } else { 4 };
        let count = 2 + self.rng.below(6);
        match self.rng.below(5) {
            0 | 1 => (0..count).for_each(|_| self.push_any()),
            2 | 3 => (0..count).for_each(|_| self.pop_any()),
            _ => {
                let code = if self.bits == 64 { Code::Add_rm64_imm8 } else { Code::Add_rm32_imm8 };
                let by = word * self.rng.below(8) as i32;
                let by = if self.rng.chance(50) { -by } else { by };
                if let Ok(instr) = Instruction::with2(code, self.word(RSP), by) {
                    self.program.push(instr);
                }
            }
        }
    }
    fn push_any(&mut self) {
        let number = self.rng.below(u64::from(self.registers())) as u32;
        let word = self.word(number);
        self.one(if self.bits == 64 { Code::Push_r64 } else { Code::Push_r32 }, word);
    }
    fn pop_any(&mut self) {
        let Some(number) = self.free() else { return };
        let word = self.word(number);
        self.one(if self.bits == 64 { Code::Pop_r64 } else { Code::Pop_r32 }, word);
    }

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
