//! Random programs of 32-bit and 16-bit code.

use iced_x86::{Code, Encoder, IcedError, Instruction, MemoryOperand, Register, RepPrefixKind};
use kasane_spec_x86::flags;

use super::bare::Random;

/// Registers that programs change. EBX points to the data, EDI is an index.
const GENERAL: [Register; 5] =
    [Register::EAX, Register::ECX, Register::EDX, Register::ESI, Register::EBP];
const BYTES: [Register; 6] =
    [Register::AL, Register::CL, Register::DL, Register::AH, Register::CH, Register::DH];

/// Makes a string instruction, for an address size, a segment and a prefix.
type Step = fn(u32, Register, RepPrefixKind) -> Result<Instruction, IcedError>;

/// What programs are made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Code size: 32 or 16.
    pub(crate) bits: u32,
    /// Offset in CS at which they stand.
    pub(crate) at: u64,
    /// What EBX is.
    pub(crate) data: u64,
    /// Offset in SS of a word that counts the rounds down.
    pub(crate) counter: u64,
    /// Segments that reach the data by EBX as DS does.
    pub(crate) segments: &'static [Register],
}

/// Makes programs of instructions whose flags are all defined but AF.
pub(crate) struct Programs<'a> {
    random: &'a mut Random,
    shape: Shape,
    code: Vec<u8>,
    /// Sizes of what is on the stack.
    pushed: Vec<u32>,
}

fn encode(bits: u32, instruction: &Instruction) -> Vec<u8> {
    let mut encoder = Encoder::new(bits);
    encoder.encode(instruction, 0).unwrap_or_else(|error| panic!("{error}: {instruction:?}"));
    encoder.take_buffer()
}

/// The register's lower half.
fn low(register: Register) -> Register {
    Register::AX + register.number() as u32
}

