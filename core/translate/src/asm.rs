//! A small assembler for the fixed sequences that surround a guest instruction. It exists because
//! a general encoder takes as long for each of their instructions as the whole translation of a
//! guest instruction may take.

use alloc::vec::Vec;

use crate::layout::RSP_AT;
use crate::sites::{OP, Packed};

/// Host register numbers, as ModRM has them (SDM vol. 2A §2.1.5, with REX §2.2.1).
pub(crate) mod reg {
    pub(crate) const RAX: u8 = 0;
    pub(crate) const RSP: u8 = 4;
    pub(crate) const R9: u8 = 9;
    pub(crate) const R10: u8 = 10;
    pub(crate) const R11: u8 = 11;
    pub(crate) const R15: u8 = 15;
}

/// A memory operand: base, index with log2 of its scale, displacement. In two words, so that it
/// stays in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mem {
    /// From the lowest byte on: base, or [`NO_BASE`]; index, or the number of RSP, as in SIB; the
    /// scale.
    parts: u32,
    disp: i32,
}

/// Its lower bits are what stands for it in SIB.
const NO_BASE: u8 = 0x10 | 5;

impl Mem {
    #[inline]
    pub(crate) fn new(base: Option<u8>, index: Option<(u8, u8)>, disp: i32) -> Self {
        let (index, shift) = index.unwrap_or((reg::RSP, 0));
        let base = base.unwrap_or(NO_BASE);
        let parts = u32::from(base) | u32::from(index) << 8 | u32::from(shift) << 16;
        Self { parts, disp }
    }
    #[inline]
    pub(crate) fn base(base: u8, disp: i32) -> Self {
        Self::new(Some(base), None, disp)
    }
    /// A field of the state block, by its offset there.
    #[inline]
    pub(crate) fn state(offset: usize) -> Self {
        Self::state_by(reg::RSP, offset)
    }
    /// The same by another register that holds what RSP holds in translated code.
    #[inline]
    pub(crate) fn state_by(base: u8, offset: usize) -> Self {
        Self::base(base, (offset as i32).wrapping_sub(RSP_AT as i32))
    }
    /// A table in the state block, at an offset in a register.
    #[inline]
    pub(crate) fn indexed(offset: usize, index: u8) -> Self {
        let disp = Self::state(offset).disp;
        Self::new(Some(reg::RSP), Some((index, 0)), disp)
    }
    /// So many bytes further on.
    pub(crate) fn moved(self, by: i32) -> Self {
        Self { disp: self.disp.wrapping_add(by), ..self }
    }
    #[inline]
    pub(crate) fn has_base(self) -> bool {
        self.parts as u8 != NO_BASE
    }
    /// The base's number; of none what stands for it.
    #[inline]
    pub(crate) fn base_number(self) -> u8 {
        self.parts as u8 & 15
    }
    /// The index's number; RSP's if there is none.
    #[inline]
    pub(crate) fn index_number(self) -> u8 {
        (self.parts >> 8) as u8
    }
    /// Log2 of the scale.
    #[inline]
    pub(crate) fn shift(self) -> u8 {
        (self.parts >> 16) as u8
    }
}

/// Conditions of Jcc (SDM vol. 2A appendix B.1.4.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Equal = 4,
    NotEqual = 5,
    Above = 7,
    BelowOrEqual = 6,
    Sign = 8,
    Greater = 15,
}

/// A jump whose target is not known yet: the offset of its 32-bit displacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Jump(pub(crate) usize);

/// The bytes of an instruction up to its displacement: at most 8, the first one lowest. In one
/// register, because bytes that are stored one by one and loaded together stall the processor.
#[derive(Clone, Copy, Default)]
pub(crate) struct Piece {
    bytes: u64,
    len: u32,
}

