//! The interpreter's vector group against this CPU: checks, operands, images of the state.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(missing_docs, clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

#[path = "support/quiet.rs"]
mod quiet;
mod support;

use std::collections::HashSet;
use std::sync::Arc;

use iced_x86::{Code, Instruction, OpKind, Register};
use kasane_cpu::apic::ApicBus;
use kasane_cpu::cpuid::{CpuModel, CpuModelName, VECTOR_FEATURES};
use kasane_interp::block::BlockCache;
use kasane_interp::{Cpu, InterpConfig, InterpPartition, Stop};
use kasane_memory::{GuestMemory, Ram, RamSlot};
use kasane_passthrough::{CodeRunner, FaultKind, Passthrough};
use kasane_spec_x86::control::{cr0, cr4, efer};
use kasane_spec_x86::{paging, vector};
use quiet::{Quiet, flat};
use support::{Machine, Native, Random, decode, forget_what_differs, machine, runner};

const CODE: u64 = 0x10_0000;
const DATA: u64 = 0x20_0000;

struct Guest {
    cpu: Cpu,
    ram: Arc<Ram>,
}

fn guest(runner: &Arc<dyn CodeRunner>) -> Guest {
    let ram = Arc::new(Ram::new(vec![RamSlot::allocated(0, 4 << 20)]));
    let runner = runner.clone();
    let partition = InterpPartition::new(InterpConfig {
        ram: ram.clone(),
        apics: Arc::new(ApicBus::new(1)),
        clock: Arc::new(Quiet),
        entropy: Arc::new(Quiet),
        barrier: Arc::new(Quiet),
        model: CpuModel::new(CpuModelName::Max, VECTOR_FEATURES),
        tsc_hz: 1_000_000_000,
        passthrough: Arc::new(move || Passthrough::new(&runner).ok()),
        accelerator: Arc::new(|_| None),
    });
    let mut cpu = partition.new_cpu(0).unwrap();
    let table = paging::P | paging::RW;
    ram.store_u64(0x1000, 0x2000 | table).unwrap();
    ram.store_u64(0x2000, 0x3000 | table).unwrap();
    ram.store_u64(0x3000, paging::PS | table).unwrap();
    ram.store_u64(0x3008, 0x20_0000 | paging::PS | table).unwrap();
    let state = &mut cpu.state;
    state.cr0 = cr0::PE | cr0::PG | cr0::WP | cr0::ET | cr0::NE;
    state.cr3 = 0x1000;
    state.cr4 = cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE;
    state.efer = efer::LME | efer::LMA;
    state.xcr0 = 7;
    state.cs = flat(0xA09B);
    for segment in [&mut state.ss, &mut state.ds, &mut state.es] {
        *segment = flat(0xC093);
    }
    cpu.refresh_mode();
    Guest { cpu, ram }
}

impl Guest {
    /// Runs `code` on `machine`, whose RBX stands for the address of the memory operand.
    fn run(&mut self, code: &[u8], machine: &mut Machine) -> Option<u8> {
        let cpu = &mut self.cpu;
        cpu.state.gpr = machine.gpr;
        cpu.state.gpr[3] = DATA;
        cpu.state.rflags = machine.rflags;
        *cpu.state.vector = machine.vector.clone();
        cpu.state.rip = CODE;
        self.ram.write(DATA, &machine.memory).unwrap();
        self.ram.write(CODE, code).unwrap();
        let mut cache = BlockCache::default();
        let block = cache.find(cpu).unwrap();
        let op = block.ops.first().unwrap();
        cpu.next_rip = op.next_rip;
        let result = (op.run)(cpu, op);
        let rbx = machine.gpr[3];
        machine.gpr = cpu.state.gpr;
        if machine.gpr[3] == DATA {
            machine.gpr[3] = rbx;
        }
        machine.rflags = cpu.state.rflags;
        machine.vector = (*cpu.state.vector).clone();
        self.ram.read(DATA, &mut machine.memory).unwrap();
        match result {
            Ok(()) | Err(Stop::Break) => None,
            Err(Stop::Fault) => Some(cpu.fault.vector),
            Err(Stop::Exit) => panic!("exit"),
        }
    }
}

