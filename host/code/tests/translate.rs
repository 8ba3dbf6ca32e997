//! Random programs under the translator and under the interpreter: the same registers, flags and
//! memory at the end.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(missing_docs, clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

#[path = "support/bare.rs"]
mod bare;
#[path = "support/quiet.rs"]
mod quiet;

use iced_x86::{Code, Encoder, IcedError, Instruction, MemoryOperand, Register, RepPrefixKind};
use kasane_cpu::CpuState;
use kasane_spec_x86::control::{cr0, cr4, efer};
use kasane_spec_x86::{flags, paging};

use bare::{Engine, Random, Setup, run};
use quiet::flat;

const CODE: u64 = 0x10_0000;
/// In the middle of the data, so that operands lie on both sides of a page's end.
const DATA: u64 = 0x20_1000;
const STACK: u64 = 0x30_0000;
/// How often the program's body runs: it is translated on the way.
const ROUNDS: u64 = 12;
const COUNTER: i64 = 0x800;
const RESERVED: [Register; 2] = [Register::RBX, Register::RSP];

fn start(random: &mut Random) -> CpuState {
    let mut state = CpuState::reset(true);
    state.cr0 = cr0::PE | cr0::PG | cr0::WP | cr0::ET | cr0::NE;
    state.cr3 = 0x1000;
    state.cr4 = cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE;
    state.efer = efer::LME | efer::LMA;
    state.xcr0 = 7;
    state.cs = flat(0xA09B);
    for segment in [&mut state.ss, &mut state.ds, &mut state.es] {
        *segment = flat(0xC093);
    }
    state.gpr.fill_with(|| random.next());
    state.gpr[3] = DATA;
    state.gpr[4] = STACK;
    for register in &mut state.vector.ymm {
        register.fill_with(|| random.next());
    }
    state.rip = CODE;
    state.rflags = 2;
    state
}

/// Page tables for the first 4 MiB, by pages of 2 MiB.
fn tables() -> [(u64, [u8; 8]); 4] {
    let table = paging::P | paging::RW;
    let page = table | paging::PS;
    [(0x1000, 0x2000 | table), (0x2000, 0x3000 | table), (0x3000, page), (0x3008, 0x20_0000 | page)]
        .map(|(at, entry)| (at, entry.to_le_bytes()))
}

/// Makes a string instruction, for an address size, a segment and a prefix.
type Step = fn(u32, Register, RepPrefixKind) -> Result<Instruction, IcedError>;

/// Makes programs of instructions whose flags are all defined but AF.
struct Programs<'a>(&'a mut Random);