impl Piece {
    #[inline]
    pub(crate) fn len(self) -> u32 {
        self.len
    }
    #[inline]
    pub(crate) fn byte(&mut self, byte: u8) {
        self.bytes |= u64::from(byte).wrapping_shl(self.len.wrapping_mul(8));
        self.len = self.len.wrapping_add(1);
    }
    /// Adds a byte if it `is_there`. Without a branch: which bytes an instruction has can't be
    /// foreseen, and a branch that goes wrong takes longer than all the rest.
    #[inline]
    pub(crate) fn byte_if(&mut self, byte: u8, is_there: bool) {
        let all = u64::from(is_there).wrapping_neg();
        self.bytes |= (u64::from(byte) & all).wrapping_shl(self.len.wrapping_mul(8));
        self.len = self.len.wrapping_add(u32::from(is_there));
    }
    /// Adds the lowest `len` bytes; the others are 0.
    #[inline]
    pub(crate) fn append(&mut self, bytes: u32, len: u32) {
        self.bytes |= u64::from(bytes).wrapping_shl(self.len.wrapping_mul(8));
        self.len = self.len.wrapping_add(len);
    }
    /// ModRM and SIB; gives the displacement and its length.
    #[inline]
    pub(crate) fn mod_rm(&mut self, register: u8, mem: Mem) -> (i32, usize) {
        let reg = (register & 7) << 3;
        let (low, index) = (mem.base_number() & 7, mem.index_number());
        let sib = mem.shift() << 6 | (index & 7) << 3 | low;
        if !mem.has_base() {
            self.byte(0x04 | reg);
            self.byte(sib);
            return (mem.disp, 4);
        }
        let (is_long, is_there) = (i8::try_from(mem.disp).is_err(), mem.disp != 0 || low == 5);
        let mode = u8::from(is_there) << (6 + u8::from(is_long));
        let len = usize::from(is_there) << (2 * u8::from(is_long));
        let has_sib = (index != self::reg::RSP) | (low == 4);
        self.byte(mode | reg | if has_sib { 4 } else { low });
        self.byte_if(sib, has_sib);
        (mem.disp, len)
    }
}

/// Code in the making.
#[derive(Default)]
pub(crate) struct Asm {
    pub(crate) code: Vec<u8>,
}

