//! What compilers seldom make: strings, code that changes itself, exceptions on purpose.

use iced_x86::{Code, FlowControl, Instruction, MemoryOperand, Register};

use super::calls::Transfer;
use super::{Maker, OPEN_DATA};
use crate::layout::{DATA, DATA_END, OPEN_CODE, READ_ONLY};

impl Maker<'_> {
    pub(super) fn string(&mut self) {
        const RCX: u32 = 1;
        const RSI: u32 = 6;
        const RDI: u32 = 7;
        if [RCX, RSI, RDI].iter().any(|number| self.is_reserved(*number)) {
            return self.branch();
        }
        let pool = self.pool;
        let code = pool.string.pick(&mut self.rng);
        let Some(instr) = self.instruction(code) else { return };
        let source = self.string_operand();
        // Overlapping ones are copied element by element, too.
        let target = if self.rng.chance(30) {
            source.wrapping_add(self.rng.below(24)).wrapping_sub(12)
        } else {
            self.string_operand()
        };
        let segment = match instr.segment_prefix() {
            Register::None => Register::DS,
            segment => segment,
        };
        let operands = [(Register::ESI, source, segment), (Register::EDI, target, Register::ES)];
        for (register, at, segment) in operands {
            let base = if self.bits == 32 { self.segment_base(segment) } else { 0 };
            self.push2(Code::Mov_r32_imm32, register, at.wrapping_sub(base) as u32);
        }
        // Not as far as the block itself.
        let most = if self.mood.open { 40 } else { 1100 };
        let count = self.rng.pick(&[0, 1, 2, 3, 5, 8, 17, 40, 150, 1100]).min(most);
        self.push2(Code::Mov_r32_imm32, Register::ECX, count);
        if self.rng.chance(20) {
            let code = self.rng.pick(&[Code::Std, Code::Cld]);
            self.program.push(Instruction::with(code));
        }
        self.program.push(instr);
    }

    /// Where a string begins: also where it soon comes to an end of what may be accessed.
    fn string_operand(&mut self) -> u64 {
        if self.rng.chance(self.mood.bad * 4) {
            let edge = self.rng.pick(&[DATA, READ_ONLY, DATA_END]);
            return edge + self.rng.below(200) - 100;
        }
        if self.mood.open && self.rng.chance(20) {
            return OPEN_CODE + self.rng.below(OPEN_DATA / 2);
        }
        DATA + 0x400 + self.rng.below(0x1400)
    }

    /// A store into the immediate of an instruction that comes later, or has been.
    pub(super) fn change_code(&mut self) {
        let Some(number) = self.free().filter(|number| *number < 8) else { return };
        let target = self.program.label();
        let value = self.rng.next() as u32;
        let mov = Instruction::with2(Code::Mov_r32_imm32, Register::EAX + number, value);
        let at = MemoryOperand::new(
            if self.bits == 64 { Register::RIP } else { Register::None },
            Register::None,
            1,
            0,
            self.bits / 8,
            false,
            Register::None,
        );
        let byte = self.rng.below(4);
        let store = match self.rng.below(3) {
            0 => Instruction::with2(Code::Mov_rm8_imm8, at, self.rng.next() as u32 & 0xFF),
            1 => Instruction::with2(Code::Mov_rm32_imm32, at, self.rng.next() as u32),
            _ => Instruction::with2(Code::Add_rm8_r8, at, Register::CL),
        };
        let (Ok(mov), Ok(store)) = (mov, store) else { return };
        let byte = if store.code() == Code::Mov_rm32_imm32 { 0 } else { byte };
        let behind = self.rng.chance(30);
        if behind {
            self.program.place(target);
            self.program.push(mov);
        }
        self.program.push_to(store, target, 1 + byte);
        for _ in 0..self.rng.below(4) {
            self.plain();
        }
        if !behind {
            self.program.place(target);
            self.program.push(mov);
        }
    }

    pub(super) fn refused(&mut self) {
        let pool = self.pool;
        let code = pool.refused.pick(&mut self.rng);
        let flow = code.flow_control();
        if let Some(instr) = self.instruction(code)
            && matches!(flow, FlowControl::Next | FlowControl::Exception)
        {
            self.program.push(instr);
        }
    }

    /// A jump to where no code is.
    pub(super) fn jump_nowhere(&mut self) {
        let Some(number) = self.free() else { return };
        let to = self.rng.pick(&[DATA as u32 + 0x10, 0x1234, 0x7FFF_FFF0, 0x1000_7FFE]);
        self.push2(Code::Mov_r32_imm32, Register::EAX + number, to);
        if self.bits == 64 && self.rng.chance(40) {
            let shift = self.rng.below(33) as u32;
            self.push2(Code::Shl_rm64_imm8, Register::RAX + number, shift);
        }
        let word = self.word(number);
        let transfer = if self.rng.chance(50) { Transfer::Call } else { Transfer::Jump };
        self.one(transfer.code(self.bits), word);
    }
}
