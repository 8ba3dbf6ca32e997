//! An instruction of 64-bit code made of its own bytes, with nothing but its memory operand changed.
//!
//! A general encoder takes as long as everything else about an instruction together; most
//! instructions only need other ModRM, SIB and REX fields (SDM vol. 2A §2.1 and §2.3).
//! What is unusual is left to the encoder: `None`.

use crate::asm::{Asm, Mem, Piece};

/// Bytes of an instruction at most (SDM vol. 2A §2.3.11).
const LONGEST: u32 = 15;

/// Prefixes that are looked at: with REX, three bytes of opcode, ModRM and SIB they fill 8 bytes.
const PREFIXES: u32 = 2;

/// Bytes in a register: see [`Piece`].
#[derive(Clone, Copy)]
struct Bytes(u128);

impl Bytes {
    #[inline]
    fn at(self, place: u32) -> u8 {
        self.from(place) as u8
    }
    #[inline]
    fn from(self, place: u32) -> u128 {
        self.0.wrapping_shr(place.wrapping_mul(8))
    }
}

/// What was made, in its three parts.
pub(super) struct Made {
    /// Up to SIB.
    head: Piece,
    disp: (i32, usize),
    /// The first of these bytes are the constant.
    constant: (u64, u32),
}

impl Made {
    pub(super) fn emit(&self, asm: &mut Asm) {
        asm.piece(self.head);
        let (disp, len) = self.disp;
        asm.sequence(&disp.to_le_bytes(), len);
        let (constant, len) = self.constant;
        asm.sequence(&constant.to_le_bytes(), len as usize);
    }
}

#[inline]
fn is_segment_or_size_of_addresses(byte: u8) -> bool {
    matches!(byte, 0x26 | 0x2E | 0x36 | 0x3E | 0x64 | 0x65 | 0x67)
}
#[inline]
fn is_kept_prefix(byte: u8) -> bool {
    matches!(byte, 0x66 | 0xF0 | 0xF2 | 0xF3)
}

/// Whether no prefix stands in front that means something else, or nothing, in translated code: a
/// segment's, or that for addresses of 32 bits.
pub(super) fn has_plain_prefixes(code: &[u8; 16]) -> bool {
    let mut prefixes = code
        .iter()
        .take_while(|byte| is_segment_or_size_of_addresses(**byte) || is_kept_prefix(**byte));
    prefixes.all(|byte| is_kept_prefix(*byte))
}

/// The instruction that the first `len` bytes of `code` are, with an explicit memory operand, with
/// `mem` for it. Its registers stay what they are, and no operand is AH, CH, DH or BH.
pub(super) fn with_memory(code: &[u8; 16], len: usize, mem: Mem) -> Option<Made> {
    let code = Bytes(u128::from_le_bytes(*code));
    let mut made = Piece::default();
    let mut at = 0;
    loop {
        let byte = code.at(at);
        if is_kept_prefix(byte) {
            made.byte(byte);
        } else if !is_segment_or_size_of_addresses(byte) {
            break;
        }
        at = at.wrapping_add(1);
        if at > PREFIXES {
            return None;
        }
    }
    let (x, b) = (mem.index_number() >> 3, mem.base_number() >> 3);
    let at = match code.at(at) {
        0xC4 | 0xC5 => vex(&mut made, code, at, x << 6 | b << 5),
        0x62 | 0x8F => return None, // EVEX, XOP; or POP, which is nothing of the kind
        _ => legacy(&mut made, code, at, x << 1 | b)?,
    };
    let mod_rm = code.at(at);
    let behind = at.wrapping_add(1).wrapping_add(operand_len(mod_rm, code.at(at.wrapping_add(1)))?);
    let disp = made.mod_rm(mod_rm >> 3 & 7, mem);
    let constant = (len as u32).checked_sub(behind)?;
    let all = made.len().wrapping_add(disp.1 as u32).wrapping_add(constant);
    let constant = (code.0.checked_shr(behind.wrapping_mul(8))? as u64, constant);
    (made.len() <= 8 && constant.1 <= 8 && all <= LONGEST).then_some(Made {
        head: made,
        disp,
        constant,
    })
}

