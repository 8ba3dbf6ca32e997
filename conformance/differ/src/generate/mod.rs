//! Makes test cases: an instruction, and a state in which it does something worth seeing.
//!
//! A case is a function of a seed and a number, so that nothing has to be kept to make it again.

pub mod codes;
mod memory;
pub(crate) mod operand;
pub(crate) mod vectors;

use iced_x86::{
    Code, CpuidFeature, Decoder, DecoderError, DecoderOptions, Instruction, Mnemonic, OpKind,
    Register,
};
use kasane_spec_x86::flags;

use self::memory::{Place, target};
use crate::case::{Case, PATTERNS, Patch};
use crate::layout::{CODE, CODE_END, DATA, DATA_END, PAGE};
use crate::rng::Rng;

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RSP: usize = 4;
const RBP: usize = 5;
const RSI: usize = 6;
const RDI: usize = 7;

/// Makes cases.
pub struct Generator {
    codes: Vec<(Code, u32)>,
    seed: u64,
}

/// A made case.
pub struct Made {
    /// The case.
    pub case: Case,
    /// Its instruction, as decoded from its bytes.
    pub instr: Instruction,
}

/// Decodes the instruction of a case.
#[must_use]
pub fn decode(case: &Case) -> Instruction {
    let mut decoder = Decoder::with_ip(case.bits, &case.bytes, case.rip, DecoderOptions::NONE);
    decoder.decode()
}

fn full(register: Register) -> Option<usize> {
    register.is_gpr().then(|| register.full_register().number() & 15)
}

impl Generator {
    /// For these opcodes.
    #[must_use]
    pub fn new(codes: Vec<(Code, u32)>, seed: u64) -> Self {
        Self { codes, seed }
    }
    /// The opcodes.
    #[must_use]
    pub fn codes(&self) -> &[(Code, u32)] {
        &self.codes
    }
    /// Case number `n`; `None` if it did not come to anything.
    #[must_use]
    pub fn make(&self, n: u64) -> Option<Made> {
        let mut rng = Rng::new(self.seed, n);
        let (code, bits) = *self.codes.get((n % self.codes.len().max(1) as u64) as usize)?;
        let rip = if rng.chance(3) {
            CODE + PAGE as u64 - rng.below(16)
        } else {
            CODE + 0x200 + rng.below(64)
        };
        let built = (0..8).find_map(|_| {
            let built = operand::build(code, bits, rip, &mut rng)?;
            let bytes = operand::encode(&built.instr, bits, rip)?;
            Some((built, bytes))
        });
        let (built, bytes) = built?;
        let plain = bytes.clone();
        let bytes = match rng.below(100) {
            0..=5 => with_odd_prefixes(&bytes, &mut rng),
            6..=9 => with_a_bit_turned(bytes, &mut rng),
            _ => bytes,
        };
        let mut case = Case { bytes, bits, rip, ..Case::default() };
        let instr = decode(&case);
        let turned = case.bytes.len() == plain.len() && case.bytes != plain;
        if turned && has_fop_of_memory(&instr) && needless_sib(&case, &instr) {
            return None;
        }
        if !acceptable(&instr, &case) {
            return None;
        }
        fill(&mut case, &instr, built.place, &mut rng);
        Some(Made { case, instr })
    }
}

/// Prefixes that do nothing, or that the processor has to refuse.
fn with_odd_prefixes(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    const PREFIXES: [u8; 11] = [0x66, 0x67, 0xF2, 0xF3, 0x2E, 0x3E, 0x26, 0x36, 0x64, 0x65, 0xF0];
    let mut out: Vec<u8> = (0..=rng.below(3)).map(|_| rng.pick(&PREFIXES)).collect();
    out.extend_from_slice(bytes);
    out
}

