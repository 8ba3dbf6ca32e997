//! Emitted blocks whose way to memory was changed are refused.

use alloc::vec::Vec;
use iced_x86::code_asm::*;

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

use super::{KERNEL, KERNEL_AC, Made, USER, USER32, Why};
use crate::layout::{RSP_AT, at};

/// `mov rax, [rbx + 8]`
pub(super) fn load() -> Made {
    Made::of(USER, |a| a.mov(rax, qword_ptr(rbx + 8)).unwrap())
}
/// `mov [rbx + 8], rax`
fn store() -> Made {
    Made::of(USER, |a| a.mov(qword_ptr(rbx + 8), rax).unwrap())
}
pub(super) fn known_address() -> Made {
    Made::of(USER, |a| a.mov(rax, qword_ptr(0x40_2000)).unwrap())
}
fn copy() -> Made {
    Made::of(USER, |a| a.rep().movsd().unwrap())
}
fn copy32() -> Made {
    Made::of_bytes(USER32, &[0xF3, 0xA5])
}
fn run_of_pushes() -> Made {
    Made::of(USER, |a| {
        a.push(rbx).unwrap();
        a.push(rbp).unwrap();
        a.push(r12).unwrap();
    })
}
fn bit_string() -> Made {
    Made::of(USER, |a| a.bts(qword_ptr(rdi), rax).unwrap())
}
pub(super) fn indirect_call() -> Made {
    Made::of(USER, |a| a.call(rax).unwrap())
}
pub(super) fn indirect_jump() -> Made {
    Made::of(USER, |a| a.jmp(rax).unwrap())
}
pub(super) fn jump_within_page() -> Made {
    Made::of(USER, |a| a.jmp(0x40_0200).unwrap())
}
pub(super) fn jump_to_other_page() -> Made {
    Made::of(USER, |a| a.jmp(0x50_0200).unwrap())
}
pub(super) fn system_call() -> Made {
    Made::of(USER, |a| a.syscall().unwrap())
}
pub(super) fn stac() -> Made {
    Made::of(KERNEL, |a| a.stac().unwrap())
}
pub(super) fn clac() -> Made {
    Made::of(KERNEL_AC, |a| a.clac().unwrap())
}

// --- which instruction -------------------------------------------------------------------------

pub(super) fn is(mnemonic: Mnemonic) -> impl Fn(&Instruction) -> bool {
    move |instruction| instruction.mnemonic() == mnemonic
}
pub(super) fn from_rsp(offset: usize) -> u64 {
    (offset as u64).wrapping_sub(RSP_AT as u64)
}
/// At this offset in the state block.
pub(super) fn at_state(offset: usize) -> impl Fn(&Instruction) -> bool {
    move |instruction| {
        instruction.memory_base() == Register::RSP
            && instruction.memory_displacement64() == from_rsp(offset)
    }
}
/// The guest's own access.
pub(super) fn access(instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::Mov
        && instruction.memory_index() == Register::R10
        && instruction.memory_base() != Register::RSP
}
/// Of a bit offset.
fn cut_off(instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::And && instruction.immediate8() == 63
}
pub(super) fn direct_jump(instruction: &Instruction) -> bool {
    instruction.code() == Code::Jmp_rel32_64
}
pub(super) fn way_out(instruction: &Instruction) -> bool {
    instruction.code() == Code::Call_rel32_64
}
pub(super) fn set_displacement(offset: usize) -> impl Fn(&mut Instruction) {
    move |instruction| instruction.set_memory_displacement64(from_rsp(offset))
}

pub(super) const NOPS: &[u8] = &[];
pub(super) const CLASS: usize = 1;