impl Programs<'_> {
    fn below(&mut self, n: u64) -> u64 {
        self.0.below(n)
    }
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        self.0.pick(from)
    }
    /// A general register that programs may change.
    fn general(&mut self) -> Register {
        loop {
            let register = Register::RAX + self.below(16) as u32;
            if !RESERVED.contains(&register) {
                return register;
            }
        }
    }
    fn narrow(&mut self) -> Register {
        Register::EAX + self.general().number() as u32
    }
    fn byte(&mut self) -> Register {
        match self.general().number() as u32 {
            n @ 0..=3 => Register::AL + n,
            n @ 4..=7 => Register::SPL + n - 4,
            n => Register::R8L + n - 8,
        }
    }
    /// Near RBX, on both sides of a page's end.
    fn operand(&mut self) -> MemoryOperand {
        let disp = self.below(0x200) as i64 - 0x100;
        MemoryOperand::with_base_displ(Register::RBX, disp)
    }
    fn vector(&mut self) -> Register {
        Register::XMM0 + self.below(16) as u32
    }

    fn instruction(&mut self) -> Instruction {
        use Code::*;
        let made = match self.below(16) {
            0 | 1 => {
                let code = self.pick(&[
                    Add_rm64_r64,
                    Sub_rm64_r64,
                    Adc_rm64_r64,
                    Sbb_rm64_r64,
                    And_rm64_r64,
                    Or_rm64_r64,
                    Xor_rm64_r64,
                    Cmp_rm64_r64,
                    Test_rm64_r64,
                    Mov_rm64_r64,
                ]);
                Instruction::with2(code, self.general(), self.general())
            }
            2 => {
                let code = self.pick(&[Add_rm32_r32, Sub_rm32_r32, Mov_rm32_r32, Xor_rm32_r32]);
                Instruction::with2(code, self.narrow(), self.narrow())
            }
            3 => {
                let code = self.pick(&[Add_rm8_r8, Sub_rm8_r8, Mov_rm8_r8, Adc_rm8_r8]);
                Instruction::with2(code, self.byte(), self.byte())
            }
            4 | 5 => {
                let code = self.pick(&[
                    Add_r64_rm64,
                    Sbb_r64_rm64,
                    Mov_r64_rm64,
                    Cmp_r64_rm64,
                    Cmovb_r64_rm64,
                    Cmovne_r64_rm64,
                    Movsx_r64_rm16,
                    Movzx_r64_rm8,
                    Popcnt_r64_rm64,
                ]);
                let operand = self.operand();
                Instruction::with2(code, self.general(), operand)
            }
            6 | 7 => {
                let code = self.pick(&[
                    Add_rm64_r64,
                    Adc_rm64_r64,
                    Mov_rm64_r64,
                    Cmp_rm64_r64,
                    Xadd_rm64_r64,
                    Xchg_rm64_r64,
                    Xor_rm64_r64,
                ]);
                let operand = self.operand();
                Instruction::with2(code, operand, self.general())
            }
            other => self.rarer(other),
        };
        made.unwrap()
    }

    fn rarer(&mut self, kind: u64) -> Result<Instruction, IcedError> {
        use Code::*;
        match kind {
            8 => {
                let code = self.pick(&[Inc_rm64, Dec_rm64, Neg_rm64, Not_rm64]);
                if self.below(2) == 0 {
                    Instruction::with1(code, self.general())
                } else {
                    Instruction::with1(code, self.operand())
                }
            }
            9 => {
                let code = self.pick(&[Shl_rm64_1, Shr_rm64_1, Sar_rm64_1]);
                Instruction::with2(code, self.general(), 1)
            }
            10 => {
                let code = self.pick(&[Setb_rm8, Seto_rm8, Setle_rm8, Sets_rm8, Setp_rm8]);
                if self.below(2) == 0 {
                    Instruction::with1(code, self.byte())
                } else {
                    Instruction::with1(code, self.operand())
                }
            }
            11 => Instruction::with1(Push_r64, self.general()),
            12 => {
                let base = self.general();
                let index = self.general();
                let operand = MemoryOperand::with_base_index_scale_displ_size(
                    base,
                    index,
                    4,
                    self.below(0x1000) as i64,
                    8,
                );
                Instruction::with2(Lea_r64_m, self.general(), operand)
            }
            13 => {
                let code = self.pick(&[Paddd_xmm_xmmm128, Pxor_xmm_xmmm128, Movdqu_xmm_xmmm128]);
                if self.below(2) == 0 {
                    let operand = self.operand();
                    let code = if code == Movdqu_xmm_xmmm128 { code } else { Movdqu_xmm_xmmm128 };
                    Instruction::with2(code, self.vector(), operand)
                } else {
                    Instruction::with2(code, self.vector(), self.vector())
                }
            }
            14 => {
                let operand = self.operand();
                Instruction::with2(Movdqu_xmmm128_xmm, operand, self.vector())
            }
            _ => Instruction::with1(Bswap_r64, self.general()),
        }
    }

    /// A step of a string instruction, between elements near the data.
    fn string(&mut self) -> [Instruction; 4] {
        let steps: [Step; 5] = [
            |bits, segment, rep| Instruction::with_lodsq(bits, segment, rep),
            |bits, _, rep| Instruction::with_stosb(bits, rep),
            |bits, segment, rep| Instruction::with_movsq(bits, segment, rep),
            |bits, _, rep| Instruction::with_scasd(bits, rep),
            |bits, segment, rep| Instruction::with_cmpsb(bits, segment, rep),
        ];
        let step = self.pick(&steps);
        let bits = self.pick(&[32, 64]);
        let mut near = |register| Instruction::with2(Code::Lea_r64_m, register, self.operand());
        let (from, to) = (near(Register::RSI).unwrap(), near(Register::RDI).unwrap());
        let count = self.below(80) as u32;
        let count = Instruction::with2(Code::Mov_r32_imm32, Register::ECX, count).unwrap();
        let rep = self.pick(&[RepPrefixKind::None, RepPrefixKind::Repe]);
        [from, to, count, step(bits, Register::None, rep).unwrap()]
    }

    /// The body, with branches over single instructions, in a loop.
    fn program(&mut self) -> Vec<u8> {
        let mut encoder = Encoder::new(64);
        let mut code = Vec::new();
        let mut pushed = 0;
        for _ in 0..=self.below(38) {
            if self.below(16) == 0 {
                for instruction in self.string() {
                    encoder.encode(&instruction, CODE).unwrap();
                    code.extend(encoder.take_buffer());
                }
            }
            let instruction = self.instruction();
            if instruction.code() == Code::Push_r64 {
                pushed += 1;
            }
            encoder.encode(&instruction, CODE).unwrap();
            let bytes = encoder.take_buffer();
            if instruction.code() != Code::Push_r64 && self.below(6) == 0 {
                code.extend([0x70 | self.below(16) as u8, bytes.len() as u8]); // Jcc over it
            }
            code.extend(bytes);
        }
        for _ in 0..pushed {
            let register = self.general();
            encoder.encode(&Instruction::with1(Code::Pop_r64, register).unwrap(), CODE).unwrap();
            code.extend(encoder.take_buffer());
        }
        // The flags of the body, as far as they are defined, go to the data.
        code.extend([0x9C, 0x8F, 0x83]); // pushfq; pop [rbx + ..]
        code.extend((COUNTER as i32 - 8).to_le_bytes());
        code.extend([0x81, 0xA3]); // and dword [rbx + ..], all but AF
        code.extend((COUNTER as i32 - 8).to_le_bytes());
        code.extend((!(flags::AF as u32)).to_le_bytes());
        code.extend([0x48, 0xFF, 0x8B]); // dec qword [rbx + ..]
        code.extend((COUNTER as i32).to_le_bytes());
        let back = -(code.len() as i64 + 6);
        code.extend([0x0F, 0x85]); // jnz
        code.extend((back as i32).to_le_bytes());
        code.push(0xF4); // hlt
        code
    }
}

