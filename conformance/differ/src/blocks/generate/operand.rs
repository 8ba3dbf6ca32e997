//! Single instructions, with their memory operands where something happens.

use iced_x86::{
    Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpAccess, OpCodeOperandKind, OpKind,
    Register,
};

use super::{Known, Maker, OPEN_DATA, RSP};
use crate::generate::operand::{build, encode};
use crate::layout::{CODE, DATA, DATA_END, OPEN_CODE, PAGE, READ_ONLY};

/// Tries for an instruction that leaves the pointers alone.
const TRIES: usize = 12;

impl Maker<'_> {
    /// One instruction with random operands.
    pub(super) fn plain(&mut self) {
        let roll = self.rng.below(100);
        for _ in 0..TRIES {
            let pool = self.pool;
            let code = if roll < self.mood.x87 {
                pool.x87.pick(&mut self.rng)
            } else if roll < self.mood.x87 + self.mood.vector {
                pool.vector.pick(&mut self.rng)
            } else if self.rng.chance(60) {
                pool.common.pick(&mut self.rng)
            } else {
                pool.integer.pick(&mut self.rng)
            };
            // Most values are no addresses, and what follows has others in mind.
            let moves_segment = matches!(code.mnemonic(), Mnemonic::Wrfsbase | Mnemonic::Wrgsbase);
            if moves_segment && !self.rng.chance(5) {
                continue;
            }
            if let Some(instr) = self.instruction(code) {
                self.helpers(&instr);
                self.emit(instr);
                return;
            }
        }
    }

    /// An instruction of an opcode; `None` if it would write to a reserved register, or can't be
    /// encoded.
    pub(super) fn instruction(&mut self, code: Code) -> Option<Instruction> {
        let built = build(code, self.bits, CODE + 0x800, &mut self.rng)?;
        let mut instr = built.instr;
        if built.place.is_some() {
            self.aim(&mut instr);
        }
        self.tame(&mut instr);
        let forbidden = self.written(&instr) & self.reserved;
        let allowed = if instr.is_stack_instruction() { 1 << RSP } else { 0 };
        if forbidden & !allowed != 0 {
            return None;
        }
        // High bytes and new registers don't go together.
        let encodable = self.encoder.encode(&instr, CODE).is_ok();
        let _ = self.encoder.take_buffer();
        encodable.then_some(instr)
    }

    /// Emits an instruction, sometimes with a prefix that changes nothing.
    fn emit(&mut self, instr: Instruction) {
        const PREFIXES: [u8; 9] = [0x66, 0x67, 0xF2, 0xF3, 0x2E, 0x3E, 0x26, 0x36, 0x40];
        let relative = instr.memory_base() == Register::RIP;
        if !relative && self.rng.chance(3) {
            let prefix = self.rng.pick(&PREFIXES);
            if self.changes_nothing(prefix, &instr) {
                return self.program.push_prefixed(prefix, instr);
            }
        }
        self.program.push(instr);
    }
    fn changes_nothing(&self, prefix: u8, instr: &Instruction) -> bool {
        let at = CODE + 0x800;
        let Some(plain) = encode(instr, self.bits, at) else { return false };
        let bytes = [&[prefix], &*plain].concat();
        let decode =
            |bytes: &[u8]| Decoder::with_ip(self.bits, bytes, at, DecoderOptions::NONE).decode();
        let (mut before, mut after) = (decode(&plain), decode(&bytes));
        if after.is_invalid() || after.len() != bytes.len() || bytes.len() > 15 {
            return false;
        }
        for it in [&mut before, &mut after] {
            it.set_len(0);
            it.set_next_ip(0);
            it.set_segment_prefix(match it.segment_prefix() {
                segment @ (Register::FS | Register::GS) => segment,
                _ => Register::None,
            });
            it.set_has_rep_prefix(false);
            it.set_has_repne_prefix(false);
        }
        before.eq_all_bits(&after) && !instr.is_string_instruction() && !instr.has_lock_prefix()
    }

    /// Keeps operands that would nearly always be wrong from being so.
    fn tame(&mut self, instr: &mut Instruction) {
        let bit_test = matches!(
            instr.mnemonic(),
            Mnemonic::Bt | Mnemonic::Btc | Mnemonic::Btr | Mnemonic::Bts
        );
        if bit_test && instr.op0_kind() == OpKind::Memory && instr.op1_kind() == OpKind::Register {
            let known = self.small.map_or(0, |known| known.number);
            let wide = instr.op1_register();
            let same = match (self.small, wide) {
                (Some(_), register) if register.is_gpr64() => Register::RAX + known,
                (Some(_), register) if register.is_gpr32() => Register::EAX + known,
                (Some(_), _) => Register::AX + known,
                (None, _) => return,
            };
            instr.set_op1_register(same);
        }
        if instr.mnemonic() == Mnemonic::Enter {
            // One with levels reads what it has written, so that it is another after a fault.
            instr.set_immediate8_2nd(self.rng.below(2) as u8);
        }
    }

    /// What comes before some instructions, so that they do not always go the same way.
    fn helpers(&mut self, instr: &Instruction) {
        let free = |n: u32, maker: &Self| !maker.is_reserved(n);
        match instr.mnemonic() {
            Mnemonic::Div if free(2, self) && self.rng.chance(75) => {
                self.push2(Code::Mov_r32_imm32, Register::EDX, 0);
            }
            Mnemonic::Idiv if free(2, self) && self.rng.chance(75) => {
                let code = if self.bits == 64 { Code::Cqo } else { Code::Cdq };
                self.program.push(Instruction::with(code));
            }
            Mnemonic::Cmpxchg | Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b
                if instr.op0_kind() == OpKind::Memory && free(0, self) && free(2, self) =>
            {
                self.expected(instr);
            }
            _ => {}
        }
    }

    /// Loads what the memory operand of a compare-and-exchange holds.
    fn expected(&mut self, instr: &Instruction) {
        let based_on_them = [instr.memory_base(), instr.memory_index()]
            .iter()
            .any(|register| matches!(register.full_register(), Register::RAX | Register::RDX));
        if based_on_them || self.rng.chance(40) {
            return;
        }
        let wide = instr.memory_size().size() >= 8 && self.bits == 64;
        let pair = instr.mnemonic() != Mnemonic::Cmpxchg;
        let (code, low, high) = if wide && instr.mnemonic() != Mnemonic::Cmpxchg8b {
            (Code::Mov_r64_rm64, Register::RAX, Register::RDX)
        } else {
            (Code::Mov_r32_rm32, Register::EAX, Register::EDX)
        };
        let mut load = *instr;
        load.set_has_lock_prefix(false);
        load.set_has_xacquire_prefix(false);
        load.set_has_xrelease_prefix(false);
        load.set_code(code);
        load.set_op0_kind(OpKind::Register);
        load.set_op0_register(low);
        load.set_op1_kind(OpKind::Memory);
        self.program.push(load);
        let step = low.size() as u64;
        let displacement = load.memory_displacement64().wrapping_add(step);
        if pair && instr.memory_displ_size() >= self.bits / 8 {
            load.set_op0_register(high);
            load.set_memory_displacement64(displacement);
            self.program.push(load);
        }
    }

    // --- memory ------------------------------------------------------------------------------

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

    /// An address of the data in one of the forms of the mode.
    pub(super) fn aim_at(&mut self, instr: &mut Instruction, at: u64) {
        instr.set_memory_base(Register::None);
        instr.set_memory_index(Register::None);
        instr.set_memory_index_scale(1);
        instr.set_segment_prefix(Register::None);
        instr.set_memory_displ_size(self.bits / 8);
        let absolute = instr.code().op_code().op_kinds().contains(&OpCodeOperandKind::mem_offs);
        if absolute {
            return instr.set_memory_displacement64(at);
        }
        match self.rng.below(100) {
            0..=7 if self.bits == 64 => {
                instr.set_memory_base(Register::RIP);
                instr.set_memory_displacement64(at);
            }
            8..=13 => instr.set_memory_displacement64(at),
            14..=18 if self.bits == 64 => self.through_segment(instr, at),
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

    fn through_segment(&mut self, instr: &mut Instruction, at: u64) {
        let which = self.rng.below(2) as usize;
        let segment = if which == 0 { Register::FS } else { Register::GS };
        let base = self.bases.get(which).copied().unwrap_or(0);
        instr.set_segment_prefix(segment);
        let at = at.wrapping_sub(base);
        if i64::from(at as i32) as u64 == at && self.rng.chance(30) {
            return instr.set_memory_displacement64(at);
        }
        self.based(instr, at, self.word(0));
    }

    /// By a pointer, and maybe the small number.
    fn based(&mut self, instr: &mut Instruction, at: u64, first: Register) {
        let pointer = self.rng.below(self.pointers.len() as u64) as usize;
        let Some(Known { number, value }) = self.pointers.get(pointer).copied() else { return };
        instr.set_memory_base(first + number);
        let mut rest = at.wrapping_sub(value);
        if let Some(small) = self.small
            && self.rng.chance(40)
        {
            let scale = 1u32 << self.rng.below(4);
            instr.set_memory_index(first + small.number);
            instr.set_memory_index_scale(scale);
            rest = rest.wrapping_sub(small.value.wrapping_mul(u64::from(scale)));
        }
        if i64::from(rest as i32) as u64 != rest {
            rest = self.rng.below(48); // a wild pointer
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

    /// An instruction of a register and an immediate.
    pub(super) fn push2(&mut self, code: Code, register: Register, value: u32) {
        if let Ok(instr) = Instruction::with2(code, register, value) {
            self.program.push(instr);
        }
    }
}