pub(super) type Mutant = (&'static str, fn() -> Made, fn(&mut Made), Why);

pub(super) fn all_are_refused(mutants: &[Mutant]) {
    let mut wrong = Vec::new();
    for (name, made, mutate, why) in mutants {
        let mut made = made();
        let before = made.verify();
        mutate(&mut made);
        let found = made.verify();
        if (before, found) != (Ok(()), Err(*why)) {
            wrong.push(alloc::format!("{name}: {before:?}, {found:?}\n{}", made.last.borrow()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn weaker_checks() {
    all_are_refused(&[
        ("no JA", load, |m| m.replace(is(Mnemonic::Ja), NOPS), Why::Table),
        (
            "JA taken to the wrong side",
            load,
            |m| {
                m.change(is(Mnemonic::Ja), |i| i.set_code(Code::Jbe_rel32_64));
            },
            Why::Table,
        ),
        (
            "a signed comparison",
            load,
            |m| {
                m.change(is(Mnemonic::Ja), |i| i.set_code(Code::Jg_rel32_64));
            },
            Why::Table,
        ),
        (
            "a smaller size",
            load,
            |m| {
                m.change(is(Mnemonic::Cmp), set_displacement(at::last(4).unwrap()));
            },
            Why::Unchecked,
        ),
        (
            "another register compared",
            load,
            |m| {
                m.change(is(Mnemonic::Cmp), |i| i.set_op0_register(Register::R8));
            },
            Why::Table,
        ),
        (
            "flags changed in between",
            load,
            |m| {
                // The comparison is shorter then, and a CLC stands behind it.
                m.replace(is(Mnemonic::Cmp), &[0x49, 0x83, 0xF9, 0x08, 0xF8]);
            },
            Why::Table,
        ),
    ]);
}

#[test]
fn wrong_indexes() {
    all_are_refused(&[
        ("no tag", load, |m| m.replace(is(Mnemonic::Sub), NOPS), Why::Table),
        (
            "other bits for the index",
            load,
            |m| {
                m.change(is(Mnemonic::Rorx), |i| i.set_immediate8(13));
            },
            Why::Table,
        ),
        (
            "other bits for the index, from the state block",
            load,
            |m| {
                m.change(is(Mnemonic::And), set_displacement(at::WAITING));
            },
            Why::Table,
        ),
        (
            "an index of another address",
            load,
            |m| {
                m.change(is(Mnemonic::Rorx), |i| i.set_op1_register(Register::EBX));
            },
            Why::Table,
        ),
        (
            "tags of another entry",
            known_address,
            |m| {
                m.change(is(Mnemonic::Sub), |i| {
                    i.set_memory_displacement64(i.memory_displacement64() + 32);
                });
            },
            Why::Table,
        ),
        (
            "hosts of another entry",
            known_address,
            |m| {
                m.change(at_state(at::hosts(CLASS) + 32 * 0x402), |i| {
                    i.set_memory_displacement64(i.memory_displacement64() + 32);
                });
            },
            Why::Table,
        ),
    ]);
}

#[test]
fn wrong_tables() {
    all_are_refused(&[
        (
            "write through read tags",
            store,
            |m| {
                m.change(is(Mnemonic::Sub), set_displacement(at::read_tags(CLASS)));
            },
            Why::Unchecked,
        ),
        (
            "tags of another class",
            load,
            |m| {
                m.change(is(Mnemonic::Sub), set_displacement(at::read_tags(0)));
            },
            Why::Table,
        ),
        (
            "addends of another class",
            load,
            |m| {
                m.change(at_state(at::addends(CLASS)), set_displacement(at::addends(2)));
            },
            Why::Table,
        ),
        (
            "hosts for addends",
            load,
            |m| {
                m.change(at_state(at::addends(CLASS)), set_displacement(at::hosts(CLASS)));
            },
            Why::Table,
        ),
        (
            "no table",
            load,
            |m| {
                m.change(at_state(at::addends(CLASS)), set_displacement(at::addends(CLASS) + 8));
            },
            Why::Table,
        ),
        (
            "another scale",
            load,
            |m| {
                m.change(at_state(at::addends(CLASS)), |i| i.set_memory_index_scale(4));
            },
            Why::Table,
        ),
        (
            "another index",
            load,
            |m| {
                m.change(at_state(at::addends(CLASS)), |i| i.set_memory_index(Register::RCX));
            },
            Why::Table,
        ),
        (
            "a write to a table",
            load,
            |m| {
                m.change(at_state(at::addends(CLASS)), |i| {
                    i.set_code(Code::Mov_rm64_r64);
                    i.set_op0_kind(OpKind::Memory);
                    i.set_op1_kind(OpKind::Register);
                    i.set_op1_register(Register::R10);
                });
            },
            Why::Table,
        ),
    ]);
}

#[test]
fn wrong_operands() {
    all_are_refused(&[
        (
            "another base",
            load,
            |m| {
                m.change(access, |i| i.set_memory_base(Register::RCX));
            },
            Why::Unchecked,
        ),
        (
            "another displacement",
            load,
            |m| {
                m.change(access, |i| i.set_memory_displacement64(9));
            },
            Why::Unchecked,
        ),
        (
            "before the operand",
            load,
            |m| {
                m.change(access, |i| i.set_memory_displacement64(7));
            },
            Why::Unchecked,
        ),
        (
            "another addend",
            load,
            |m| {
                m.change(access, |i| i.set_memory_index(Register::R11));
            },
            Why::Unchecked,
        ),
        (
            "the guest's address itself",
            load,
            |m| {
                m.replace(access, &[0x48, 0x8B, 0x43, 0x08]);
            },
            Why::Unchecked,
        ),
        (
            "the stack pointer as base",
            load,
            |m| {
                m.change(access, |i| i.set_memory_base(Register::RSP));
            },
            Why::Table,
        ),
        (
            "no addend loaded",
            load,
            |m| {
                m.replace(at_state(at::addends(CLASS)), NOPS);
            },
            Why::Unchecked,
        ),
    ]);
}

#[test]
fn wrong_words_of_runs_and_bits() {
    all_are_refused(&[
        (
            "the base moved in between",
            load,
            |m| {
                // Eight bytes: inc rbx; mov r10, .. is not there then, but nobody comes so far.
                m.replace(at_state(at::addends(CLASS)), &[0x48, 0xFF, 0xC3]);
            },
            Why::Unchecked,
        ),
        (
            "a word beyond the run",
            run_of_pushes,
            |m| {
                m.change(access, |i| i.set_memory_displacement64(0u64.wrapping_sub(32)));
            },
            Why::Unchecked,
        ),
        (
            "a word above the run",
            run_of_pushes,
            |m| {
                m.change(access, |i| i.set_memory_displacement64(0));
            },
            Why::Unchecked,
        ),
        (
            "the stack pointer moved too far",
            run_of_pushes,
            |m| {
                m.change(is(Mnemonic::Lea), |i| i.set_op0_register(Register::R14));
                let second = |i: &Instruction| i.op0_register() == Register::R15;
                m.change(second, |i| i.set_memory_displacement64(0u64.wrapping_sub(24)));
            },
            Why::Unchecked,
        ),
        (
            "a bit offset that is not cut off",
            bit_string,
            |m| {
                m.replace(cut_off, NOPS);
            },
            Why::BitOffset,
        ),
        (
            "a bit offset of twice the width",
            bit_string,
            |m| {
                m.change(cut_off, |i| i.set_immediate8(127));
            },
            Why::BitOffset,
        ),
    ]);
}

#[test]
fn string_instructions_out_of_bounds() {
    all_are_refused(&[
        (
            "no bound for the count",
            copy,
            |m| {
                m.change(
                    |i| i.op0_register() == Register::RCX && i.immediate32() == 1024,
                    |i| i.set_op0_register(Register::RDX),
                );
            },
            Why::Unchecked,
        ),
        (
            "no end",
            copy,
            |m| {
                m.change(
                    |i| i.op0_register() == Register::R11 && i.immediate32() == 4096,
                    |i| i.set_op0_register(Register::R8),
                );
            },
            Why::Unchecked,
        ),
        (
            "an end behind the page",
            copy,
            |m| {
                m.change(
                    |i| i.op0_register() == Register::R11 && i.immediate32() == 4096,
                    |i| i.set_immediate32(4097),
                );
            },
            Why::Unchecked,
        ),
        (
            "longer elements",
            copy,
            |m| {
                m.change(is(Mnemonic::Movsd), |i| i.set_code(Code::Movsb_m8_m8));
            },
            Why::Unchecked,
        ),
        (
            "another destination",
            copy,
            |m| {
                m.change(
                    |i| i.mnemonic() == Mnemonic::Add && i.op0_register() == Register::RDI,
                    |i| i.set_op0_register(Register::RBX),
                );
            },
            Why::Unchecked,
        ),
        (
            "another source",
            copy,
            |m| {
                m.change(
                    |i| i.mnemonic() == Mnemonic::Add && i.op0_register() == Register::RSI,
                    |i| i.set_op0_register(Register::RBX),
                );
            },
            Why::Unchecked,
        ),
        ("not repeated", copy, |m| m.replace(is(Mnemonic::Movsd), &[0xA5]), Why::Instruction),
        (
            "without the end of the upper half",
            copy32,
            |m| {
                m.replace(
                    |i| i.code() == Code::Mov_rm32_r32 && i.op0_register() == Register::ECX,
                    NOPS,
                );
            },
            Why::Unchecked,
        ),
    ]);
}
