//! Memory operands: places where something happens, and the forms of their addresses.

use iced_x86::{Instruction, OpAccess, OpCodeOperandKind, Register};

use super::{Known, Maker, OPEN_DATA};
use crate::layout::{CODE, DATA, DATA_END, OPEN_CODE, PAGE, READ_ONLY};
use crate::segments;

impl Maker<'_> {
    /// Where an operand is to be.
    fn somewhere(&mut self, size: u64, writes: bool) -> u64 {
        let page = PAGE as u64;
        if self.rng.chance(self.mood.bad) {
            return match self.rng.below(6) {
                0 => DATA.wrapping_sub(1 + self.rng.below(size)),
                1 => DATA_END - self.rng.below(size),
                2 => READ_ONLY - self.rng.below(size),
                3 => READ_ONLY + self.rng.below(64),
                4 => CODE + self.rng.below(2 * page),
                _ => DATA_END + self.rng.below(page),
            };
        }
        let at = match self.rng.below(100) {
            0..=39 => DATA + 0x800 + self.rng.below(96),
            70..=84 => return DATA + page - 1 - self.rng.below(size.max(2) - 1),
            85..=91 if !writes => READ_ONLY + self.rng.below(page - 64),
            92.. if self.mood.open => OPEN_CODE + self.rng.below(OPEN_DATA - 64),
            _ => DATA + self.rng.below(0x1B00),
        };
        if size >= 16 && self.rng.chance(97) { at & !(size.min(32) - 1) } else { at }
    }

    /// Gives an instruction's memory operand an address.
    pub(super) fn aim(&mut self, instr: &mut Instruction) {
        let size = (instr.memory_size().size() as u64).clamp(1, 128);
        let writes = self.writes_memory(instr);
        let at = self.somewhere(size, writes);
        self.aim_at(instr, at);
    }
    fn writes_memory(&mut self, instr: &Instruction) -> bool {
        let accesses = self.factory.info(instr);
        accesses.used_memory().iter().any(|used| {
            !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess)
        })
    }

    // --- segments ----------------------------------------------------------------------------

    /// The base of the segment that a prefix names, or that goes without one.
    pub(super) fn segment_base(&self, segment: Register) -> u64 {
        let selector = |n: usize| self.segments.and_then(|all| all.get(n).copied()).unwrap_or(0);
        match segment {
            Register::FS if self.bits == 64 => self.bases.first().copied().unwrap_or(0),
            Register::GS if self.bits == 64 => self.bases.last().copied().unwrap_or(0),
            _ if self.bits == 64 => 0,
            Register::ES => segments::base(selector(1)),
            Register::FS => segments::base(selector(2)),
            Register::GS => segments::base(selector(3)),
            Register::SS | Register::CS => 0,
            _ => segments::base(selector(0)),
        }
    }
    /// The base for an operand with this base register.
    fn base_of(&self, instr: &Instruction, base: Register) -> u64 {
        let by_stack = matches!(base.full_register(), Register::RSP | Register::RBP);
        match instr.segment_prefix() {
            Register::None if by_stack => self.segment_base(Register::SS),
            Register::None => self.segment_base(Register::DS),
            segment => self.segment_base(segment),
        }
    }
    fn choose_segment(&mut self, instr: &mut Instruction) {
        const FLAT: [Register; 4] = [Register::ES, Register::SS, Register::DS, Register::CS];
        const LOCAL: [Register; 4] = [Register::ES, Register::FS, Register::GS, Register::DS];
        let segment = match self.rng.below(100) {
            0..=4 if self.bits == 64 => self.rng.pick(&[Register::FS, Register::GS]),
            0..=34 if self.segments.is_some() => self.rng.pick(&LOCAL),
            35..=37 => self.rng.pick(&FLAT),
            _ => Register::None,
        };
        instr.set_segment_prefix(segment);
    }

    // --- forms -------------------------------------------------------------------------------

    /// A linear address in one of the forms of the mode.
    pub(super) fn aim_at(&mut self, instr: &mut Instruction, at: u64) {
        instr.set_memory_base(Register::None);
        instr.set_memory_index(Register::None);
        instr.set_memory_index_scale(1);
        instr.set_memory_displ_size(self.bits / 8);
        self.choose_segment(instr);
        let absolute = instr.code().op_code().op_kinds().contains(&OpCodeOperandKind::mem_offs);
        if absolute {
            return self.absolute(instr, at);
        }
        match self.rng.below(100) {
            0..=7 if self.bits == 64 => {
                instr.set_segment_prefix(Register::None);
                instr.set_memory_base(Register::RIP);
                instr.set_memory_displacement64(at);
            }
            8..=13 => self.absolute(instr, at),
            14..=18 if self.bits == 32 => self.short(instr, at),
            19..=20 if self.mood.bad > 0 && !self.mood.open => {
                // Whatever is in a register, which may be an address of the code.
                let number = self.rng.below(u64::from(self.registers())) as u32;
                instr.set_memory_base(self.word(number));
                self.displace(instr, 0);
            }
            21..=25 if self.bits == 64 => self.based(instr, at, Register::EAX),
            _ => self.based(instr, at, self.word(0)),
        }
    }

    /// By its displacement alone, if that can be.
    fn absolute(&mut self, instr: &mut Instruction, at: u64) {
        let offset = at.wrapping_sub(self.base_of(instr, Register::None));
        if self.bits == 64 && i64::from(offset as i32) as u64 != offset {
            return self.based(instr, at, self.word(0));
        }
        instr.set_memory_displacement64(offset & self.address_mask());
    }

    /// In one of the 16-bit forms, which reach something by a segment with a base.
    fn short(&mut self, instr: &mut Instruction, at: u64) {
        if self.mood.bad > 0 && self.rng.chance(40) {
            return self.short_anywhere(instr);
        }
        let small = self.small.and_then(|Known { number, value }| match number {
            3 => Some((Register::BX, value)),
            6 => Some((Register::SI, value)),
            7 => Some((Register::DI, value)),
            _ => None,
        });
        let (base, value) = small.unwrap_or((Register::None, 0));
        let offset = at.wrapping_sub(self.base_of(instr, base)) & 0xFFFF_FFFF;
        if offset > 0xFFFF {
            return self.based(instr, at, self.word(0));
        }
        instr.set_memory_base(base);
        instr.set_memory_displ_size(2);
        instr.set_memory_displacement64(offset.wrapping_sub(value) & 0xFFFF);
    }

    /// By whatever is in registers: where that leads, also around the end, the fault tells.
    fn short_anywhere(&mut self, instr: &mut Instruction) {
        let bases = [Register::BX, Register::BP, Register::SI, Register::DI];
        let base = self.rng.pick(&bases);
        instr.set_memory_base(base);
        if matches!(base, Register::BX | Register::BP) && self.rng.chance(60) {
            instr.set_memory_index(self.rng.pick(&[Register::SI, Register::DI]));
        }
        instr.set_memory_displ_size(2);
        instr.set_memory_displacement64(self.rng.next() & 0xFFFF);
    }

    /// By a pointer, and maybe the small number.
    fn based(&mut self, instr: &mut Instruction, at: u64, first: Register) {
        let pointer = self.rng.below(self.pointers.len() as u64) as usize;
        let Some(Known { number, value }) = self.pointers.get(pointer).copied() else { return };
        let base = first + number;
        instr.set_memory_base(base);
        let mut rest = at.wrapping_sub(self.base_of(instr, base)).wrapping_sub(value);
        if let Some(small) = self.small
            && self.rng.chance(40)
        {
            let scale = 1u32 << self.rng.below(4);
            instr.set_memory_index(first + small.number);
            instr.set_memory_index_scale(scale);
            rest = rest.wrapping_sub(small.value.wrapping_mul(u64::from(scale)));
        }
        if self.bits == 32 {
            rest = i64::from(rest as i32) as u64;
        } else if i64::from(rest as i32) as u64 != rest {
            rest = self.rng.below(48); // a wild pointer, or a segment far away
        }
        self.displace(instr, rest);
    }
    fn displace(&self, instr: &mut Instruction, value: u64) {
        let wide = instr.memory_base().is_gpr64();
        let small = i64::from(value as i8) as u64 == value;
        instr.set_memory_displ_size(match value {
            0 => 0,
            _ if small => 1,
            _ if wide => 8,
            _ => 4,
        });
        let mask = if wide { u64::MAX } else { 0xFFFF_FFFF };
        instr.set_memory_displacement64(value & mask);
    }
}