fn number(fault: FaultKind) -> u8 {
    match fault {
        FaultKind::Divide => vector::DE,
        FaultKind::InvalidOpcode => vector::UD,
        FaultKind::Protection => vector::GP,
        FaultKind::Page { .. } => vector::PF,
        FaultKind::X87 => vector::MF,
        FaultKind::Alignment => vector::AC,
        FaultKind::Simd => vector::XM,
        FaultKind::Other { vector } => vector,
    }
}

/// x87 instructions that set the pointers: they differ by design (the addresses do).
fn sets_pointers(start: &Machine, end: &Machine) -> bool {
    start.vector.fip() != end.vector.fip() || start.vector.fop() != end.vector.fop()
}

/// Runs one instruction both ways and compares.
fn check(guest: &mut Guest, native: &mut Native, code: &[u8], start: &Machine) {
    let (mut here, mut there) = (start.clone(), start.clone());
    let fault_there = native.run(code, &mut there).map(number);
    let fault_here = guest.run(code, &mut here);
    let name = decode(code).code();
    forget_what_differs(&mut here);
    forget_what_differs(&mut there);
    assert_eq!(fault_here, fault_there, "{name:?} {code:02X?}");
    if fault_there.is_some() && matches!(name, Code::Xrstor_mem | Code::Xrstor64_mem) {
        // This CPU may have loaded components when it finds a bad MXCSR.
        return;
    }
    assert_eq!(here.gpr, there.gpr, "{name:?} {code:02X?}");
    assert_eq!(here.rflags & 0x8D5, there.rflags & 0x8D5, "{name:?} {code:02X?}");
    let differs = here.memory.iter().zip(&there.memory).position(|(a, b)| a != b);
    assert_eq!(differs, None, "{name:?} {code:02X?}");
    assert_eq!(
        here.vector.ymm,
        there.vector.ymm,
        "{name:?} {code:02X?} rax {:x} header {:02X?} xmm0 {:?} memory {:02X?}",
        start.gpr[0],
        &start.memory[512..576],
        start.vector.ymm[0],
        &start.memory[160..176]
    );
    assert_eq!(here.vector.mxcsr(), there.vector.mxcsr(), "{name:?} {code:02X?}");
    if sets_pointers(start, &there) && sets_pointers(start, &here) {
        return;
    }
    assert_eq!(here.vector.fx.0[..160], there.vector.fx.0[..160], "{name:?} {code:02X?}");
}

/// Makes the x87 pointers of an image canonical: a switch of the host's tasks may change others.
fn canonical_pointers(start: &mut Machine) {
    start.memory[13..16].fill(0);
    start.memory[21..24].fill(0);
}

/// Instructions that software does, with `[rbx]` as operand, and RAX as a mask of components.
const IMAGES: [&[u8]; 18] = [
    &[0x0F, 0xAE, 0x03],       // fxsave
    &[0x48, 0x0F, 0xAE, 0x03], // fxsave64
    &[0x0F, 0xAE, 0x0B],       // fxrstor
    &[0x48, 0x0F, 0xAE, 0x0B], // fxrstor64
    &[0x0F, 0xAE, 0x13],       // ldmxcsr
    &[0x0F, 0xAE, 0x1B],       // stmxcsr
    &[0xD9, 0x33],             // fnstenv
    &[0xD9, 0x23],             // fldenv
    &[0xDD, 0x33],             // fnsave
    &[0xDD, 0x23],             // frstor
    &[0x66, 0xD9, 0x33],
    &[0x66, 0xD9, 0x23],
    &[0x66, 0xDD, 0x33],
    &[0x66, 0xDD, 0x23],
    &[0x9B],             // fwait
    &[0x0F, 0x77],       // emms
    &[0xC5, 0xF8, 0x77], // vzeroupper
    &[0xC5, 0xFC, 0x77], // vzeroall
];

