//! Memory operands: forms of addresses, and places where something happens.

use iced_x86::{Instruction, OpKind, Register};

use crate::layout::{CODE, DATA, DATA_END, PAGE, READ_ONLY};
use crate::rng::Rng;

/// Where a memory operand is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Linear address.
    pub(crate) at: u64,
    /// The address has a register that is free to be set.
    pub(crate) solved_by: Register,
}

/// A linear address for an operand: inside the data, at each of its edges, or wrong.
pub(super) fn target(rng: &mut Rng) -> u64 {
    let near = |at: u64, rng: &mut Rng| at.wrapping_sub(rng.below(40));
    match rng.below(32) {
        0..=9 => DATA + 64 * (1 + rng.below(30)),
        10..=17 => DATA + 64 + rng.below(2048),
        18..=20 => near(DATA + PAGE as u64, rng),
        21 | 22 => near(READ_ONLY, rng),
        23 | 24 => READ_ONLY + 16 * rng.below(200),
        25 => near(DATA_END, rng),
        26 => near(DATA, rng),
        27 => near(DATA + 24, rng),
        28 => CODE + 8 * rng.below(1000),
        29 => DATA_END + rng.below(4096),
        30 => 0x0000_8000_0000_0000u64.wrapping_sub(rng.below(40)),
        _ => rng.pick(&[
            0x0000_8000_0000_0000,
            0x8000_0000_0000_0000,
            0xFFFF_7FFF_FFFF_FFFF,
            0x0123_4567_89AB_CDEF,
            0xFFFF_8000_0000_0000,
            8,
        ]),
    }
}

fn gpr(n: u64, short: bool) -> Register {
    let first = if short { Register::EAX } else { Register::RAX };
    Register::try_from(first as usize + n as usize).unwrap_or(first)
}

fn displacement(rng: &mut Rng) -> u64 {
    match rng.below(4) {
        0 => 0,
        1 => i64::from(rng.next() as i8) as u64,
        2 => i64::from(rng.next() as i32 >> rng.below(30)) as u64,
        _ => rng.below(256),
    }
}

/// Sets operand `n` to memory with base, index, both, neither, or RIP.
pub(super) fn operand(instr: &mut Instruction, n: u32, bits: u32, rng: &mut Rng) -> Place {
    let at = target(rng);
    let short = rng.chance(8);
    instr.set_op_kind(n, OpKind::Memory);
    instr.set_memory_displ_size(bits / 8);
    if bits == 32 && short {
        return short_operand(instr, at, rng);
    }
    if bits == 64 && rng.chance(8) {
        instr.set_memory_base(Register::RIP);
        instr.set_memory_displacement64(at);
        return Place { at, solved_by: Register::None };
    }
    if rng.chance(6) {
        instr.set_memory_displacement64(at);
        return Place { at, solved_by: Register::None };
    }
    let (count, short) = if bits == 64 { (16, short) } else { (8, true) };
    let base = gpr(rng.below(count), short);
    instr.set_memory_base(base);
    if rng.chance(45) {
        let index = rng.below(count);
        if index != 4 {
            instr.set_memory_index(gpr(index, short));
            instr.set_memory_index_scale(1 << rng.below(4));
        }
    }
    set_displacement(instr, bits, displacement(rng));
    Place { at, solved_by: base }
}

/// The 16-bit forms, which reach nothing that is mapped.
fn short_operand(instr: &mut Instruction, at: u64, rng: &mut Rng) -> Place {
    let base = rng.pick(&[Register::BX, Register::BP, Register::SI, Register::DI]);
    instr.set_memory_base(base);
    if matches!(base, Register::BX | Register::BP) && rng.chance(50) {
        instr.set_memory_index(rng.pick(&[Register::SI, Register::DI]));
    }
    instr.set_memory_displ_size(2);
    instr.set_memory_displacement64(rng.next() & 0xFFFF);
    Place { at, solved_by: base }
}

fn set_displacement(instr: &mut Instruction, bits: u32, value: u64) {
    let small = i64::from(value as i8) as u64 == value;
    instr.set_memory_displ_size(if value == 0 {
        0
    } else if small {
        1
    } else {
        bits / 8
    });
    instr.set_memory_displacement64(if bits == 64 { value } else { value & 0xFFFF_FFFF });
}

/// Sets operand `n` to an absolute 64-bit address (MOV with moffs).
pub(super) fn absolute(instr: &mut Instruction, n: u32, bits: u32, rng: &mut Rng) -> Place {
    let at = target(rng) & if bits == 64 { u64::MAX } else { 0xFFFF_FFFF };
    instr.set_op_kind(n, OpKind::Memory);
    instr.set_memory_displ_size(bits / 8);
    instr.set_memory_displacement64(at);
    Place { at, solved_by: Register::None }
}

/// Sets operand `n` to a base with a vector of indices.
pub(super) fn vector_index(
    instr: &mut Instruction,
    n: u32,
    first: Register,
    bits: u32,
    rng: &mut Rng,
) -> Place {
    let at = target(rng);
    let count = if bits == 64 { 16 } else { 8 };
    let base = gpr(rng.below(count), bits == 32);
    let index = Register::try_from(first as usize + rng.below(count) as usize).unwrap_or(first);
    instr.set_op_kind(n, OpKind::Memory);
    instr.set_memory_base(base);
    instr.set_memory_index(index);
    instr.set_memory_index_scale(1 << rng.below(4));
    set_displacement(instr, bits, rng.below(64));
    Place { at, solved_by: base }
}

/// Sets operand `n` to XLAT's.
pub(super) fn table(instr: &mut Instruction, n: u32, width: u32, rng: &mut Rng) -> Place {
    let at = target(rng);
    let base = match width {
        16 => Register::BX,
        32 => Register::EBX,
        _ => Register::RBX,
    };
    instr.set_op_kind(n, OpKind::Memory);
    instr.set_memory_base(base);
    instr.set_memory_index(Register::AL);
    Place { at, solved_by: base }
}