/// Another instruction, or an unusual encoding of the same: bits that are ignored, a REX prefix
/// too many, longer displacements.
fn with_a_bit_turned(mut bytes: Vec<u8>, rng: &mut Rng) -> Vec<u8> {
    let at = rng.below(bytes.len() as u64) as usize;
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << rng.below(8);
    }
    bytes
}

/// Whether an instruction leaves its ModRM byte in FOP, and that byte names memory.
fn has_fop_of_memory(instr: &Instruction) -> bool {
    let x87 = instr.cpuid_features().iter().any(|feature| {
        matches!(feature, CpuidFeature::FPU | CpuidFeature::FPU287 | CpuidFeature::FPU387)
    });
    x87 && (0..instr.op_count()).any(|n| instr.op_kind(n) == OpKind::Memory)
}

/// Whether an address may be encoded with a SIB byte that it would not need. A known fault of the
/// interpreter, which so is not tested: it makes FOP from the shortest encoding (SDM vol. 1
/// §8.1.9 has the ModRM byte as it was).
fn needless_sib(case: &Case, instr: &Instruction) -> bool {
    operand::encode(instr, case.bits, case.rip).is_none_or(|shortest| shortest != case.bytes)
}

/// Whether an instruction lacks bytes.
fn truncated(case: &Case) -> bool {
    let mut decoder = Decoder::with_ip(case.bits, &case.bytes, case.rip, DecoderOptions::NONE);
    let _ = decoder.decode();
    decoder.last_error() == DecoderError::NoMoreBytes
}

fn acceptable(instr: &Instruction, case: &Case) -> bool {
    if case.bytes.len() > 15 {
        return false;
    }
    if instr.is_invalid() {
        // Only a misplaced LOCK is known to be invalid for every processor. One of which bytes are
        // missing is not: it goes on in what follows.
        return instr.len() == case.bytes.len()
            && !truncated(case)
            && case.bytes.first() == Some(&0xF0)
            && !case.bytes.contains(&0x62);
    }
    if instr.len() != case.bytes.len() || !codes::testable(instr.code(), case.bits) {
        return false;
    }
    let near = matches!(instr.op0_kind(), OpKind::NearBranch64 | OpKind::NearBranch32);
    let target = instr.near_branch_target();
    let into_itself = (case.rip..case.rip + case.code().len() as u64).contains(&target)
        && target != case.landing();
    !(near && into_itself)
}

fn fill(case: &mut Case, instr: &Instruction, place: Option<Place>, rng: &mut Rng) {
    for value in &mut case.gpr {
        *value = rng.corner();
    }
    case.rflags = flags::FIXED | flags::IF | rng.next() & flags::ARITHMETIC;
    if rng.chance(25) {
        case.rflags |= flags::DF;
    }
    if rng.chance(5) {
        case.rflags |= flags::AC;
    }
    if rng.chance(10) {
        case.rflags |= flags::ID;
    }
    case.fs = rng.pick(&[0, 0x1000, 0x10_0000, 0xFFFF_FFFF_FFFF_F000, 0x7F12_3456_7000]);
    case.gs = rng.pick(&[0, 0x40, 0x8_0000, 0xFFFF_FFFF_FFFF_FFC0, 0x1234_5000]);
    for page in &mut case.pages {
        *page = rng.below(PATTERNS as u64) as u8;
    }
    if codes::uses_vectors(instr.code()) {
        case.vectors = Some(vectors::random(instr, rng));
    }
    implied(case, instr, rng);
    if let Some(place) = place {
        solve(case, instr, place, rng);
        patch(case, instr, place, rng);
    }
    correlate(case, instr, place, rng);
    if case.bits == 32 {
        for value in &mut case.gpr {
            *value &= 0xFFFF_FFFF;
        }
    }
}

fn set(case: &mut Case, n: usize, value: u64) {
    if let Some(r) = case.gpr.get_mut(n) {
        *r = value;
    }
}