#[test]
fn images_of_the_state_agree() {
    let runner = runner();
    let (mut guest, mut native) = (guest(&runner), Native::new(&runner));
    let mut random = Random(0xFEED);
    for round in 0..6000 {
        let mut start = machine(&mut random);
        start.gpr[3] = native.operand_address();
        start.vector.set_fip(random.next() >> 17);
        start.vector.set_fdp(random.next() >> 17);
        start.vector.set_fop(random.next() as u16 & 0x7FF);
        // Bit 17 of MXCSR exists on some processors; half of the images have a valid MXCSR.
        start.memory[26] &= !2;
        canonical_pointers(&mut start);
        start.memory[2] &= !2;
        if round % 2 == 0 {
            start.memory[26] = 0;
            start.memory[27] = 0;
            start.memory[2] = 0;
            start.memory[3] = 0;
        }
        check(&mut guest, &mut native, IMAGES[round % IMAGES.len()], &start);
    }
}

/// The XSAVE family but XSAVES and XRSTORS, with and without REX.W.
const XSAVES: [&[u8]; 7] = [
    &[0x0F, 0xAE, 0x23],
    &[0x48, 0x0F, 0xAE, 0x23],
    &[0x0F, 0xAE, 0x2B], // xrstor
    &[0x48, 0x0F, 0xAE, 0x2B],
    &[0x0F, 0xAE, 0x33], // xsaveopt
    &[0x0F, 0xC7, 0x23], // xsavec
    &[0x48, 0x0F, 0xC7, 0x23],
];

#[test]
fn xsave_areas_agree() {
    let runner = runner();
    let (mut guest, mut native) = (guest(&runner), Native::new(&runner));
    let mut random = Random(0xACE);
    for round in 0..8000 {
        let mut start = machine(&mut random);
        start.gpr[0] = random.below(8);
        start.gpr[2] = 0;
        start.gpr[1] = 0;
        start.gpr[3] = native.operand_address();
        start.memory[512..576].fill(0);
        start.memory[512] = random.below(9) as u8;
        if random.below(2) == 0 {
            start.memory[520] = random.below(8) as u8;
            start.memory[527] = 0x80;
        }
        if random.below(16) == 0 {
            start.memory[512 + random.below(64) as usize] = 1;
        }
        start.memory[26] &= !2;
        canonical_pointers(&mut start);
        if random.below(4) != 0 {
            start.memory[26] = 0;
            start.memory[27] = 0;
        }
        let code = XSAVES[round % XSAVES.len()];
        // This CPU has components that the guest's does not: they stay unused, and the guest's
        // x87 unit is taken as unused by its contents alone.
        if code == [0x0F, 0xAE, 0x33] {
            start.gpr[0] &= 6;
        }
        check(&mut guest, &mut native, code, &start);
    }
}

/// Random instructions of the SSE, MMX and AVX maps with `[rbx]` operands at odd places.
fn bytes(random: &mut Random) -> Vec<u8> {
    let mut code = Vec::new();
    let memory = random.below(2) == 0;
    let modrm = if memory { 0x43 | random.next() as u8 & 0x38 } else { random.next() as u8 | 0xC0 };
    if random.below(2) == 0 {
        code.extend([&[][..], &[0x66], &[0xF3], &[0xF2]][random.below(4) as usize]);
        let rex = 0x40 | random.next() as u8 & if memory { 0xC } else { 0xD };
        code.extend(Some(rex).filter(|r| r & 15 != 0));
        code.extend([&[0x0F][..], &[0x0F, 0x38], &[0x0F, 0x3A]][random.below(3) as usize]);
    } else {
        let map = 1 + random.below(3) as u8;
        let extend = random.next() as u8 & if memory { 0x80 } else { 0xA0 };
        code.extend([0xC4, 0x40 | if memory { 0x20 } else { 0 } | extend | map]);
        code.push(random.next() as u8 | if random.below(2) == 0 { 0x78 } else { 0 });
    }
    code.push(random.next() as u8);
    code.push(modrm);
    if memory {
        code.push([0, 16, 32, 1, 8][random.below(5) as usize]);
    }
    code.push(random.next() as u8);
    code
}