impl Asm {
    #[inline]
    pub(crate) fn here(&self) -> usize {
        self.code.len()
    }
    #[inline]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.code.extend_from_slice(bytes);
    }
    #[inline]
    fn byte(&mut self, byte: u8) {
        self.code.push(byte);
    }
    /// The first `len` of these bytes: a copy whose length is known is much quicker.
    #[inline]
    pub(crate) fn sequence<const N: usize>(&mut self, bytes: &[u8; N], len: usize) {
        let end = self.code.len().wrapping_add(len);
        self.code.extend_from_slice(bytes);
        self.code.truncate(end);
    }
    /// `CALL` with its displacement, and a site behind it.
    pub(crate) fn call_with_site(&mut self, displacement: u32, packed: &Packed) {
        let call = u64::from(displacement) << 8 | 0xE8;
        self.sequence(&call.to_le_bytes(), 5);
        self.site(packed);
    }
    /// With zeros for the address of an instruction.
    pub(crate) fn site(&mut self, packed: &Packed) {
        self.sequence(&packed.low.to_le_bytes(), packed.len.min(8));
        if packed.len > 8 {
            self.sequence(&packed.high.to_le_bytes(), packed.len.wrapping_sub(8));
        }
        if packed.has_op {
            self.bytes(&[0; OP]);
        }
    }
    fn imm32(&mut self, value: i32) {
        self.bytes(&value.to_le_bytes());
    }

    /// An instruction with a register and a memory operand.
    #[inline]
    pub(crate) fn op_mem(&mut self, wide: bool, opcode: &[u8], register: u8, mem: Mem) {
        let (bytes, len) = opcode
            .iter()
            .rev()
            .fold((0, 0), |(bytes, len), byte| (bytes << 8 | u64::from(*byte), len + 1));
        self.with_mem(wide, Piece { bytes, len }, register, mem);
    }
    fn with_mem(&mut self, wide: bool, opcode: Piece, register: u8, mem: Mem) {
        let (index, base) = (mem.index_number(), mem.base_number());
        let rex = u8::from(wide) << 3 | (register >> 3) << 2 | (index >> 3) << 1 | base >> 3;
        let mut piece = Piece::default();
        piece.byte_if(0x40 | rex, rex != 0);
        piece.bytes |= opcode.bytes.wrapping_shl(piece.len.wrapping_mul(8));
        piece.len = piece.len.wrapping_add(opcode.len);
        let (disp, len) = piece.mod_rm(register, mem);
        self.piece(piece);
        self.sequence(&disp.to_le_bytes(), len);
    }
    #[inline]
    pub(crate) fn piece(&mut self, piece: Piece) {
        self.sequence(&piece.bytes.to_le_bytes(), piece.len as usize);
    }

    /// An instruction with two registers, `rm` the one of the ModRM byte's last field.
    #[inline]
    pub(crate) fn op_reg(&mut self, wide: bool, opcode: &[u8], register: u8, rm: u8) {
        let rex = u8::from(wide) << 3 | (register >> 3) << 2 | rm >> 3;
        let mut piece = Piece::default();
        piece.byte_if(0x40 | rex, rex != 0);
        opcode.iter().for_each(|byte| piece.byte(*byte));
        piece.byte(0xC0 | (register & 7) << 3 | rm & 7);
        self.piece(piece);
    }

    #[inline]
    pub(crate) fn load(&mut self, register: u8, mem: Mem) {
        self.op_mem(true, &[0x8B], register, mem);
    }
    #[inline]
    pub(crate) fn store(&mut self, mem: Mem, register: u8) {
        self.op_mem(true, &[0x89], register, mem);
    }
    #[inline]
    pub(crate) fn lea(&mut self, wide: bool, register: u8, mem: Mem) {
        self.op_mem(wide, &[0x8D], register, mem);
    }
    #[inline]
    pub(crate) fn mov(&mut self, to: u8, from: u8) {
        self.op_reg(true, &[0x89], from, to);
    }

    // --- operands of a size that is not known here ---------------------------------------------------------------------

    /// The operand-size prefix of 2 bytes; whether REX.W is needed.
    fn size(&mut self, bytes: u32) -> bool {
        if bytes == 2 {
            self.byte(0x66);
        }
        bytes == 8
    }
    /// An instruction on 1, 2, 4 or 8 bytes, `opcode` the one for more than 1. RAX, and registers
    /// from R8 on, only.
    pub(crate) fn any_size(&mut self, bytes: u32, opcode: u8, register: u8, mem: Mem) {
        let wide = self.size(bytes);
        self.op_mem(wide, &[if bytes == 1 { opcode & !1 } else { opcode }], register, mem);
    }
    /// Zero-extended.
    pub(crate) fn load_sized(&mut self, bytes: u32, register: u8, mem: Mem) {
        let opcode: &[u8] = if bytes == 2 { &[0x0F, 0xB7] } else { &[0x8B] };
        self.op_mem(bytes == 8, opcode, register, mem);
    }
    pub(crate) fn store_sized(&mut self, bytes: u32, mem: Mem, register: u8) {
        let wide = self.size(bytes);
        self.op_mem(wide, &[0x89], register, mem);
    }
    /// 8 bytes are sign-extended from 4.
    pub(crate) fn store_imm(&mut self, bytes: u32, mem: Mem, value: i32) {
        let wide = self.size(bytes);
        self.op_mem(wide, &[0xC7], 0, mem);
        let len = if bytes == 2 { 2 } else { 4 };
        self.code.extend(value.to_le_bytes().into_iter().take(len));
    }
    /// 2 bytes leave the others alone.
    pub(crate) fn mov_sized(&mut self, bytes: u32, to: u8, from: u8) {
        let wide = self.size(bytes);
        self.op_reg(wide, &[0x89], from, to);
    }
    pub(crate) fn zero_extend(&mut self, bytes: u32, to: u8, from: u8) {
        match bytes {
            2 => self.op_reg(false, &[0x0F, 0xB7], to, from),
            _ => self.op_reg(bytes == 8, &[0x89], from, to),
        }
    }
    /// 2 bytes leave the others alone.
    pub(crate) fn lea_sized(&mut self, bytes: u32, register: u8, mem: Mem) {
        let wide = self.size(bytes);
        self.lea(wide, register, mem);
    }
    /// The shortest form that gives the whole register this value.
    pub(crate) fn mov_imm(&mut self, register: u8, value: u64) {
        if let Ok(low) = u32::try_from(value) {
            if register >= 8 {
                self.byte(0x41);
            }
            self.byte(0xB8 | register & 7);
            self.bytes(&low.to_le_bytes());
        } else if let Ok(low) = i32::try_from(value as i64) {
            self.op_reg(true, &[0xC7], 0, register);
            self.imm32(low);
        } else {
            self.bytes(&[0x48 | register >> 3, 0xB8 | register & 7]);
            self.bytes(&value.to_le_bytes());
        }
    }
    /// Sign-extended to 64 bits.
    pub(crate) fn mov_state64(&mut self, offset: usize, value: i32) {
        self.op_mem(true, &[0xC7], 0, Mem::state(offset));
        self.imm32(value);
    }
    pub(crate) fn mov_state32(&mut self, offset: usize, value: u32) {
        self.op_mem(false, &[0xC7], 0, Mem::state(offset));
        self.bytes(&value.to_le_bytes());
    }
    pub(crate) fn cmp_imm(&mut self, register: u8, value: i32) {
        self.op_reg(true, &[0x81], 7, register);
        self.imm32(value);
    }
    /// `Jcc` with a displacement to be filled in.
    pub(crate) fn jcc(&mut self, condition: Condition) -> Jump {
        self.jcc_code(condition as u8)
    }
    /// `Jcc` by the condition's number.
    pub(crate) fn jcc_code(&mut self, condition: u8) -> Jump {
        self.bytes(&[0x0F, 0x80 | condition & 15, 0, 0, 0, 0]);
        Jump(self.here().wrapping_sub(4))
    }
    /// `JMP` with a displacement to be filled in.
    pub(crate) fn jmp(&mut self) -> Jump {
        self.bytes(&[0xE9, 0, 0, 0, 0]);
        Jump(self.here().wrapping_sub(4))
    }
    /// `CALL` with a displacement to be filled in.
    pub(crate) fn call(&mut self) -> Jump {
        self.bytes(&[0xE8, 0, 0, 0, 0]);
        Jump(self.here().wrapping_sub(4))
    }
    /// `POP` to memory. Where RSP is the base, it is what it is afterwards.
    pub(crate) fn pop_mem(&mut self, mem: Mem) {
        self.op_mem(false, &[0x8F], 0, mem);
    }
    /// `JMP` through memory.
    pub(crate) fn jmp_mem(&mut self, mem: Mem) {
        self.op_mem(false, &[0xFF], 4, mem);
    }
    pub(crate) fn jmp_reg(&mut self, register: u8) {
        self.op_reg(false, &[0xFF], 4, register);
    }
    /// Lets a jump go to `target`, an offset that may lie outside this piece of code.
    pub(crate) fn bind_to(&mut self, jump: Jump, target: i64) {
        let next = (jump.0 as i64).wrapping_add(4);
        let displacement = target.wrapping_sub(next) as i32;
        if let Some(place) = self.code.get_mut(jump.0..jump.0.wrapping_add(4)) {
            place.copy_from_slice(&displacement.to_le_bytes());
        }
    }
    /// Lets a jump go to the next instruction.
    pub(crate) fn bind(&mut self, jump: Jump) {
        self.bind_to(jump, self.here() as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use iced_x86::{Decoder, DecoderOptions, Instruction};

    fn decode(code: &[u8]) -> Instruction {
        let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
        let instruction = decoder.decode();
        assert_eq!(decoder.position(), code.len(), "{code:02x?}");
        instruction
    }

    fn described(instruction: &Instruction) -> String {
        alloc::format!(
            "{:?} {:?} {:?}+{:?}*{}+{:#x}",
            instruction.code(),
            instruction.op0_register(),
            instruction.memory_base(),
            instruction.memory_index(),
            instruction.memory_index_scale(),
            instruction.memory_displacement64()
        )
    }

    #[test]
    fn every_base_index_and_displacement_decodes_to_itself() {
        for base in 0..16u8 {
            for index in (0..16u8).filter(|index| *index != reg::RSP) {
                for disp in [0, 1, -128, 127, 128, i32::MIN] {
                    let mut asm = Asm::default();
                    asm.load(3, Mem::new(Some(base), Some((index, 2)), disp));
                    let found = decode(&asm.code);
                    assert_eq!(found.memory_base().number(), base as usize);
                    assert_eq!(found.memory_index().number(), index as usize);
                    assert_eq!(found.memory_index_scale(), 4);
                    assert_eq!(found.memory_displacement64() as i32, disp);
                }
            }
        }
    }

    #[test]
    fn bases_without_index_decode_to_themselves() {
        for base in 0..16u8 {
            for disp in [0, 5, 4096] {
                let mut asm = Asm::default();
                asm.lea(true, 9, Mem::base(base, disp));
                let found = decode(&asm.code);
                assert_eq!(found.memory_base().number(), base as usize, "{}", described(&found));
                assert_eq!(found.memory_displacement64(), disp as u64);
            }
        }
    }

    #[test]
    fn constants_take_their_shortest_form() {
        let length = |value: u64| {
            let mut asm = Asm::default();
            asm.mov_imm(10, value);
            let found = decode(&asm.code);
            assert_eq!(found.immediate(1), value);
            asm.code.len()
        };
        assert_eq!([length(5), length(u64::MAX), length(1 << 40)], [6, 7, 10]);
    }

    #[test]
    fn jumps_reach_what_they_are_bound_to() {
        let mut asm = Asm::default();
        let jump = asm.jcc(Condition::Above);
        asm.bytes(&[0x90]);
        asm.bind(jump);
        let found = Decoder::with_ip(64, &asm.code, 0, DecoderOptions::NONE).decode();
        assert_eq!(found.near_branch64(), 7);
    }
}
