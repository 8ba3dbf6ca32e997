//! Random programs of 32-bit and 16-bit code.

mod single;

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
    /// Offsets at which some segment may end.
    pub(crate) edges: [u64; 2],
}

/// Makes programs of instructions whose flags are all defined but AF.
pub(crate) struct Programs<'a> {
    random: &'a mut Random,
    shape: Shape,
    code: Vec<u8>,
    /// Sizes of what is on the stack.
    pushed: Vec<u32>,
    /// What is made now runs late, so that programs that end with it have run for a while.
    in_last_rounds: bool,
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
        Self { random, shape, code: Vec::new(), pushed: Vec::new(), in_last_rounds: false }
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
        if self.in_last_rounds && self.below(2) == 0 {
            return self.edge();
        }
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
    /// Where a segment may end, or not be accessible at all.
    fn edge(&mut self) -> MemoryOperand {
        let segment = self.pick(&[
            Register::DS,
            Register::ES,
            Register::FS,
            Register::DS,
            Register::ES,
            Register::FS,
            Register::CS,
            Register::GS,
        ]);
        let edges = self.shape.edges;
        let edge = self.pick(&edges);
        let at = edge.wrapping_add(self.below(12)).wrapping_sub(8) & 0x3F_FFFF;
        let size = self.shape.bits / 8;
        let at = if size == 2 { at & 0xFFFF } else { at };
        let none = Register::None;
        MemoryOperand::new(none, none, 1, at as i64, size, false, segment)
    }
    /// A read may also be one of the stack.
    fn source(&mut self) -> MemoryOperand {
        if self.shape.bits == 32 && self.below(8) == 0 {
            let disp = self.below(0x80) as i64;
            return MemoryOperand::with_base_displ(Register::ESP, disp);
        }
        self.operand()
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

    /// An instruction that may well fault, in one of the last rounds.
    fn late(&mut self) {
        let round = self.below(6) as u32;
        let counter = self.counter();
        self.emit(Instruction::with2(Code::Cmp_rm16_imm8, counter, round));
        self.in_last_rounds = true;
        let bytes = encode(self.shape.bits, &self.instruction().unwrap());
        self.in_last_rounds = false;
        self.code.extend([0x75, bytes.len() as u8]); // jne
        self.code.extend(bytes);
    }
    fn counter(&self) -> MemoryOperand {
        let none = Register::None;
        let at = self.shape.counter as i64;
        MemoryOperand::new(none, none, 1, at, self.shape.bits / 8, false, Register::SS)
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
                5 => self.late(),
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
        let counter = self.counter();
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