/// Whether the instruction belongs to the vector group and is safe to run natively.
fn eligible(instruction: &Instruction) -> bool {
    let registers = (0..instruction.op_count())
        .filter(|i| instruction.op_kind(*i) == OpKind::Register)
        .map(|i| instruction.op_register(i));
    let fixed =
        registers.clone().any(|r| matches!(r.full_register(), Register::RSP | Register::RBX));
    let ours = registers.into_iter().any(|r| r.is_vector_register() || r.is_mm());
    let memory = (0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::Memory);
    let reachable = !memory
        || instruction.memory_base() == Register::RBX
            && instruction.memory_index() == Register::None
            && instruction.memory_displacement64() <= 32;
    let implicit = (0..instruction.op_count())
        .any(|i| matches!(instruction.op_kind(i), OpKind::MemorySegRDI | OpKind::MemorySegEDI));
    ours && !fixed && reachable && !implicit && !instruction.is_invalid()
}

#[test]
fn vector_instructions_agree() {
    let runner = runner();
    let (mut guest, mut native) = (guest(&runner), Native::new(&runner));
    let model = CpuModel::new(CpuModelName::Max, VECTOR_FEATURES);
    let mut random = Random(0xBEAD);
    let mut met = HashSet::new();
    for _ in 0..400_000 {
        let code = bytes(&mut random);
        let instruction = decode(&code);
        if !eligible(&instruction)
            || !kasane_interp::guard::shown(&model, &instruction)
            || kasane_interp::exec::lower(&instruction).is_none()
        {
            continue;
        }
        let mut start = machine(&mut random);
        start.gpr[3] = native.operand_address();
        check(&mut guest, &mut native, &code[..instruction.len()], &start);
        met.insert(instruction.code() as u16);
    }
    assert!(met.len() > 700, "only {} distinct instructions", met.len());
}

#[test]
fn gathers_agree() {
    let runner = runner();
    let (mut guest, mut native) = (guest(&runner), Native::new(&runner));
    let mut random = Random(0x6A7);
    for round in 0..4000u64 {
        // vpgatherdd and its seven brothers, dword or qword elements, xmm or ymm:
        // destination register 1, indices in register 2, mask in register 3.
        let opcode = 0x90 + (round % 4) as u8;
        let w = (round >> 2 & 1) as u8 * 0x80;
        let l = (round >> 3 & 1) as u8 * 4;
        let scale = random.below(4) as u8;
        let code = [0xC4, 0xE2, w | 0x60 | l | 1, opcode, 0x0C, scale << 6 | 2 << 3 | 3];
        let mut start = machine(&mut random);
        start.gpr[3] = native.operand_address();
        for word in &mut start.vector.ymm[2] {
            let [a, b] = [random.below(60), random.below(60)];
            *word = if opcode & 1 == 0 { a | b << 32 } else { a };
        }
        check(&mut guest, &mut native, &code, &start);
    }
}

#[test]
fn every_x87_instruction_has_a_handler() {
    let mut lacking = Vec::new();
    for first in 0xD8..=0xDFu8 {
        for modrm in 0..=0xFFu8 {
            let instruction = decode(&[first, modrm, 0, 0, 0, 0, 0, 0]);
            if !instruction.is_invalid() && kasane_interp::exec::lower(&instruction).is_none() {
                lacking.push(instruction.code());
            }
        }
    }
    assert_eq!(lacking, Vec::<Code>::new());
}

