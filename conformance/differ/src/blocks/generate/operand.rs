//! Single instructions, with their memory operands where something happens.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

use super::{Maker, RSP};
use crate::generate::operand::{build, encode};
use crate::layout::CODE;

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
            // Which parts of an operand around the end of a segment fault is the processor's choice.
            let masked = matches!(
                code.mnemonic(),
                Mnemonic::Vmaskmovps
                    | Mnemonic::Vmaskmovpd
                    | Mnemonic::Vpmaskmovd
                    | Mnemonic::Vpmaskmovq
            );
            if masked && self.segments.is_some() {
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

    /// An instruction of a register and an immediate.
    pub(super) fn push2(&mut self, code: Code, register: Register, value: u32) {
        if let Ok(instr) = Instruction::with2(code, register, value) {
            self.program.push(instr);
        }
    }
}
