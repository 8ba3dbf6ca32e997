//! Makes blocks. A block is a function of a seed and a number.
//!
//! Some registers are pointers with known values, so that operands lie where something happens:
//! where they overlap, across pages, in memory that may only be read, in the code. No instruction
//! writes to those but by intent. Every loop counts down in a register of its own.

mod address;
mod calls;
mod odd;
mod operand;
mod pool;
mod program;
mod shapes;
mod stack;

use iced_x86::{Encoder, Instruction, InstructionInfoFactory, Register};
use kasane_spec_x86::flags;

use self::pool::Pool;
use self::program::{Label, Program};
use super::Block;
use super::disturb::Plan;
use crate::case::{Case, PATTERNS, Patch};
use crate::generate::vectors::{self, Parts};
use crate::layout::{CODE, CODE_PAGES, DATA, OPEN_CODE, OPEN_PAGES, PAGE, USER_DS};
use crate::rng::Rng;
use crate::segments::{LOCALS, selector};

const RSP: u32 = 4;
/// So many bytes before the code that may be written are data: a store into an instruction at hand
/// could make any instruction of it, also one that the operating system answers.
const OPEN_DATA: u64 = 0x400;

/// Makes blocks.
pub struct Generator {
    long: Pool,
    short: Pool,
    seed: u64,
    bits: Option<u32>,
}

/// What a block is like as a whole.
struct Mood {
    /// Of 100 memory operands, how many are where they should not be.
    bad: u64,
    /// Of 100 instructions, how many are of SSE or AVX.
    vector: u64,
    /// Of 100 instructions, how many are of x87 or MMX.
    x87: u64,
    /// Its code may be written, and is.
    open: bool,
    /// Of 100 pieces, how many are more than one instruction.
    shapes: u64,
}

impl Mood {
    fn new(rng: &mut Rng) -> Self {
        Self {
            bad: rng.pick(&[0, 0, 0, 1, 4]),
            vector: rng.pick(&[0, 0, 15, 15, 60]),
            x87: rng.pick(&[0, 0, 0, 0, 0, 0, 0, 30]),
            open: rng.chance(12),
            shapes: rng.pick(&[10, 25, 25, 50]),
        }
    }
}

/// A register with a value that is known all the time.
#[derive(Clone, Copy, Debug)]
struct Known {
    number: u32,
    value: u64,
}

/// A block under construction.
struct Maker<'a> {
    rng: Rng,
    bits: u32,
    pool: &'a Pool,
    mood: Mood,
    program: Program,
    factory: InstructionInfoFactory,
    encoder: Encoder,
    pointers: Vec<Known>,
    /// A small number.
    small: Option<Known>,
    /// Bit n: register n is not written.
    reserved: u32,
    /// Bases of FS and GS.
    bases: [u64; 2],
    /// Selectors of DS, ES, FS and GS in 32-bit code, if they are not the usual ones.
    segments: Option<[u16; 4]>,
    /// Labels ahead, and behind how many pieces they come.
    pending: Vec<(u64, Label)>,
    /// Subprograms that are called and not made yet.
    subs: Vec<Label>,
    /// Subprograms that may be called again.
    known_subs: Vec<Label>,
    /// Instructions to be made.
    budget: usize,
}

impl Generator {
    /// For both kinds of code, or one.
    #[must_use]
    pub fn new(seed: u64, bits: Option<u32>) -> Self {
        Self { long: Pool::new(64), short: Pool::new(32), seed, bits }
    }

    /// Block number `n`; `None` if it did not come to anything.
    #[must_use]
    pub fn make(&self, n: u64) -> Option<Block> {
        let mut rng = Rng::new(self.seed, n);
        let bits = self.bits.unwrap_or_else(|| if rng.chance(75) { 64 } else { 32 });
        let pool = if bits == 64 { &self.long } else { &self.short };
        let mood = Mood::new(&mut rng);
        let budget = 2 + rng.below(39) as usize;
        let mut maker = Maker {
            rng,
            bits,
            pool,
            mood,
            program: Program::new(bits),
            factory: InstructionInfoFactory::new(),
            encoder: Encoder::new(bits),
            pointers: Vec::new(),
            small: None,
            reserved: 1 << RSP,
            bases: [0; 2],
            segments: None,
            pending: Vec::new(),
            subs: Vec::new(),
            known_subs: Vec::new(),
            budget,
        };
        maker.choose_registers();
        maker.choose_segments();
        maker.whole();
        maker.finish()
    }
}

