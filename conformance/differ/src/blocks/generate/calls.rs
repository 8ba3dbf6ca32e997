//! Calls, and branches by an address in a register or in memory.

use iced_x86::{Code, Instruction, MemoryOperand, OpKind, Register};

use super::Maker;
use super::program::Label;
use super::shapes::JCC;
use crate::layout::DATA;

/// Addresses of code are kept behind this.
const CELLS: u64 = DATA + 0x1F80;
const CELL_COUNT: u64 = 15;

/// An indirect branch.
#[derive(Clone, Copy, Debug)]
pub(super) enum Transfer {
    Jump,
    Call,
}

impl Transfer {
    pub(super) fn code(self, bits: u32) -> Code {
        match (self, bits) {
            (Self::Jump, 64) => Code::Jmp_rm64,
            (Self::Jump, _) => Code::Jmp_rm32,
            (Self::Call, 64) => Code::Call_rm64,
            (Self::Call, _) => Code::Call_rm32,
        }
    }
}

impl Maker<'_> {
    pub(super) fn call(&mut self) {
        let known = self.rng.below(self.known_subs.len().max(1) as u64) as usize;
        let label = match self.known_subs.get(known).copied() {
            Some(label) if self.rng.chance(40) => label,
            _ => {
                if self.known_subs.len() >= 3 {
                    return self.branch();
                }
                let label = self.program.label();
                self.subs.push(label);
                self.known_subs.push(label);
                label
            }
        };
        match self.rng.below(4) {
            0 => self.through_register(label, Transfer::Call),
            1 => self.through_memory(label, Transfer::Call),
            _ => self.go(Code::Call_rel32_64, label),
        }
    }

    pub(super) fn subprogram(&mut self, label: Label) {
        self.program.place(label);
        // What it calls was begun before it, so calls never go around.
        self.known_subs.retain(|known| *known != label);
        for _ in 0..self.rng.below(5) {
            self.plain();
        }
        if self.rng.chance(30) {
            let label = self.program.label();
            let code = self.rng.pick(&JCC);
            self.go(code, label);
            self.plain();
            self.program.place(label);
        }
        let wide = self.bits == 64;
        let ret = if self.rng.chance(20) {
            let code = if wide { Code::Retnq_imm16 } else { Code::Retnd_imm16 };
            Instruction::with1(code, 8 * self.rng.below(4) as u32)
        } else {
            Ok(Instruction::with(if wide { Code::Retnq } else { Code::Retnd }))
        };
        if let Ok(ret) = ret {
            self.program.push(ret);
        }
    }

    pub(super) fn indirect_jump(&mut self) {
        let label = self.ahead();
        if self.rng.chance(50) {
            self.through_register(label, Transfer::Jump);
        } else {
            self.through_memory(label, Transfer::Jump);
        }
    }

    /// Loads the address of a label.
    fn address_of(&mut self, number: u32, label: Label) {
        self.program.take(label);
        if self.bits == 64 && self.rng.chance(70) {
            let there = MemoryOperand::with_base_displ(Register::RIP, 0);
            if let Ok(lea) = Instruction::with2(Code::Lea_r64_m, Register::RAX + number, there) {
                self.program.push_to(lea, label, 0);
            }
        } else if let Ok(mov) = Instruction::with2(Code::Mov_r32_imm32, Register::EAX + number, 0) {
            self.program.push_to(mov, label, 0);
        }
    }
    fn through_register(&mut self, label: Label, transfer: Transfer) {
        let Some(number) = self.free() else { return };
        self.address_of(number, label);
        if self.rng.chance(40) {
            let before = self.reserved;
            self.reserved |= 1 << number;
            self.plain();
            self.reserved = before;
        }
        let word = self.word(number);
        self.one(transfer.code(self.bits), word);
    }
    fn through_memory(&mut self, label: Label, transfer: Transfer) {
        let size = u64::from(self.bits / 8);
        let used = self.program.cells.len() as u64;
        if used >= CELL_COUNT {
            return;
        }
        let at = CELLS + 8 * used + self.rng.pick(&[0, 0, 0, 8 - size]);
        self.program.cell(at, label);
        let mut instr = Instruction::default();
        instr.set_code(transfer.code(self.bits));
        instr.set_op0_kind(OpKind::Memory);
        self.aim_at(&mut instr, at);
        self.program.push(instr);
    }

    /// A return that belongs to no call.
    pub(super) fn jump_by_stack(&mut self) {
        let Some(number) = self.free() else { return };
        let label = self.ahead();
        self.address_of(number, label);
        let (push, ret) = if self.bits == 64 {
            (Code::Push_r64, Code::Retnq)
        } else {
            (Code::Push_r32, Code::Retnd)
        };
        let word = self.word(number);
        self.one(push, word);
        self.program.push(Instruction::with(ret));
    }

    /// A call that nobody returns from.
    pub(super) fn own_address(&mut self) {
        let Some(number) = self.free() else { return };
        let label = self.program.label();
        self.go(Code::Call_rel32_64, label);
        if self.rng.chance(30) {
            self.plain();
        }
        self.program.place(label);
        let word = self.word(number);
        self.one(if self.bits == 64 { Code::Pop_r64 } else { Code::Pop_r32 }, word);
    }
}
