//! Emitted blocks with something changed are refused.

use alloc::vec::Vec;
use iced_x86::code_asm::*;

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

use super::{AT, KERNEL, KERNEL_AC, Made, USER, USER32, Why};
use crate::layout::at;
use crate::sites::Site;

/// `mov rax, [rbx + 8]`
fn load() -> Made {
    Made::of(USER, |a| a.mov(rax, qword_ptr(rbx + 8)).unwrap())
}
/// `mov [rbx + 8], rax`
fn store() -> Made {
    Made::of(USER, |a| a.mov(qword_ptr(rbx + 8), rax).unwrap())
}
fn known_address() -> Made {
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
fn indirect_call() -> Made {
    Made::of(USER, |a| a.call(rax).unwrap())
}
fn indirect_jump() -> Made {
    Made::of(USER, |a| a.jmp(rax).unwrap())
}
fn jump_within_page() -> Made {
    Made::of(USER, |a| a.jmp(0x40_0200).unwrap())
}
fn jump_to_other_page() -> Made {
    Made::of(USER, |a| a.jmp(0x50_0200).unwrap())
}
fn system_call() -> Made {
    Made::of(USER, |a| a.syscall().unwrap())
}
fn stac() -> Made {
    Made::of(KERNEL, |a| a.stac().unwrap())
}
fn clac() -> Made {
    Made::of(KERNEL_AC, |a| a.clac().unwrap())
}

// --- which instruction -------------------------------------------------------------------------

fn is(mnemonic: Mnemonic) -> impl Fn(&Instruction) -> bool {
    move |instruction| instruction.mnemonic() == mnemonic
}
/// With this displacement from RSP.
fn at_state(offset: usize) -> impl Fn(&Instruction) -> bool {
    move |instruction| {
        instruction.memory_base() == Register::RSP
            && instruction.memory_displacement64() == offset as u64
    }
}
/// The guest's own access.
fn access(instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::Mov
        && instruction.memory_index() == Register::R10
        && instruction.memory_base() != Register::RSP
}
fn store_to_known(instruction: &Instruction) -> bool {
    at_state(at::SITE)(instruction)
}
fn leave_jump(instruction: &Instruction) -> bool {
    instruction.code() == Code::Jmp_rel32_64
}
fn set_displacement(offset: usize) -> impl Fn(&mut Instruction) {
    move |instruction| instruction.set_memory_displacement64(offset as u64)
}

const NOPS: &[u8] = &[];
const CLASS: usize = 1;

type Mutant = (&'static str, fn() -> Made, fn(&mut Made), Why);

fn all_are_refused(mutants: &[Mutant]) {
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
                m.change(is(Mnemonic::Cmp), |i| i.set_immediate32(4096 - 7));
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
        ("no tag", load, |m| m.replace(is(Mnemonic::Sub), NOPS), Why::Table),
        (
            "other bits for the index",
            load,
            |m| {
                m.change(|i| i.immediate32() == 0xC0C, |i| i.set_immediate32(0xC0D));
            },
            Why::Table,
        ),
        (
            "more bits for the index",
            load,
            |m| {
                m.change(|i| i.immediate32() == 0xC0C, |i| i.set_immediate32(0xD0C));
            },
            Why::Table,
        ),
        (
            "an index of another address",
            load,
            |m| {
                m.change(is(Mnemonic::Bextr), |i| i.set_op1_register(Register::RBX));
            },
            Why::Table,
        ),
        (
            "tags of another entry",
            known_address,
            |m| {
                m.change(is(Mnemonic::Sub), |i| {
                    i.set_memory_displacement64(i.memory_displacement64() + 8);
                });
            },
            Why::Table,
        ),
        (
            "hosts of another entry",
            known_address,
            |m| {
                m.change(at_state(at::hosts(CLASS) + 8 * 0x402), |i| {
                    i.set_memory_displacement64(i.memory_displacement64() + 8);
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
                m.replace(is(Mnemonic::And), NOPS);
            },
            Why::BitOffset,
        ),
        (
            "a bit offset of twice the width",
            bit_string,
            |m| {
                m.change(is(Mnemonic::And), |i| i.set_immediate8(127));
            },
            Why::BitOffset,
        ),
    ]);
}

#[test]
fn string_instructions_out_of_bounds() {
    let bound = |i: &Instruction| {
        i.mnemonic() == Mnemonic::Cmp && i.op0_register() == Register::RCX && i.immediate32() != 0
    };
    let end = |i: &Instruction| i.op0_register() == Register::R11 && i.immediate32() == 4096;
    let _ = (bound, end);
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

#[test]
fn instructions_that_may_not_stand_there() {
    all_are_refused(&[
        ("SYSCALL", load, |m| m.replace(access, &[0x0F, 0x05]), Why::Instruction),
        ("INT", load, |m| m.replace(access, &[0xCD, 0x80]), Why::Instruction),
        ("RET", load, |m| m.replace(access, &[0xC3]), Why::Instruction),
        ("PUSH", load, |m| m.replace(access, &[0x50]), Why::Instruction),
        (
            "the stack pointer written",
            load,
            |m| {
                m.replace(access, &[0x48, 0x89, 0xDC]);
            },
            Why::Register,
        ),
        ("a segment", load, |m| m.replace(access, &[0x65, 0x48, 0x8B, 0x03]), Why::Prefix),
        ("half an instruction", load, |m| m.code.truncate(m.code.len() - 1), Why::NoInstruction),
        ("an open end", jump_within_page, |m| m.code.truncate(m.code.len() - 5), Why::End),
    ]);
}

#[test]
fn the_state_block_out_of_range() {
    all_are_refused(&[
        (
            "the host's stack",
            system_call,
            |m| {
                m.change(at_state(at::SYSCALL_TARGET), set_displacement(at::HOST_RSP));
            },
            Why::StateBlock,
        ),
        (
            "below",
            system_call,
            |m| {
                m.change(at_state(at::SYSCALL_TARGET), |i| i.set_memory_displacement64(u64::MAX));
            },
            Why::StateBlock,
        ),
        (
            "behind",
            system_call,
            |m| {
                let end = size_of::<crate::layout::Hot>();
                m.change(at_state(at::SYSCALL_TARGET), set_displacement(end));
            },
            Why::StateBlock,
        ),
        (
            "half of a field",
            system_call,
            |m| {
                m.change(at_state(at::SYSCALL_TARGET), set_displacement(at::SCRATCH + 4));
            },
            Why::StateBlock,
        ),
        (
            "a bit far from its field",
            load,
            |m| {
                m.change(is(Mnemonic::Movzx), |i| {
                    i.set_code(Code::Btr_rm32_r32);
                    i.set_op0_kind(OpKind::Memory);
                    i.set_op1_kind(OpKind::Register);
                    i.set_op1_register(Register::EAX);
                });
            },
            Why::BitOffset,
        ),
        (
            "the site by a register",
            load,
            |m| {
                m.replace(store_to_known, &{
                    let mut code = [0x89, 0x84, 0x24, 0, 0, 0, 0];
                    code[3..].copy_from_slice(&(at::SITE as u32).to_le_bytes());
                    code
                });
            },
            Why::StateBlock,
        ),
    ]);
}

#[test]
fn jumps_to_elsewhere() {
    all_are_refused(&[
        (
            "into an instruction",
            load,
            |m| {
                m.change(is(Mnemonic::Ja), |i| i.set_near_branch64(i.near_branch64() + 1));
            },
            Why::Inside,
        ),
        (
            "out of the block",
            load,
            |m| {
                m.change(leave_jump, |i| i.set_near_branch64(u64::from(AT) + 0x1_0000));
            },
            Why::Target,
        ),
        (
            "to the way in",
            load,
            |m| {
                let enter = u64::from(m.stubs.enter);
                m.change(leave_jump, |i| i.set_near_branch64(enter));
            },
            Why::Target,
        ),
        (
            "around the check",
            load,
            |m| {
                // JMP from the check's first instruction to the access.
                let to = m.instructions().into_iter().find(access).unwrap().ip();
                let first = m.instructions().into_iter().find(is(Mnemonic::Bextr)).unwrap().ip();
                m.replace(is(Mnemonic::Bextr), &[0xEB, (to - first - 2) as u8]);
            },
            Why::Unchecked,
        ),
        (
            "entered behind the check",
            load,
            |m| {
                m.host_entry =
                    (m.instructions().into_iter().find(access).unwrap().ip() as u32) - AT;
            },
            Why::Unchecked,
        ),
        ("entered in the middle", load, |m| m.host_entry += 1, Why::Inside),
        (
            "a target that was not compared",
            indirect_jump,
            |m| {
                m.replace(is(Mnemonic::Jne), NOPS);
            },
            Why::Target,
        ),
        (
            "another target compared",
            indirect_jump,
            |m| {
                m.change(at_state(at::jump_rips(CLASS)), |i| i.set_op0_register(Register::R8));
            },
            Why::Table,
        ),
        (
            "another class's table",
            indirect_jump,
            |m| {
                m.change(at_state(at::jump_rips(CLASS)), set_displacement(at::jump_rips(0)));
                m.change(at_state(at::jump_codes(CLASS)), set_displacement(at::jump_codes(0)));
            },
            Why::Target,
        ),
        (
            "a hash that is not cut off",
            indirect_jump,
            |m| {
                m.change(is(Mnemonic::And), |i| i.set_immediate32(u32::MAX));
            },
            Why::Table,
        ),
        (
            "another hash",
            indirect_jump,
            |m| {
                m.change(is(Mnemonic::Shl), |i| i.set_immediate8(5));
            },
            Why::Table,
        ),
        (
            "a register that nobody loaded",
            indirect_call,
            |m| {
                m.change(|i| i.code() == Code::Jmp_rm64, |i| i.set_op0_register(Register::R12));
            },
            Why::Target,
        ),
        (
            "another slot",
            jump_to_other_page,
            |m| {
                m.change(at_state(at::slot(0)), set_displacement(at::slot(1)));
            },
            Why::Target,
        ),
        (
            "a slot that is not told",
            jump_to_other_page,
            |m| {
                m.change(|i| i.op0_register() == Register::R9D, |i| i.set_immediate32(7));
            },
            Why::Target,
        ),
        (
            "a slot of another mode",
            jump_to_other_page,
            |m| {
                m.mode = crate::mode::Mode::of_bits(KERNEL);
            },
            Why::Target,
        ),
    ]);
}

#[test]
fn crossings_without_leave() {
    all_are_refused(&[
        (
            "SYSCALL without permission",
            system_call,
            |m| {
                m.replace(at_state(at::SYSCALL_OK), NOPS);
            },
            Why::Told,
        ),
        (
            "another permission",
            system_call,
            |m| {
                m.change(at_state(at::SYSCALL_OK), set_displacement(at::WAITING));
            },
            Why::Told,
        ),
        (
            "the wrong ring",
            system_call,
            |m| {
                m.change(at_state(at::RING), |i| i.set_immediate32(3));
            },
            Why::Told,
        ),
        (
            "the ring is not told",
            system_call,
            |m| {
                m.replace(at_state(at::CROSSED), NOPS);
            },
            Why::Target,
        ),
        ("AC is not set", stac, |m| m.replace(is(Mnemonic::Or), NOPS), Why::Target),
        ("AC is not cleared", clac, |m| m.replace(is(Mnemonic::And), NOPS), Why::Target),
        (
            "STAC without permission",
            stac,
            |m| {
                m.replace(at_state(at::AC_OK), NOPS);
            },
            Why::Target,
        ),
    ]);
}

#[test]
fn lies_to_the_engine() {
    all_are_refused(&[
        ("no site", load, |m| m.replace(store_to_known, NOPS), Why::Site),
        (
            "a site of another block",
            load,
            |m| {
                m.change(store_to_known, |i| i.set_immediate32(i.immediate32() + 0x1000));
            },
            Why::Site,
        ),
        (
            "half a site",
            load,
            |m| {
                m.change(store_to_known, |i| i.set_immediate32(i.immediate32() + 8));
            },
            Why::Site,
        ),
        (
            "a read that was a write",
            load,
            |m| {
                for site in &mut m.sites {
                    if let Site::Access { write, .. } = site {
                        *write = true;
                    }
                }
            },
            Why::Retry,
        ),
        (
            "a retry behind the check",
            load,
            |m| {
                let to = m.instructions().into_iter().find(access).unwrap().ip() as u32;
                for site in &mut m.sites {
                    if let Site::Access { retry, .. } = site {
                        *retry = to;
                    }
                }
            },
            Why::Unchecked,
        ),
        (
            "a retry in the middle",
            load,
            |m| {
                for site in &mut m.sites {
                    if let Site::Access { retry, .. } = site {
                        *retry += 1;
                    }
                }
            },
            Why::Inside,
        ),
        (
            "no index for the engine",
            known_address,
            |m| {
                m.replace(|i| i.op0_register() == Register::R10D, NOPS);
            },
            Why::Retry,
        ),
        (
            "a link that is no jump's",
            jump_within_page,
            |m| {
                for site in &mut m.sites {
                    if let Site::Link { patch, .. } = site {
                        *patch += 4;
                    }
                }
            },
            Why::Link,
        ),
        (
            "a link that is bound already",
            jump_within_page,
            |m| {
                m.change(leave_jump, |i| i.set_near_branch64(u64::from(AT)));
            },
            Why::Link,
        ),
    ]);
}