impl<'a> Programs<'a> {
    pub(crate) fn new(random: &'a mut Random, shape: Shape) -> Self {
        Self { random, shape, code: Vec::new(), pushed: Vec::new() }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random.below(n)
    }
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        self.random.pick(from)
    }
    fn general(&mut self) -> Register {
        self.pick(&GENERAL)
    }
    fn half(&mut self) -> Register {
        low(self.general())
    }
    fn byte(&mut self) -> Register {
        self.pick(&BYTES)
    }
    fn emit(&mut self, instruction: Result<Instruction, IcedError>) {
        self.code.extend(encode(self.shape.bits, &instruction.unwrap()));
    }
    /// The offset in CS of the next instruction.
    fn here(&self) -> u64 {
        self.shape.at + self.code.len() as u64
    }

    /// Near the data, on both sides of a page's end.
    fn operand(&mut self) -> MemoryOperand {
        let segment = match self.below(4) {
            0 => self.pick(self.shape.segments),
            _ => Register::None,
        };
        let disp = self.below(0x200) as i64 - 0x100;
        let absolute = self.shape.data as i64 + disp;
        let short = self.shape.bits == 16;
        let short = if self.below(6) == 0 { !short } else { short };
        let (base, index, scale, disp) = match (self.below(4), short) {
            (0, false) => (Register::EBX, Register::EDI, self.pick(&[1, 2, 4]), disp),
            (0, true) => (Register::BX, Register::DI, 1, disp),
            (1, false) => (Register::EDI, Register::None, 1, absolute),
            (1, true) => (Register::DI, Register::None, 1, absolute & 0xFFFF),
            (2, false) => (Register::None, Register::None, 1, absolute),
            (2, true) => (Register::None, Register::None, 1, absolute & 0xFFFF),
            (_, false) => (Register::EBX, Register::None, 1, disp),
            (_, true) => (Register::BX, Register::None, 1, disp),
        };
        let size = if short { 2 } else { 4 };
        MemoryOperand::new(base, index, scale, disp, size, false, segment)
    }
    /// A read may also be one of the stack.
    fn source(&mut self) -> MemoryOperand {
        if self.shape.bits == 32 && self.below(8) == 0 {
            let disp = self.below(0x80) as i64;
            return MemoryOperand::with_base_displ(Register::ESP, disp);
        }
        self.operand()
    }

    fn instruction(&mut self) -> Result<Instruction, IcedError> {
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

    fn push(&mut self) {
        use Code::*;
        let small = self.below(4) == 0;
        let value = self.random.next() as i32;
        let instruction = match (self.below(4), small) {
            (0, true) => Instruction::with1(Push_imm16, value & 0xFFFF),
            (0, false) => Instruction::with1(Pushd_imm32, value),
            (1, true) => Instruction::with1(Push_rm16, self.source()),
            (1, false) => Instruction::with1(Push_rm32, self.source()),
            (2, false) => Instruction::with1(Push_r32, Register::ESP),
            (_, true) => Instruction::with1(Push_r16, self.half()),
            (_, false) => Instruction::with1(Push_r32, self.general()),
        };
        self.pushed.push(if small { 2 } else { 4 });
        self.emit(instruction);
    }
    fn pop(&mut self) {
        let Some(size) = self.pushed.pop() else { return };
        let register = self.general();
        self.emit(match size {
            2 => Instruction::with1(Code::Pop_r16, low(register)),
            _ => Instruction::with1(Code::Pop_r32, register),
        });
    }
    /// A step of a string instruction, between elements near the data.
    fn string(&mut self) {
        use Code::*;
        let steps: [Step; 8] = [
            |bits, segment, rep| Instruction::with_lodsb(bits, segment, rep),
            |bits, segment, rep| Instruction::with_lodsd(bits, segment, rep),
            |bits, _, rep| Instruction::with_stosw(bits, rep),
            |bits, _, rep| Instruction::with_stosb(bits, rep),
            |bits, segment, rep| Instruction::with_movsd(bits, segment, rep),
            |bits, segment, rep| Instruction::with_movsb(bits, segment, rep),
            |bits, _, rep| Instruction::with_scasb(bits, rep),
            |bits, segment, rep| Instruction::with_cmpsw(bits, segment, rep),
        ];
        let step = self.pick(&steps);
        let segment = self.pick(&[Register::None, Register::DS, Register::FS]);
        let bits = if self.below(4) == 0 { 48 - self.shape.bits } else { self.shape.bits };
        self.emit(Instruction::with1(Push_r32, Register::EDI));
        for register in [Register::ESI, Register::EDI] {
            let disp = self.below(0x200) as i64 - 0x100;
            let near = MemoryOperand::with_base_displ(Register::EBX, disp);
            self.emit(Instruction::with2(Lea_r32_m, register, near));
        }
        let rep = self.pick(&[RepPrefixKind::None, RepPrefixKind::None, RepPrefixKind::Repe]);
        if rep != RepPrefixKind::None {
            let count = self.below(80) as u32;
            self.emit(Instruction::with2(Mov_r32_imm32, Register::ECX, count));
        }
        let down = self.below(6) == 0;
        if down {
            self.emit(Ok(Instruction::with(Std)));
        }
        self.emit(step(bits, segment, rep));
        if down {
            self.emit(Ok(Instruction::with(Cld)));
        }
        self.emit(Instruction::with1(Pop_r32, Register::EDI));
    }
    /// A frame with something in it, and its end.
    fn frame(&mut self) {
        use Code::*;
        let short = self.shape.bits == 16;
        self.emit(match short {
            true => Instruction::with1(Push_r16, Register::BP),
            false => Instruction::with1(Push_r32, Register::EBP),
        });
        self.emit(Instruction::with2(Mov_r32_rm32, Register::EBP, Register::ESP));
        self.emit(Instruction::with1(Push_r32, Register::EAX));
        let inner = self.instruction();
        if !inner.as_ref().is_ok_and(writes_frame) {
            self.emit(inner);
        }
        self.emit(Ok(Instruction::with(if short { Leavew } else { Leaved })));
    }
    /// A call of a function that stands here, by one of several ways, and its return.
    fn call(&mut self) {
        let inner = self.instruction();
        let body = encode(self.shape.bits, &inner.unwrap());
        let dropped = self.below(2) as u8 * 4;
        if dropped != 0 {
            self.emit(Instruction::with1(Code::Push_r32, Register::EDX));
        }
        let back: &[u8] = if dropped == 0 { &[0xC3] } else { &[0xC2, dropped, 0] };
        let over = [0xEB, (body.len() + back.len()) as u8];
        match self.below(2) {
            0 => {
                self.code.push(0xE8);
                let word = self.shape.bits as usize / 8;
                self.code.extend(&2u32.to_le_bytes()[..word]);
            }
            _ => {
                // MOV and CALL by ECX are as long as they are, whatever the target.
                let target = |at: u64| match self.shape.bits {
                    32 => Instruction::with2(Code::Mov_r32_imm32, Register::ECX, at as u32),
                    _ => Instruction::with2(Code::Mov_r16_imm16, Register::CX, at as u32),
                };
                let length = encode(self.shape.bits, &target(0).unwrap()).len() as u64;
                let function = self.here() + length + 2 + 2;
                let target = target(function);
                self.emit(target);
                self.code.extend([0xFF, 0xD1]);
            }
        }
        self.code.extend(over);
        self.code.extend(body);
        self.code.extend(back);
    }

    /// The body in a loop, with branches over single instructions.
    pub(crate) fn program(mut self) -> Vec<u8> {
        for _ in 0..=self.below(38) {
            match self.below(12) {
                0 => self.push(),
                1 => self.pop(),
                2 => self.call(),
                3 => self.frame(),
                4 => self.string(),
                _ => {
                    let bytes = encode(self.shape.bits, &self.instruction().unwrap());
                    if self.below(6) == 0 {
                        let over = [0x70 | self.below(16) as u8, bytes.len() as u8];
                        self.code.extend(over); // Jcc over it
                    }
                    self.code.extend(bytes);
                }
            }
        }
        while !self.pushed.is_empty() {
            self.pop();
        }
        self.ending();
        self.code
    }
    fn ending(&mut self) {
        use Code::*;
        let at = MemoryOperand::with_base_displ(Register::EBX, 0x100);
        self.emit(Ok(Instruction::with(Pushfd)));
        self.emit(Instruction::with1(Pop_r32, Register::EAX));
        let all_but_af = !(flags::AF as i32);
        self.emit(Instruction::with2(And_EAX_imm32, Register::EAX, all_but_af));
        self.emit(Instruction::with2(Mov_rm32_r32, at, Register::EAX));
        self.emit(Instruction::with1(Inc_r32, Register::EDI));
        let counter = MemoryOperand::new(
            Register::None,
            Register::None,
            1,
            self.shape.counter as i64,
            self.shape.bits / 8,
            false,
            Register::SS,
        );
        self.emit(Instruction::with1(Dec_rm16, counter));
        let word = self.shape.bits as usize / 8;
        let back = -(self.code.len() as i32 + 2 + word as i32);
        self.code.extend([0x0F, 0x85]); // jnz
        self.code.extend(&back.to_le_bytes()[..word]);
        self.code.push(0xF4); // hlt
    }
}

/// Whether an instruction changes EBP, which LEAVE needs.
fn writes_frame(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|n| instruction.op_register(n).full_register() == Register::RBP)
}
