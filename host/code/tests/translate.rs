//! Random programs under the translator and under the interpreter: the same registers, flags and
//! memory at the end.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(missing_docs, clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

#[path = "support/quiet.rs"]
mod quiet;

use std::sync::Arc;

use iced_x86::{Code, Encoder, IcedError, Instruction, MemoryOperand, Register};
use kasane_cpu::apic::ApicBus;
use kasane_cpu::cpuid::{CpuModel, CpuModelName, VECTOR_FEATURES};
use kasane_cpu::{CpuState, Entry, Exit, Partition, StateSet};
use kasane_host_code::HostCode;
use kasane_interp::{InterpConfig, InterpPartition};
use kasane_memory::{GuestMemory, Ram, RamSlot};
use kasane_passthrough::{CodeRunner, Passthrough};
use kasane_spec_x86::control::{cr0, cr4, efer};
use kasane_spec_x86::{flags, paging};
use kasane_translate::{Shared, Translated};
use quiet::{Quiet, flat};

const CODE: u64 = 0x10_0000;
/// In the middle of the data, so that operands lie on both sides of a page's end.
const DATA: u64 = 0x20_1000;
const STACK: u64 = 0x30_0000;
/// How often the program's body runs: it is translated on the way.
const ROUNDS: u64 = 12;
const COUNTER: i64 = 0x800;
const RESERVED: [Register; 2] = [Register::RBX, Register::RSP];

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);
impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[derive(Debug, PartialEq)]
struct End {
    gpr: [u64; 16],
    rip: u64,
    rflags: u64,
    ymm: [[u64; 4]; 16],
    data: Vec<u8>,
}

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

fn run(start: &CpuState, program: &[u8], data: &[u8], translated: bool) -> (End, u64) {
    let runner: Arc<dyn CodeRunner> = Arc::new(HostCode::new().unwrap());
    let ram = Arc::new(Ram::new(vec![RamSlot::allocated(0, 4 << 20)]));
    let table = paging::P | paging::RW;
    ram.store_u64(0x1000, 0x2000 | table).unwrap();
    ram.store_u64(0x2000, 0x3000 | table).unwrap();
    ram.store_u64(0x3000, paging::PS | table).unwrap();
    ram.store_u64(0x3008, 0x20_0000 | paging::PS | table).unwrap();
    ram.write(CODE, program).unwrap();
    ram.write(DATA - 0x800, data).unwrap();
    let arenas = Arc::clone(&runner);
    let partition = InterpPartition::new(InterpConfig {
        ram: Arc::clone(&ram),
        apics: Arc::new(ApicBus::new(1)),
        clock: Arc::new(Quiet),
        entropy: Arc::new(Quiet),
        barrier: Arc::new(Quiet),
        model: CpuModel::new(CpuModelName::Max, VECTOR_FEATURES),
        tsc_hz: 1_000_000_000,
        passthrough: Arc::new(move || Passthrough::new(&runner).ok()),
        accelerator: Arc::new(move |_| {
            let arena = arenas.arena(1 << 20).ok().filter(|_| translated)?;
            Some(Box::new(Translated::new(Shared::new(arena, 1)?, 0)))
        }),
    });
    let mut vcpu = partition.new_vcpu(0).unwrap();
    vcpu.write(StateSet::ALL, start);
    let exit = vcpu.run(Entry::Resume).unwrap();
    assert!(matches!(exit, Exit::Halt), "{exit:?}");
    let mut state = CpuState::reset(true);
    vcpu.read(StateSet::ALL, &mut state);
    let mut after = vec![0; data.len()];
    ram.read(DATA - 0x800, &mut after).unwrap();
    let end = End {
        gpr: state.gpr,
        rip: state.rip,
        rflags: state.rflags & !flags::AF,
        ymm: state.vector.ymm,
        data: after,
    };
    (end, vcpu.instructions())
}

/// Makes programs of instructions whose flags are all defined but AF.
struct Programs<'a>(&'a mut Random);

impl Programs<'_> {
    fn below(&mut self, n: u64) -> u64 {
        self.0.next() % n
    }
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
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

    /// The body, with branches over single instructions, in a loop.
    fn program(&mut self) -> Vec<u8> {
        let mut encoder = Encoder::new(64);
        let mut code = Vec::new();
        let mut pushed = 0;
        for _ in 0..=self.below(38) {
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

fn compare(seed: u64, programs: u32) {
    let mut random = Random(seed);
    for number in 0..programs {
        let program = Programs(&mut random).program();
        let start = start(&mut random);
        let mut data: Vec<u8> = (0..0x1010).map(|_| random.next() as u8).collect();
        let counter = (0x800 + COUNTER) as usize;
        data[counter..counter + 8].copy_from_slice(&ROUNDS.to_le_bytes());
        let (expected, interpreted) = run(&start, &program, &data, false);
        let (found, left) = run(&start, &program, &data, true);
        assert_eq!(found, expected, "seed {seed}, program {number}: {program:02x?}");
        assert!(left < interpreted, "nothing was translated: {left} of {interpreted}");
    }
}

#[test]
fn random_programs_end_as_under_the_interpreter() {
    compare(1, 3000);
}

#[test]
fn programs_of_a_fresh_seed_too() {
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    compare(seed.as_nanos() as u64, 3000);
}