/// A guest whose machine state is the default one, with `change` applied.
fn faulting(code: &[u8], change: impl FnOnce(&mut Guest, &mut Machine)) -> (Option<u8>, Machine) {
    let runner = runner();
    let mut guest = guest(&runner);
    let mut machine = Machine {
        gpr: [0; 16],
        rflags: 2,
        vector: kasane_cpu::VectorState::default(),
        memory: [0; 1024],
    };
    change(&mut guest, &mut machine);
    let fault = guest.run(code, &mut machine);
    (fault, machine)
}

/// 1.0 and 0.0 in 80 bits.
const ONE: [u8; 10] = [0, 0, 0, 0, 0, 0, 0, 0x80, 0xFF, 0x3F];

#[test]
fn a_store_that_faults_does_not_pop() {
    // fstp qword [rbx + 0x300000], which is not mapped
    let code = [0xDD, 0x9B, 0, 0, 0x30, 0];
    let (fault, machine) = faulting(&code, |_, machine| {
        machine.vector.set_ftw(1);
        machine.vector.set_st(0, ONE);
    });
    assert_eq!(fault, Some(vector::PF));
    assert_eq!((machine.vector.ftw(), machine.vector.fsw()), (1, 0));
    assert_eq!(machine.vector.st(0), ONE);
}

#[test]
fn an_unmasked_x87_exception_waits_for_the_next_instruction() {
    let runner = runner();
    let mut guest = guest(&runner);
    let mut machine = faulting(&[0x9B], |_, machine| {
        machine.vector.set_fcw(0x037B); // zero divide unmasked
        machine.vector.set_ftw(0b11);
        machine.vector.set_st(0, ONE);
    })
    .1;
    let divide = guest.run(&[0xD8, 0xF1], &mut machine); // fdiv st0, st1
    assert_eq!((divide, machine.vector.fsw() & 0x80FF), (None, 0x8084));
    assert_eq!((machine.vector.fip(), machine.vector.fop()), (CODE, 0x0F1));
    let status = guest.run(&[0xDF, 0xE0], &mut machine); // fnstsw ax
    assert_eq!((status, machine.gpr[0] & 0xFF), (None, 0x84));
    let load = guest.run(&[0xD9, 0xE8], &mut machine); // fld1
    assert_eq!((load, machine.vector.fip()), (Some(vector::MF), CODE));
}

#[test]
fn an_unmasked_invalid_store_leaves_memory() {
    // fistp dword [rbx] of an empty stack, invalid unmasked
    let (fault, machine) = faulting(&[0xDB, 0x1B], |_, machine| {
        machine.vector.set_fcw(0x037E);
        machine.memory[0] = 0x77;
    });
    assert_eq!((fault, machine.memory[0]), (None, 0x77));
    assert_eq!(machine.vector.fsw() & 0xFF, 0xC1);
    assert_eq!(machine.vector.fdp(), DATA);
}

#[test]
fn simd_exceptions_are_xm_or_ud() {
    let divide = [0x0F, 0x5E, 0xC1]; // divps xmm0, xmm1: 0 / 0
    let unmask = |machine: &mut Machine| machine.vector.set_mxcsr(0x1F00);
    let (known, machine) = faulting(&divide, |_, machine| unmask(machine));
    let (unknown, _) = faulting(&divide, |guest, machine| {
        unmask(machine);
        guest.cpu.state.cr4 &= !cr4::OSXMMEXCPT;
    });
    assert_eq!((known, unknown), (Some(vector::XM), Some(vector::UD)));
    assert_eq!(machine.vector.mxcsr(), 0x1F01);
}

#[test]
fn a_vector_operand_may_cross_pages() {
    // paddb xmm0, [rbx] at the end of a page is aligned, vpaddb ymm0, ymm0, [rbx + 0xFF0] is not
    let code = [0xC5, 0xFD, 0xFC, 0x83, 0xF0, 0x0F, 0, 0];
    let (fault, machine) = faulting(&code, |guest, _| {
        guest.ram.write(DATA + 0xFF0, &[3; 32]).unwrap();
    });
    assert_eq!((fault, machine.vector.ymm(0)), (None, [0x0303_0303_0303_0303; 4]));
}
