//! Random instructions: by a stub, and natively with their own bytes. Everything has to agree.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(missing_docs, clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::HashSet;

use iced_x86::{Instruction, OpKind, Register};
use kasane_passthrough::{
    Direction, FaultKind, HostFault, HostFeatures, Location, Passthrough, Registers, Scratch,
};
use support::{Machine, Native, Random, decode, forget_what_differs, machine, runner};

/// Bytes of a random instruction of the vector and x87 maps. Memory operands are `[rbx]`.
fn bytes(random: &mut Random) -> Vec<u8> {
    let mut code = Vec::new();
    let memory = random.below(3) == 0;
    let modrm = if memory { (random.next() as u8 & 0x38) | 3 } else { random.next() as u8 | 0xC0 };
    match random.below(4) {
        0 => {
            code.push(0xD8 + random.below(8) as u8);
            code.push(modrm);
        }
        1 | 2 => {
            code.extend([&[][..], &[0x66], &[0xF3], &[0xF2]][random.below(4) as usize]);
            let rex = 0x40 | random.next() as u8 & if memory { 0xC } else { 0xD };
            code.extend(Some(rex).filter(|r| r & 7 != 0 || r & 8 != 0));
            code.extend([&[0x0F][..], &[0x0F, 0x38], &[0x0F, 0x3A]][random.below(3) as usize]);
            code.push(random.next() as u8);
            code.push(modrm);
        }
        _ => {
            code.push(0xC4);
            let map = 1 + random.below(3) as u8;
            let extend = random.next() as u8 & if memory { 0x80 } else { 0xA0 };
            code.push(0x40 | if memory { 0x20 } else { 0 } | extend | map);
            code.push(random.next() as u8 | if random.below(2) == 0 { 0x78 } else { 0 });
            code.push(random.next() as u8);
            code.push(modrm);
        }
    }
    code.push(random.next() as u8);
    code
}

/// Runs by a stub as the interpreter would: operand in, instruction, operand out.
fn passed(
    through: &mut Passthrough,
    code: &[u8],
    machine: &mut Machine,
    location: &Location<'_>,
) -> Option<Option<FaultKind>> {
    let prepared = through.prepare(&decode(code)).ok()?;
    let mut scratch = Scratch([0xEE; 64]);
    let operand = prepared.operand();
    if let Some(operand) = operand
        && operand.direction == Direction::Read
    {
        let n = usize::from(operand.size);
        scratch.0[..n].copy_from_slice(&machine.memory[..n]);
    }
    let mut registers = Registers {
        gpr: &mut machine.gpr,
        rflags: &mut machine.rflags,
        vector: &mut machine.vector,
    };
    let completed = match through.run(&prepared, &mut registers, &mut scratch, location) {
        Ok(completed) => completed,
        Err(HostFault::SimdFp) => return Some(Some(FaultKind::Simd)),
        Err(HostFault::X87Fp) => return Some(Some(FaultKind::X87)),
        Err(HostFault::Undefined) => return Some(Some(FaultKind::InvalidOpcode)),
        Err(other) => panic!("{code:02X?}: {other:?}"),
    };
    if let Some(operand) = operand
        && operand.direction == Direction::Write
        && completed.stored
    {
        let n = usize::from(operand.size);
        machine.memory[..n].copy_from_slice(&scratch.0[..n]);
    }
    Some(None)
}

/// Whether the memory operand is not plain `[rbx]`.
fn code_reaches_elsewhere(instruction: &Instruction) -> bool {
    instruction.memory_base() != Register::RBX
        || instruction.memory_index() != Register::None
        || instruction.memory_displacement64() != 0
}