fn compare(mut random: Random, programs: u32) {
    let seed = random.0;
    let (mut interpreted, mut left) = (0, 0);
    for number in 0..programs {
        let program = Programs(&mut random).program();
        let start = start(&mut random);
        let mut data = random.bytes(0x1010);
        let counter = (0x800 + COUNTER) as usize;
        data[counter..counter + 8].copy_from_slice(&ROUNDS.to_le_bytes());
        let tables = tables();
        let mut image: Vec<(u64, &[u8])> = tables.iter().map(|(at, e)| (*at, &e[..])).collect();
        image.extend([(CODE, &*program), (DATA - 0x800, &*data)]);
        let watched = DATA - 0x800..DATA + 0x810;
        let setup = Setup { state: &start, image: &image, watched };
        let (expected, all) = run(&setup, Engine::Interpreter);
        let (found, rest) = run(&setup, Engine::Translator(random.pick(&[1, 3])));
        assert!(expected.halted);
        assert_eq!(found, expected, "seed {seed}, program {number}: {program:02x?}");
        interpreted += all;
        left += rest;
    }
    assert!(left < interpreted / 2, "little was translated: {left} of {interpreted} are left");
}

#[test]
fn random_programs_end_as_under_the_interpreter() {
    compare(Random(1), 3000);
}

#[test]
fn programs_of_a_fresh_seed_too() {
    compare(Random::fresh(), 3000);
}