/// Registers that an instruction uses without naming them.
fn implied(case: &mut Case, instr: &Instruction, rng: &mut Rng) {
    for n in 0..instr.op_count() {
        let (register, short) = match instr.op_kind(n) {
            OpKind::MemorySegRSI => (RSI, false),
            OpKind::MemorySegESI => (RSI, case.bits == 64),
            OpKind::MemoryESRDI | OpKind::MemorySegRDI => (RDI, false),
            OpKind::MemoryESEDI | OpKind::MemorySegEDI => (RDI, case.bits == 64),
            _ => continue,
        };
        let high = if short { rng.next() << 32 } else { 0 };
        let base = if n == 0 { 0 } else { segment_base(case, instr) };
        let value = target(rng).wrapping_sub(base) | high;
        set(case, register, value);
        if rng.chance(85) {
            let high = if short { rng.next() << 32 } else { 0 };
            let count = rng.below(40) | high;
            set(case, RCX, count);
        }
    }
    if instr.is_stack_instruction() {
        let sp = match rng.below(5) {
            0 => target(rng),
            _ => DATA + 0x400 + 8 * rng.below(400),
        };
        set(case, RSP, sp);
        let bp = match rng.below(5) {
            0 => target(rng),
            _ => DATA + 0x600 + 8 * rng.below(400),
        };
        set(case, RBP, bp);
    }
}

fn segment_base(case: &Case, instr: &Instruction) -> u64 {
    match instr.memory_segment() {
        _ if case.bits == 32 => 0,
        Register::FS => case.fs,
        Register::GS => case.gs,
        _ => 0,
    }
}

/// Sets the base register so that the operand is where it shall be.
fn solve(case: &mut Case, instr: &Instruction, place: Place, rng: &mut Rng) {
    let Some(base) = full(place.solved_by) else { return };
    let index = full(instr.memory_index());
    let scale = u64::from(instr.memory_index_scale());
    let mut offset = instr.memory_displacement64();
    if instr.mnemonic() == Mnemonic::Xlatb {
        offset = case.gpr[RAX] & 0xFF;
    } else if let Some(index) = index
        && index != base
    {
        if rng.chance(50) {
            set(case, index, rng.below(64));
        }
        let value = case.gpr.get(index).copied().unwrap_or(0);
        offset = offset.wrapping_add(value.wrapping_mul(scale));
    }
    let mut value = place.at.wrapping_sub(segment_base(case, instr)).wrapping_sub(offset);
    if index == Some(base) {
        value /= scale.wrapping_add(1).max(1);
    }
    if place.solved_by.size() == 2 {
        value = value & 0xFFFF | rng.next() << 16;
    }
    if place.solved_by.size() == 4 {
        value = value & 0xFFFF_FFFF | rng.next() << 32;
    }
    set(case, base, value);
}

fn add_patch(case: &mut Case, at: u64, bytes: &[u8]) {
    let end = at.wrapping_add(bytes.len() as u64);
    if at >= DATA && end <= DATA_END && end >= at {
        case.patches.push(Patch { at, bytes: bytes.to_vec() });
    }
}

/// Puts values worth computing with where the operand is.
fn patch(case: &mut Case, instr: &Instruction, place: Place, rng: &mut Rng) {
    if rng.chance(40) {
        return;
    }
    if case.vectors.is_some() {
        let bytes = vectors::operand(instr, rng);
        add_patch(case, place.at, &bytes);
    } else {
        add_patch(case, place.at, &rng.corner().to_le_bytes());
    }
}