impl Maker<'_> {
    /// How many general registers there are.
    fn registers(&self) -> u32 {
        if self.bits == 64 { 16 } else { 8 }
    }
    /// A register of the size of an address.
    fn word(&self, number: u32) -> Register {
        if self.bits == 64 { Register::RAX + number } else { Register::EAX + number }
    }
    fn is_reserved(&self, number: u32) -> bool {
        self.reserved >> number & 1 != 0
    }
    /// A register that may be written.
    fn free(&mut self) -> Option<u32> {
        let (count, reserved) = (u64::from(self.registers()), self.reserved);
        (0..20).map(|_| self.rng.below(count) as u32).find(|n| reserved >> n & 1 == 0)
    }

    fn choose_registers(&mut self) {
        let most = if self.bits == 64 { 3 } else { 1 };
        for _ in 0..=self.rng.below(most) {
            let Some(number) = self.free() else { continue };
            let value = self.pointer();
            self.pointers.push(Known { number, value });
            self.reserved |= 1 << number;
        }
        if self.rng.chance(50)
            && let Some(number) = self.free()
        {
            let value = self.rng.below(40);
            self.small = Some(Known { number, value });
            self.reserved |= 1 << number;
        }
        let value = self.stack();
        self.pointers.push(Known { number: RSP, value });
        self.bases = [
            self.rng.pick(&[0, 0x1000, 0x10_0000, 0xFFFF_FFFF_FFFF_F000, 0x7F12_3456_7000]),
            self.rng.pick(&[0, 0x40, 0x8_0000, 0xFFFF_FFFF_FFFF_FFC0, 0x1234_5000]),
        ];
    }

    fn choose_segments(&mut self) {
        // Code that changes itself does so by flat addresses.
        if self.bits != 32 || self.mood.open || self.rng.chance(60) {
            return;
        }
        let wide = [USER_DS, USER_DS, selector(3), selector(4), selector(5)];
        let data = self.rng.pick(&wide);
        let mut other = || match self.rng.below(10) {
            0 => 0,
            1 | 2 => USER_DS,
            _ => selector(self.rng.below(LOCALS as u64) as usize),
        };
        self.segments = Some([data, other(), other(), other()]);
    }

    /// The value of a pointer: to data, seldom to nothing.
    fn pointer(&mut self) -> u64 {
        if self.mood.bad > 0 && self.rng.chance(6) {
            let wild = [
                0x0000_7FFF_FFFF_FFE0,
                0xFFFF_8000_0000_0000,
                0x0000_8000_0000_0000,
                0xFFFF_FFFF_FFFF_FFF0,
                0,
            ];
            return self.rng.pick(&wild) & self.address_mask();
        }
        match self.rng.below(4) {
            0 => DATA + 0x800,
            1 => DATA + PAGE as u64 - self.rng.below(24),
            2 => DATA + 16 * self.rng.below(0x1C0),
            _ => DATA + self.rng.below(0x1E00),
        }
    }
    fn address_mask(&self) -> u64 {
        if self.bits == 64 { u64::MAX } else { 0xFFFF_FFFF }
    }

    fn stack(&mut self) -> u64 {
        let room = DATA + 0x1C00;
        match self.rng.below(40) {
            0..=26 => room + 8 * self.rng.below(60),
            27..=29 => room + self.rng.below(400),
            // Across the end of a page.
            30..=35 => DATA + PAGE as u64 + self.rng.below(40),
            36 => DATA + self.rng.below(64),
            37 => DATA + 2 * PAGE as u64 + self.rng.below(32),
            _ => DATA + 0x800 + self.rng.below(64),
        }
    }

    /// The finished block: bytes, registers, memory.
    fn finish(mut self) -> Option<Block> {
        if !self.program.define_flags(&mut self.rng) {
            return None;
        }
        let open = self.mood.open;
        let mut rip = 0;
        let assembled = self.program.assemble(&mut self.encoder, &mut self.rng, |len, rng| {
            rip = place(len, open, rng);
            rip
        })?;
        let mut case = Case { bytes: assembled.bytes, bits: self.bits, rip, ..Case::default() };
        if case.bytes.len() > PAGE / 2 {
            return None;
        }
        self.fill(&mut case);
        let pointer = if self.bits == 64 { 8 } else { 4 };
        for (at, target) in assembled.cells {
            let bytes = target.to_le_bytes().get(..pointer)?.to_vec();
            case.patches.push(Patch { at, bytes });
        }
        let plan = Plan::new(&mut self.rng);
        Some(Block { case, starts: assembled.starts, taken: assembled.taken, plan })
    }

    fn fill(&mut self, case: &mut Case) {
        let rng = &mut self.rng;
        for value in &mut case.gpr {
            *value = rng.corner();
        }
        let known = self.pointers.iter().chain(&self.small);
        for Known { number, value } in known {
            if let Some(place) = case.gpr.get_mut(*number as usize) {
                *place = *value;
            }
        }
        if case.bits == 32 {
            case.gpr.iter_mut().for_each(|value| *value &= 0xFFFF_FFFF);
        }
        case.rflags = flags::FIXED | flags::IF | rng.next() & flags::ARITHMETIC;
        for (flag, percent) in [(flags::DF, 12), (flags::AC, 1), (flags::ID, 10)] {
            if rng.chance(percent) {
                case.rflags |= flag;
            }
        }
        [case.fs, case.gs] = self.bases;
        case.segments = self.segments;
        for page in &mut case.pages {
            *page = rng.below(PATTERNS as u64) as u8;
        }
        let parts = if self.mood.x87 > 0 { Parts::All } else { Parts::Vectors };
        case.vectors = Some(vectors::any(parts, rng));
        if rng.chance(70)
            && let Some(vectors) = &mut case.vectors
        {
            vectors.put(24, &0x1F80u32.to_le_bytes());
        }
    }

    /// Registers that an instruction writes, as bits.
    fn written(&mut self, instr: &Instruction) -> u32 {
        use iced_x86::OpAccess::{CondWrite, ReadCondWrite, ReadWrite, Write};
        self.factory
            .info(instr)
            .used_registers()
            .iter()
            .filter(|used| {
                used.register().is_gpr()
                    && matches!(used.access(), Write | ReadWrite | CondWrite | ReadCondWrite)
            })
            .fold(0, |all, used| all | 1 << (used.register().full_register().number() & 15))
    }
}