/// Runs `count` random instructions both ways; gives the distinct instructions met.
fn compare(seed: u64, count: u32) -> HashSet<u16> {
    let runner = runner();
    let mut through = Passthrough::new(&runner).unwrap();
    let mut native = Native::new(&runner);
    let mut random = Random(seed);
    let mut met = HashSet::new();
    for _ in 0..count {
        let code = bytes(&mut random);
        let instruction = decode(&code);
        // The native frame needs its stack pointer.
        let stack = (0..instruction.op_count())
            .any(|i| matches!(instruction.op_register(i), Register::ESP | Register::RSP));
        // By chance an opcode byte opens another map, and the immediate is taken as ModRM.
        let elsewhere = (0..instruction.op_count()).any(|i| {
            instruction.op_kind(i) == OpKind::Memory && code_reaches_elsewhere(&instruction)
        });
        if instruction.is_invalid() || stack || elsewhere || through.prepare(&instruction).is_err()
        {
            continue;
        }
        let location = Location {
            instruction: &instruction,
            rip: native.instruction_address(),
            cs: 0,
            operand: native.operand_address(),
            ds: 0,
        };
        let mut start = machine(&mut random);
        start.gpr[3] = native.operand_address();
        let (mut by_stub, mut by_cpu) = (start.clone(), start.clone());
        let code = &code[..instruction.len()];
        let stub_fault = passed(&mut through, code, &mut by_stub, &location).unwrap();
        let cpu_fault = native.run(code, &mut by_cpu);
        let name = instruction.code();
        forget_what_differs(&mut by_stub);
        forget_what_differs(&mut by_cpu);
        assert_eq!(stub_fault, cpu_fault, "{name:?} {code:02X?}");
        assert_eq!(by_stub.gpr, by_cpu.gpr, "{name:?} {code:02X?}");
        assert_eq!(by_stub.rflags & 0x8D5, by_cpu.rflags & 0x8D5, "{name:?} {code:02X?}");
        assert_eq!(by_stub.memory, by_cpu.memory, "{name:?} {code:02X?}");
        assert_eq!(by_stub.vector.ymm, by_cpu.vector.ymm, "{name:?} {code:02X?} {start:?}");
        assert_eq!(
            by_stub.vector.fx.0[..160],
            by_cpu.vector.fx.0[..160],
            "{name:?} {code:02X?} {:02X?}",
            &start.vector.fx.0[..160]
        );
        met.insert(name as u16);
    }
    met
}

#[test]
fn stubs_agree_with_the_cpu() {
    let met = compare(0x5EED_0001, 600_000);
    assert!(met.len() > 900, "only {} distinct instructions", met.len());
}

#[test]
fn two_threads_do_not_disturb_each_other() {
    let threads = [11u64, 12].map(|seed| std::thread::spawn(move || compare(seed, 60_000).len()));
    let met = threads.map(|thread| thread.join().unwrap());
    assert!(met.iter().all(|n| *n > 100), "{met:?}");
}

#[test]
fn full_arenas_start_again() {
    let runner = runner();
    let mut through = Passthrough::with_capacity(&runner, 4096).unwrap();
    let mut random = Random(7);
    let addps = decode(&[0x0F, 0x58, 0xC1]);
    let location = Location { instruction: &addps, rip: 0, cs: 0, operand: 0, ds: 0 };
    let first = through.prepare(&addps).unwrap();
    for imm in 0..=255u8 {
        // pshufd xmm0, xmm1, imm
        let code = [0x66, 0x0F, 0x70, 0xC1, imm];
        let mut m = machine(&mut random);
        let [lo, hi, ..] = m.vector.ymm[1];
        let words = [lo as u32, (lo >> 32) as u32, hi as u32, (hi >> 32) as u32];
        assert_eq!(passed(&mut through, &code, &mut m, &location), Some(None));
        let pick = |n: u8| u64::from(words[usize::from(imm >> (2 * n) & 3)]);
        assert_eq!(m.vector.ymm[0][0], pick(0) | pick(1) << 32);
        assert_eq!(m.vector.ymm[0][1], pick(2) | pick(3) << 32);
    }
    let mut m = machine(&mut random);
    let mut registers = Registers { gpr: &mut m.gpr, rflags: &mut m.rflags, vector: &mut m.vector };
    let stale = through.run(&first, &mut registers, &mut Scratch::default(), &location);
    assert_eq!(stale, Err(HostFault::Stale));
}

#[test]
fn the_host_says_what_it_has() {
    let features = runner().features();
    assert_eq!(features.contains(HostFeatures::AVX), std::is_x86_feature_detected!("avx"));
}