/// Makes unlikely coincidences likely: equal values to compare and exchange, quotients that fit,
/// bits nearby, branches that go somewhere.
fn correlate(case: &mut Case, instr: &Instruction, place: Option<Place>, rng: &mut Rng) {
    let at = place.map_or(0, |place| place.at);
    match instr.mnemonic() {
        Mnemonic::Cmpxchg | Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b if rng.chance(60) => {
            let (low, high) = (case.gpr[RAX], case.gpr[RDX]);
            if instr.op0_kind() == OpKind::Register {
                if let Some(r) = full(instr.op0_register()) {
                    set(case, r, low);
                }
            } else if instr.mnemonic() == Mnemonic::Cmpxchg8b {
                add_patch(case, at, &(low & 0xFFFF_FFFF | high << 32).to_le_bytes());
            } else {
                add_patch(case, at, &low.to_le_bytes());
                add_patch(case, at.wrapping_add(8), &high.to_le_bytes());
            }
        }
        Mnemonic::Div if rng.chance(60) => {
            let small = rng.below(16);
            set(case, RDX, small);
        }
        Mnemonic::Idiv if rng.chance(60) => {
            let sign = (case.gpr[RAX] as i64 >> 63) as u64;
            set(case, RDX, rng.pick(&[sign, 0, u64::MAX]));
        }
        Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
            if place.is_some() && rng.chance(80) =>
        {
            let register = if instr.op1_kind() == OpKind::Register {
                full(instr.op1_register())
            } else {
                None
            };
            let in_address = [full(instr.memory_base()), full(instr.memory_index())];
            if let Some(r) = register
                && !in_address.contains(&Some(r))
            {
                let bit = rng.below(600).wrapping_sub(300);
                set(case, r, bit);
            }
        }
        Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => flags_to_pop(case, rng),
        Mnemonic::Jmp | Mnemonic::Call => indirect(case, instr, at, rng),
        Mnemonic::Ret => {
            let sp = case.gpr[RSP];
            let to = code_target(case, rng);
            add_patch(case, sp, &to.to_le_bytes());
        }
        _ => {}
    }
}

/// Where a branch goes by a register or memory: not into itself, nor into the jump behind it.
fn code_target(case: &Case, rng: &mut Rng) -> u64 {
    let to = match rng.below(12) {
        0 => target(rng),
        1 => rng.corner(),
        2 => case.landing(),
        _ => case.rip.wrapping_add(32 + rng.below(100)),
    };
    let own = case.rip..case.rip + case.code().len() as u64;
    if own.contains(&to) { case.landing() } else { to }
}

/// Flags on the stack, without TF: a trap behind the instruction would be the trampoline's. So
/// the stack is where we can write.
fn flags_to_pop(case: &mut Case, rng: &mut Rng) {
    if (CODE..CODE_END).contains(&case.gpr[RSP].wrapping_add(8)) {
        set(case, RSP, DATA + 0x400);
    }
    let sp = case.gpr[RSP];
    let value = (rng.next() & !flags::TF).to_le_bytes();
    for (n, byte) in value.iter().enumerate() {
        add_patch(case, sp.wrapping_add(n as u64), &[*byte]);
    }
}

fn indirect(case: &mut Case, instr: &Instruction, at: u64, rng: &mut Rng) {
    let to = code_target(case, rng);
    match instr.op0_kind() {
        OpKind::Register => {
            if let Some(r) = full(instr.op0_register()) {
                set(case, r, to);
            }
        }
        OpKind::Memory => add_patch(case, at, &to.to_le_bytes()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_functions_of_seed_and_number() {
        let generator = Generator::new(codes::all(), 7);
        let made: Vec<_> = (0..2000).filter_map(|n| generator.make(n)).collect();
        let again: Vec<_> = (0..2000).filter_map(|n| generator.make(n)).collect();
        assert!(made.len() > 1500, "only {} of 2000", made.len());
        assert!(made.iter().zip(&again).all(|(a, b)| a.case == b.case));
    }

    #[test]
    fn every_opcode_can_be_built() {
        let generator = Generator::new(codes::all(), 11);
        let count = generator.codes().len() as u64;
        let never: Vec<_> = (0..count)
            .filter(|code| (0..60).all(|round| generator.make(code + round * count).is_none()))
            .map(|code| generator.codes()[code as usize])
            .collect::<Vec<_>>();
        assert_eq!(never, []);
    }
}