/// Where code of a length stands: sometimes across the end of a page.
fn place(len: u64, open: bool, rng: &mut Rng) -> u64 {
    let (start, pages, first) =
        if open { (OPEN_CODE, OPEN_PAGES, OPEN_DATA) } else { (CODE, CODE_PAGES, 0) };
    let last = ((pages * PAGE) as u64).saturating_sub(len);
    let offset = match rng.below(5) {
        0 => PAGE as u64 - rng.below(len.clamp(1, PAGE as u64)),
        1 => first + rng.below(last - first),
        _ => first + 16 * rng.below((last - first) / 16),
    };
    start + offset.clamp(first, last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::flow;

    #[test]
    fn blocks_are_functions_of_seed_and_number() {
        let generator = Generator::new(7, None);
        let made: Vec<_> = (0..500).filter_map(|n| generator.make(n)).collect();
        let again: Vec<_> = (0..500).filter_map(|n| generator.make(n)).collect();
        assert!(made.len() > 450, "only {} of 500", made.len());
        assert!(made == again);
    }

    #[test]
    fn no_instruction_of_a_block_reads_an_undefined_flag() {
        let generator = Generator::new(9, None);
        let made = (0..500).filter_map(|n| generator.make(n));
        assert_eq!(made.filter(|block| flow::of(block).is_err()).count(), 0);
    }

    #[test]
    fn every_instruction_of_a_block_is_as_long_as_its_bytes() {
        let generator = Generator::new(11, None);
        for block in (0..500).filter_map(|n| generator.make(n)) {
            let lens: Vec<_> = block.instructions().map(|instr| instr.len()).collect();
            let ranges: Vec<_> = (0..lens.len()).map(|n| block.range(n).len()).collect();
            assert_eq!(lens, ranges);
        }
    }
}