/// Opcode with REX; gives the place of ModRM. `bits`: those of REX that belong to memory.
fn legacy(made: &mut Piece, code: Bytes, mut at: u32, bits: u8) -> Option<u32> {
    let first = code.at(at);
    let has_rex = first & 0xF0 == 0x40;
    at = at.wrapping_add(u32::from(has_rex));
    let own = u8::from(has_rex).wrapping_neg() & first & !3;
    made.byte_if(0x40 | own | bits, has_rex || bits != 0);
    let opcode = code.at(at);
    let escapes = match (opcode, code.at(at.wrapping_add(1))) {
        (0x0F, 0x38 | 0x3A) => 2,
        (0x0F, _) => 1,
        (0xA0..=0xA3, _) => return None, // the address is a constant, without ModRM
        // A REX prefix that another prefix follows means nothing.
        (0x40..=0x4F, _) => return None,
        _ if is_kept_prefix(opcode) || is_segment_or_size_of_addresses(opcode) => return None,
        _ => 0,
    };
    let opcodes = u32::MAX.wrapping_shr(24u32.wrapping_sub(escapes * 8));
    made.append(code.from(at) as u32 & opcodes, escapes.wrapping_add(1));
    Some(at.wrapping_add(escapes).wrapping_add(1))
}

/// Opcode with VEX, whose fields for registers are inverted; gives the place of ModRM. `bits`: X
/// and B as they stand in its second byte, not inverted.
fn vex(made: &mut Piece, code: Bytes, at: u32, bits: u8) -> u32 {
    let second = code.at(at.wrapping_add(1));
    let opcode_at = if code.at(at) == 0xC5 {
        if bits == 0 {
            made.byte(0xC5);
            made.byte(second);
        } else {
            // R, and the map 0F; then W = 0 and the rest.
            made.byte(0xC4);
            made.byte((second & 0x80 | 0x61) & !bits);
            made.byte(second & 0x7F);
        }
        at.wrapping_add(2)
    } else {
        made.byte(0xC4);
        made.byte((second | 0x60) & !bits);
        made.byte(code.at(at.wrapping_add(2)));
        at.wrapping_add(3)
    };
    made.byte(code.at(opcode_at));
    opcode_at.wrapping_add(1)
}

