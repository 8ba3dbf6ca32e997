//! Single instructions of random programs.

use iced_x86::{Code, IcedError, Instruction, MemoryOperand, Register};

use super::Programs;

impl Programs<'_> {
    pub(super) fn instruction(&mut self) -> Result<Instruction, IcedError> {
        match self.below(12) {
            0 => self.registers(),
            1 | 2 => self.load(),
            3 | 4 => self.store(),
            5 => self.single(),
            6 => self.bytes(),
            7 => self.address(),
            8 => self.with_immediate(),
            9 => self.vector(),
            10 => self.condition(),
            _ => self.accumulator(),
        }
    }
    fn registers(&mut self) -> Result<Instruction, IcedError> {
        use Code::*;
        if self.below(3) == 0 {
            let code = self.pick(&[Add_rm16_r16, Sbb_rm16_r16, Mov_rm16_r16, Xchg_rm16_r16]);
            return Instruction::with2(code, self.half(), self.half());
        }
        let code = self.pick(&[
            Add_rm32_r32,
            Sub_rm32_r32,
            Adc_rm32_r32,
            And_rm32_r32,
            Cmp_rm32_r32,
            Test_rm32_r32,
            Mov_rm32_r32,
            Xchg_rm32_r32,
            Movsx_r32_rm16,
        ]);
        if code == Movsx_r32_rm16 {
            return Instruction::with2(code, self.general(), self.half());
        }
        Instruction::with2(code, self.general(), self.general())
    }
    fn load(&mut self) -> Result<Instruction, IcedError> {
        use Code::*;
        let operand = self.source();
        if self.below(3) == 0 {
            let code = self.pick(&[Add_r16_rm16, Mov_r16_rm16, Cmp_r16_rm16, Cmovs_r16_rm16]);
            return Instruction::with2(code, self.half(), operand);
        }
        let code = self.pick(&[
            Add_r32_rm32,
            Sbb_r32_rm32,
            Mov_r32_rm32,
            Cmp_r32_rm32,
            Cmovb_r32_rm32,
            Movsx_r32_rm16,
            Movzx_r32_rm8,
            Popcnt_r32_rm32,
        ]);
        Instruction::with2(code, self.general(), operand)
    }
    fn store(&mut self) -> Result<Instruction, IcedError> {
        use Code::*;
        let operand = self.operand();
        if self.below(3) == 0 {
            let code = self.pick(&[Sub_rm16_r16, Mov_rm16_r16, Xadd_rm16_r16]);
            return Instruction::with2(code, operand, self.half());
        }
        let code = self.pick(&[
            Add_rm32_r32,
            Adc_rm32_r32,
            Mov_rm32_r32,
            Cmp_rm32_r32,
            Xadd_rm32_r32,
            Xchg_rm32_r32,
        ]);
        Instruction::with2(code, operand, self.general())
    }
    /// Also those that 64-bit code has another form of.
    fn single(&mut self) -> Result<Instruction, IcedError> {
        use Code::*;
        match self.below(4) {
            0 => {
                let code = self.pick(&[Inc_r32, Dec_r32, Not_rm32, Neg_rm32, Bswap_r32]);
                Instruction::with1(code, self.general())
            }
            1 => {
                let code = self.pick(&[Inc_r16, Dec_r16, Not_rm16]);
                Instruction::with1(code, self.half())
            }
            2 => {
                let code = self.pick(&[Inc_rm32, Dec_rm16, Neg_rm32, Inc_rm8]);
                Instruction::with1(code, self.operand())
            }
            _ => Ok(Instruction::with(self.pick(&[Cwde, Cdq, Cbw, Cwd, Lahf, Clc, Stc, Cmc]))),
        }
    }
    fn bytes(&mut self) -> Result<Instruction, IcedError> {
        use Code::*;
        match self.below(3) {
            0 => {
                let code = self.pick(&[Add_rm8_r8, Mov_rm8_r8, Adc_rm8_r8, Xchg_rm8_r8]);
                Instruction::with2(code, self.byte(), self.byte())
            }
            1 => {
                let code = self.pick(&[Add_r8_rm8, Mov_r8_rm8, Cmp_r8_rm8, Sbb_r8_rm8]);
                let operand = self.source();
                Instruction::with2(code, self.byte(), operand)
            }
            _ => {
                let code = self.pick(&[Add_rm8_r8, Mov_rm8_r8, Xor_rm8_r8, Xchg_rm8_r8]);
                let operand = self.operand();
                Instruction::with2(code, operand, self.byte())
            }
        }
    }
    fn address(&mut self) -> Result<Instruction, IcedError> {
        let (base, index) = (self.general(), self.general());
        let disp = self.below(0x1000) as i64;
        let operand = match self.below(3) {
            0 => self.operand(),
            1 => MemoryOperand::with_base_index_scale_displ_size(base, index, 4, disp, 4),
            _ => MemoryOperand::with_base_displ_size(Register::ESP, disp, 4),
        };
        match self.below(3) {
            0 => Instruction::with2(Code::Lea_r16_m, self.half(), operand),
            _ => Instruction::with2(Code::Lea_r32_m, self.general(), operand),
        }
    }
    fn with_immediate(&mut self) -> Result<Instruction, IcedError> {
        use Code::*;
        let value = self.random.next() as i32;
        match self.below(5) {
            0 => Instruction::with2(Mov_r32_imm32, self.general(), value),
            1 => Instruction::with2(Add_rm32_imm32, self.operand(), value),
            2 => Instruction::with2(Sub_rm16_imm16, self.half(), value & 0xFFFF),
            3 => Instruction::with2(Mov_rm16_imm16, self.operand(), value & 0xFFFF),
            _ => {
                let code = self.pick(&[Shl_rm32_1, Shr_rm32_1, Sar_rm32_1]);
                Instruction::with2(code, self.general(), 1)
            }
        }
    }
    fn vector(&mut self) -> Result<Instruction, IcedError> {
        let (to, from) = (self.below(8) as u32, self.below(8) as u32);
        let (to, from) = (Register::XMM0 + to, Register::XMM0 + from);
        match self.below(3) {
            0 => Instruction::with2(Code::Paddd_xmm_xmmm128, to, from),
            1 => Instruction::with2(Code::Movdqu_xmm_xmmm128, to, self.operand()),
            _ => Instruction::with2(Code::Movdqu_xmmm128_xmm, self.operand(), from),
        }
    }
    fn condition(&mut self) -> Result<Instruction, IcedError> {
        use Code::*;
        let code = self.pick(&[Setb_rm8, Seto_rm8, Setle_rm8, Sets_rm8, Setp_rm8]);
        match self.below(2) {
            0 => Instruction::with1(code, self.byte()),
            _ => Instruction::with1(code, self.operand()),
        }
    }
    /// Moves between the accumulator and an address.
    fn accumulator(&mut self) -> Result<Instruction, IcedError> {
        let size = self.shape.bits / 8;
        let disp = self.shape.data as i64 + self.below(0x100) as i64;
        let at = MemoryOperand::with_displ(disp as u64, size);
        match self.below(4) {
            0 => Instruction::with2(Code::Mov_EAX_moffs32, Register::EAX, at),
            1 => Instruction::with2(Code::Mov_moffs16_AX, at, Register::AX),
            2 => Instruction::with2(Code::Mov_AL_moffs8, Register::AL, at),
            _ => Instruction::with2(Code::Mov_moffs32_EAX, at, Register::EAX),
        }
    }
}
