//! Blocks whose end is known. One process runs the CPU's side once, so this is one test.
#![allow(missing_docs)]

use kasane_differ::blocks::Block;
use kasane_differ::blocks::compare::{Session, Verdict};
use kasane_differ::blocks::disturb::{End, Plan, Watch};
use kasane_differ::blocks::guest::{Engine, Machine, TRANSLATING};
use kasane_differ::case::{Case, Patterns};
use kasane_differ::layout::{CODE, DATA, EXIT, OPEN_CODE};

const RIP: u64 = CODE + 0x100;
/// All that can happen, often.
const BUSY: Plan = Plan {
    seed: 1,
    rounds: 20,
    threshold: 1,
    polls: 1,
    interrupts: 40,
    flushes: 20,
    cold: 20,
    swaps: 20,
    migrations: 20,
    entries: kasane_differ::blocks::disturb::Entries::Used,
    machine: 0,
    watch: Watch::Blocks,
};

/// A block of these instructions, and the way out behind them. RBX points to data.
fn block(instructions: &[&[u8]], machine: usize) -> Block {
    block_at(RIP, instructions, machine)
}

fn block_at(rip: u64, instructions: &[&[u8]], machine: usize) -> Block {
    let (mut bytes, mut starts) = (Vec::new(), Vec::new());
    for instruction in instructions {
        starts.push(bytes.len() as u32);
        bytes.extend_from_slice(instruction);
    }
    starts.push(bytes.len() as u32);
    let from = rip + bytes.len() as u64 + 5;
    bytes.push(0xE9);
    bytes.extend_from_slice(&(EXIT.wrapping_sub(from) as u32).to_le_bytes());
    let mut case = Case {
        bytes,
        bits: 64,
        rip,
        rflags: 0x202,
        vectors: Some(Box::default()),
        ..Case::default()
    };
    (case.gpr[1], case.gpr[3], case.gpr[4]) = (30, DATA + 0x800, DATA + 0x1800);
    Block { case, starts, taken: Vec::new(), plan: Plan { machine, ..BUSY } }
}

/// A return to an address that was pushed, which no plan knows, and there SETO.
fn returns(first: &[u8]) -> Block {
    let target = (RIP + first.len() as u64 + 6) as u32;
    let push = [&[0x68][..], &target.to_le_bytes()].concat();
    block(&[first, &push, &[0xC3], &[0x0F, 0x90, 0xC0]], 0)
}

#[test]
fn a_flag_that_is_undefined_on_the_way_that_was_taken_is_noticed() {
    let mut machine = Machine::new(Engine::Interpreter).unwrap();
    let mut run = |block: &Block| machine.run(block, block.plan.watched(), &Patterns::default());

    assert!(run(&returns(&[0xD3, 0xE8])) == Ok(End::Undefined)); // shr eax, cl
    assert!(matches!(run(&returns(&[0xFF, 0xC0])), Ok(End::Done(_)))); // inc eax
}

/// Writes the second byte of what is SETZ [RBX] before.
fn patches(byte: u8) -> Block {
    let write = [0xC6, 0x05, 1, 0, 0, 0, byte];
    block_at(OPEN_CODE + 0x100, &[&write, &[0x0F, 0x94, 0x03]], 0)
}

#[test]
fn an_instruction_that_a_system_may_answer_is_noticed_when_a_block_makes_it() {
    let mut machine = Machine::new(Engine::Interpreter).unwrap();
    let mut run = |block: &Block| machine.run(block, block.plan.watched(), &Patterns::default());

    assert!(run(&patches(0x00)) == Ok(End::Undefined)); // sldt [rbx]
    assert!(matches!(run(&patches(0x95)), Ok(End::Done(_)))); // setnz [rbx]
}

#[test]
fn blocks_end_as_they_must_whatever_happens_meanwhile() {
    let mut session = Session::new().unwrap();
    // add [rbx+7FCh], rcx (across pages); push rcx; pop rdx; adc rax, rdx; dec ecx; jnz
    let counts: [&[u8]; 6] = [
        &[0x48, 0x01, 0x8B, 0xFC, 0x07, 0, 0],
        &[0x51],
        &[0x5A],
        &[0x48, 0x11, 0xD0],
        &[0xFF, 0xC9],
        &[0x75, 0xF0],
    ];
    let divides: [&[u8]; 2] = [&[0x48, 0x31, 0xC9], &[0x48, 0xF7, 0xF1]]; // by zero
    let stays: [&[u8]; 1] = [&[0xEB, 0xFE]];
    let strays: [&[u8]; 2] = [&[0xEB, 0x01], &[0xB8, 0x90, 0x90, 0x90, 0x90]]; // into an immediate

    for machine in 0..TRANSLATING {
        assert_eq!(session.check(&block(&counts, machine)), Verdict::Same);
        assert_eq!(session.ended_by, None);
        assert_eq!(session.check(&block(&divides, machine)), Verdict::Same);
        assert_eq!(session.ended_by, Some(0));
    }
    assert_eq!(session.check(&block(&stays, 0)), Verdict::Unfit);
    assert_eq!(session.check(&block(&strays, 0)), Verdict::Unfit);
}