/// Bytes of SIB and displacement.
fn operand_len(mod_rm: u8, sib: u8) -> Option<u32> {
    let (mode, rm) = (mod_rm >> 6, mod_rm & 7);
    if mode == 3 {
        return None; // a register
    }
    let has_sib = rm == 4;
    let without_base = mode == 0 && (rm == 5 || has_sib && sib & 7 == 5);
    let long = u32::from(mode == 2 || without_base) * 4;
    Some(u32::from(has_sib).wrapping_add(long).wrapping_add(u32::from(mode == 1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emit::memory::Reach;
    use crate::emit::names::{number, rename_memory};
    use crate::guest::{Analyst, Guest, Kind};
    use alloc::vec;
    use alloc::vec::Vec;
    use iced_x86::{Decoder, DecoderOptions, Encoder, Instruction, OpKind, Register};
    use proptest::prelude::*;

    fn decode(code: &[u8]) -> Instruction {
        Decoder::with_ip(64, code, 0, DecoderOptions::NONE).decode()
    }

    fn has_high_byte(instruction: &Instruction) -> bool {
        use Register::{AH, BH, CH, DH};
        (0..instruction.op_count()).any(|n| matches!(instruction.op_register(n), AH | BH | CH | DH))
    }

    /// What the encoder makes of the same.
    fn expected(instruction: &Instruction, reach: Reach) -> Option<Instruction> {
        let mut renamed = *instruction;
        rename_memory(&mut renamed, reach);
        renamed.set_segment_prefix(Register::None);
        let mut encoder = Encoder::new(64);
        encoder.encode(&renamed, 0).ok()?;
        Some(decode(&encoder.take_buffer()))
    }

    fn operands(instruction: &Instruction) -> Vec<(OpKind, Register)> {
        (0..instruction.op_count())
            .map(|n| (instruction.op_kind(n), instruction.op_register(n)))
            .collect()
    }

    fn constants(instruction: &Instruction) -> Vec<u64> {
        (0..instruction.op_count())
            .filter(|n| kasane_interp::op::is_immediate(instruction.op_kind(*n)))
            .map(|n| instruction.immediate(n))
            .collect()
    }

    /// Opcodes with the prefixes and the maps that programs use, so that most are instructions.
    fn code() -> impl Strategy<Value = [u8; 16]> {
        let prefix = prop_oneof![
            6 => Just(None),
            1 => prop::sample::select(vec![0x66, 0xF0, 0xF2, 0xF3, 0x2E, 0x64, 0x65, 0x67])
                .prop_map(Some)
        ];
        let head = prop_oneof![
            3 => Just(vec![]),
            3 => (0x40u8..=0x4F).prop_map(|rex| vec![rex]),
            2 => Just(vec![0x0F]),
            1 => (0x40u8..=0x4F).prop_map(|rex| vec![rex, 0x0F]),
            1 => prop::sample::select(vec![vec![0x0F, 0x38], vec![0x0F, 0x3A]]),
            2 => any::<u8>().prop_map(|fields| vec![0xC5, fields]),
            2 => (1u8..=3, any::<u8>(), any::<u8>())
                .prop_map(|(map, high, rest)| vec![0xC4, high & 0xE0 | map, rest]),
        ];
        (prefix, prop::option::of(0x64u8..=0x67), head, any::<[u8; 16]>()).prop_map(
            |(prefix, second, head, rest)| {
                let bytes = prefix.into_iter().chain(second).chain(head).chain(rest);
                let mut code = [0; 16];
                code.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
                code
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100_000))]
        #[test]
        fn it_is_what_the_encoder_makes(code in code(), base in 0u8..16, disp in any::<i32>()) {
            let instruction = decode(&code);
            let mut guest = Guest { instruction, ..Guest::default() };
            Analyst::new().look_at(&mut guest);
            if guest.kind != Kind::Plain || guest.access.is_none() || has_high_byte(&instruction) {
                return Ok(());
            }
            for reach in [Reach::Host, Reach::Base { base, disp }, Reach::Base { base, disp: 8 }] {
                let Some(made) = with_memory(&code, instruction.len(), reach.mem()) else {
                    continue;
                };
                let mut asm = Asm::default();
                made.emit(&mut asm);
                let found = decode(&asm.code);
                let Some(expected) = expected(&instruction, reach) else { continue };
                prop_assert_eq!(found.len(), asm.code.len());
                prop_assert_eq!(found.code(), expected.code());
                prop_assert_eq!(operands(&found), operands(&expected));
                prop_assert_eq!(constants(&found), constants(&expected));
                prop_assert_eq!(found.memory_base(), expected.memory_base());
                prop_assert_eq!(found.memory_index(), expected.memory_index());
                prop_assert_eq!(found.memory_index_scale(), 1);
                let disp = |one: &Instruction| one.memory_displacement64();
                prop_assert_eq!(disp(&found), disp(&expected));
                prop_assert_eq!(found.segment_prefix(), Register::None);
                prop_assert_eq!(found.has_lock_prefix(), expected.has_lock_prefix());
                prop_assert_eq!(number(found.memory_base()), reach.mem().base_number());
            }
        }
    }

    #[test]
    fn common_instructions_need_no_encoder() {
        let codes: [&[u8]; 6] = [
            &[0x48, 0x8B, 0x45, 0xF8],                   // mov rax, [rbp - 8]
            &[0x81, 0x7C, 0x24, 0x10, 1, 2, 3, 4],       // cmp dword [rsp + 16], 0x4030201
            &[0x0F, 0xB6, 0x04, 0x0A],                   // movzx eax, byte [rdx + rcx]
            &[0x65, 0x48, 0x8B, 0x04, 0x25, 0, 0, 0, 0], // mov rax, gs:[0]
            &[0xC5, 0xFD, 0x6F, 0x06],                   // vmovdqa ymm0, [rsi]
            &[0xF0, 0x48, 0x0F, 0xC1, 0x02],             // lock xadd [rdx], rax
        ];
        for code in codes {
            let mut padded = [0x90; 16];
            padded[..code.len()].copy_from_slice(code);
            assert!(with_memory(&padded, code.len(), Mem::base(9, 0)).is_some(), "{code:02x?}");
        }
    }
}
