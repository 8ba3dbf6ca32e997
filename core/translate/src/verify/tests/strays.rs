//! Mutants that go where they may not, and that tell the engine what is not so.

use iced_x86::{Code, Mnemonic, OpKind, Register};

use super::mutants::{
    CLASS, NOPS, access, all_are_refused, at_state, clac, direct_jump, indirect_call,
    indirect_jump, is, jump_to_other_page, jump_within_page, known_address, load, set_displacement,
    stac, system_call, way_out,
};
use super::{AT, KERNEL, Why};
use crate::layout::at;
use crate::sites::{Site, Way};

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
        (
            "half an instruction",
            load,
            |m| {
                let last = m.instructions().pop().unwrap();
                m.code.truncate((last.ip() as u32 - AT) as usize + 4);
            },
            Why::NoInstruction,
        ),
        ("an open end", jump_to_other_page, |m| m.replace(is(Mnemonic::Jmp), NOPS), Why::End),
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
            "where code was left",
            system_call,
            |m| {
                m.change(at_state(at::SYSCALL_TARGET), set_displacement(at::SITE));
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
                m.change(is(Mnemonic::Ja), |i| i.set_near_branch64(u64::from(AT) + 0x1_0000));
            },
            Why::Target,
        ),
        (
            "to the way in",
            load,
            |m| {
                let enter = u64::from(m.stubs.enter);
                m.change(way_out, |i| i.set_near_branch64(enter));
            },
            Why::Site,
        ),
        (
            "around the check",
            load,
            |m| {
                // JMP from the check's first instruction to the access.
                let to = m.instructions().into_iter().find(access).unwrap().ip();
                let first = m.instructions().into_iter().find(is(Mnemonic::Rorx)).unwrap().ip();
                m.replace(is(Mnemonic::Rorx), &[0xEB, (to - first - 2) as u8]);
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
    ]);
}

#[test]
fn indirect_jumps_to_elsewhere() {
    all_are_refused(&[
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
        (
            "no site",
            load,
            |m| {
                let call = m.instructions().into_iter().find(way_out).unwrap();
                m.code[(call.next_ip() as u32 - AT) as usize] = 0x7F;
            },
            Why::Site,
        ),
        (
            "half a site",
            indirect_jump,
            |m| {
                m.code.pop();
            },
            Why::Site,
        ),
        (
            "no way out",
            load,
            |m| {
                m.change(way_out, |i| i.set_near_branch64(u64::from(AT)));
            },
            Why::Site,
        ),
        (
            "a read that was a write",
            load,
            |m| {
                m.change_sites(|site| {
                    if let Site::Access { way, .. } = site {
                        *way = Way::Write;
                    }
                });
            },
            Why::Retry,
        ),
        (
            "a retry behind the check",
            load,
            |m| {
                let to = m.instructions().into_iter().find(access).unwrap().ip() as u32;
                m.change_sites(|site| {
                    if let Site::Access { retry, .. } = site {
                        *retry = to;
                    }
                });
            },
            Why::Unchecked,
        ),
    ]);
}

#[test]
fn lies_about_retries_and_links() {
    all_are_refused(&[
        (
            "a retry in the middle",
            load,
            |m| {
                m.change_sites(|site| {
                    if let Site::Access { retry, .. } = site {
                        *retry += 1;
                    }
                });
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
                m.change_sites(|site| {
                    if let Site::Link { patch, .. } = site {
                        *patch += 4;
                    }
                });
            },
            Why::Link,
        ),
        (
            "a link that is bound already",
            jump_within_page,
            |m| {
                m.change(direct_jump, |i| i.set_near_branch64(u64::from(AT)));
            },
            Why::Link,
        ),
    ]);
}
