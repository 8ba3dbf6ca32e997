//! What is passed through and what is refused, and what is said of memory operands.
#![allow(missing_docs)]

use iced_x86::{Decoder, DecoderOptions, Instruction, InstructionInfoFactory};
use kasane_passthrough::shape::{Refusal, Shape, analyse};
use kasane_passthrough::{Direction, HostFeatures, Operand, Unit};

fn decode(code: &[u8]) -> Instruction {
    Decoder::new(64, code, DecoderOptions::NONE).decode()
}

fn shape(code: &[u8]) -> Result<Shape, Refusal> {
    analyse(&decode(code), HostFeatures(u32::MAX), &mut InstructionInfoFactory::new())
}

fn operand(size: u8, direction: Direction, alignment: u8) -> Option<Operand> {
    Some(Operand { size, direction, alignment })
}

#[test]
fn memory_operands_have_size_direction_and_alignment() {
    let cases: [(&[u8], Unit, Option<Operand>); 14] = [
        (&[0x0F, 0x58, 0x03], Unit::Sse, operand(16, Direction::Read, 16)), // addps xmm0, [rbx]
        (&[0x0F, 0x10, 0x03], Unit::Sse, operand(16, Direction::Read, 1)),  // movups xmm0, [rbx]
        (&[0xF3, 0x0F, 0x11, 0x03], Unit::Sse, operand(4, Direction::Write, 1)), // movss [rbx], xmm0
        (&[0x66, 0x0F, 0x3A, 0x63, 0x03, 0], Unit::Sse, operand(16, Direction::Read, 1)), // pcmpistri
        (&[0x66, 0x0F, 0x3A, 0x14, 0x03, 5], Unit::Sse, operand(1, Direction::Write, 1)), // pextrb
        (&[0xC5, 0xFC, 0x58, 0x03], Unit::Avx, operand(32, Direction::Read, 1)), // vaddps ymm0, ymm0, [rbx]
        (&[0xC5, 0xFC, 0x28, 0x03], Unit::Avx, operand(32, Direction::Read, 32)), // vmovaps ymm0, [rbx]
        (&[0x0F, 0x6F, 0x03], Unit::Mmx, operand(8, Direction::Read, 1)),         // movq mm0, [rbx]
        (&[0x0F, 0x77], Unit::Mmx, None),                                         // emms
        (&[0xDB, 0x2B], Unit::X87, operand(10, Direction::Read, 1)),              // fld tbyte [rbx]
        (&[0xDF, 0xE0], Unit::X87, None),                                         // fnstsw ax
        (&[0xF2, 0x0F, 0x2D, 0x03], Unit::Sse, operand(8, Direction::Read, 1)), // cvtsd2si eax, [rbx]
        (&[0xC5, 0xFA, 0x2C, 0x03], Unit::Avx, operand(4, Direction::Read, 1)), // vcvttss2si eax, [rbx]
        (&[0x66, 0x0F, 0xEF, 0xC0], Unit::Sse, None),                           // pxor xmm0, xmm0
    ];
    for (code, unit, operand) in cases {
        let shape = shape(code).unwrap();
        assert_eq!((shape.unit, shape.operand), (unit, operand), "{code:02X?}");
    }
}

#[test]
fn what_software_has_to_do_is_refused() {
    let cases: [&[u8]; 20] = [
        &[0x90],                               // nop
        &[0xF4],                               // hlt
        &[0x0F, 0xAE, 0x03],                   // fxsave [rbx]
        &[0x0F, 0xAE, 0x23],                   // xsave [rbx]
        &[0x0F, 0xAE, 0x13],                   // ldmxcsr [rbx]
        &[0xC5, 0xF8, 0xAE, 0x1B],             // vstmxcsr [rbx]
        &[0xD9, 0x33],                         // fnstenv [rbx]
        &[0xDD, 0x33],                         // fnsave [rbx]
        &[0x9B],                               // fwait
        &[0x0F, 0xF7, 0xC1],                   // maskmovq mm0, mm1
        &[0x66, 0x0F, 0xF7, 0xC1],             // maskmovdqu xmm0, xmm1
        &[0xC4, 0xE2, 0x79, 0x2C, 0x03],       // vmaskmovps xmm0, xmm0, [rbx]
        &[0xC4, 0xE2, 0x69, 0x90, 0x04, 0x0B], // vpgatherdd xmm0, [rbx+xmm1], xmm2
        &[0xC5, 0xF8, 0x77],                   // vzeroupper
        &[0xC4, 0xE2, 0x78, 0xF2, 0xC3],       // andn eax, eax, ebx
        &[0xF2, 0x0F, 0x38, 0xF1, 0xC3],       // crc32 eax, ebx
        &[0x62, 0xF1, 0x7C, 0x48, 0x58, 0xC0], // vaddps zmm0, zmm0, zmm0
        &[0xC4, 0xE2, 0x7D, 0xDC, 0xC0],       // vaesenc ymm0, ymm0, ymm0
        &[0x0F, 0xC3, 0x03],                   // movnti [rbx], eax
        &[0x0F, 0x18, 0x03],                   // prefetchnta [rbx]
    ];
    for code in cases {
        assert!(shape(code).is_err(), "{code:02X?}");
    }
}

#[test]
fn a_host_without_the_feature_refuses() {
    let refusal = analyse(
        &decode(&[0xC5, 0xFC, 0x58, 0x03]),
        HostFeatures::default(),
        &mut InstructionInfoFactory::new(),
    );
    assert_eq!(refusal.unwrap_err(), Refusal::Feature);
}

#[test]
fn conversions_to_general_registers_are_passed_in_every_form() {
    let mut refused = Vec::new();
    for (opcode, third) in [(0x2C, 0x7A), (0x2C, 0x7B), (0x2D, 0x7A), (0x2D, 0x7E), (0x2D, 0xFB)] {
        for modrm in 0..=255u8 {
            for second in [0xE1, 0xC1, 0x61] {
                // VEX.W and VEX.L by the third byte; SIB, displacement.
                let code = [0xC4, second, third, opcode, modrm, 0x24, 1, 2, 3, 4];
                let instruction = decode(&code);
                if !instruction.is_invalid() && shape(&code).is_err() {
                    refused.push((instruction.code(), code));
                }
            }
        }
    }
    assert!(refused.is_empty(), "{} refused, the first {:02X?}", refused.len(), refused[0]);
}
