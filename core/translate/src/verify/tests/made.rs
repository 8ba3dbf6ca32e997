//! Blocks made by hand: what the emitter does not do, done rightly and wrongly.

use super::{Made, USER, Why};
use crate::asm::{Asm, Condition, Mem, reg};
use crate::layout::{TLB_MASK, TLB_ROTATION, at};

const RBX: u8 = 3;
const RCX: u8 = 1;
const CLASS: usize = 1;

/// The check of some bytes at `[rbx]` for reading; who does not pass it leaves at the end, after
/// what `behind` emits. R10 is the addend then.
fn checked(size: i32, before: impl FnOnce(&mut Asm), behind: impl FnOnce(&mut Asm)) -> Made {
    let mut asm = Asm::default();
    asm.mov(reg::R9, RBX);
    asm.bytes(&[0xC4, 0x43, 0x7B, 0xF0, 0xD1, TLB_ROTATION]); // rorx r10d, r9d, ..
    asm.op_reg(false, &[0x81], 4, reg::R10); // and r10d, imm32
    asm.bytes(&TLB_MASK.to_le_bytes());
    before(&mut asm);
    asm.op_mem(true, &[0x2B], reg::R9, Mem::indexed(at::read_tags(CLASS), reg::R10)); // sub
    asm.cmp_imm(reg::R9, 4096 - size);
    let slow = asm.jcc(Condition::Above);
    asm.load(reg::R10, Mem::indexed(at::addends(CLASS), reg::R10));
    behind(&mut asm);
    asm.bind(slow);
    Made::by_hand(USER, asm.code)
}
fn reached(base: u8, disp: i32) -> Mem {
    Mem::new(Some(base), Some((reg::R10, 0)), disp)
}

#[test]
fn whatever_lies_within_a_check_can_be_reached_by_it() {
    let made = checked(
        32,
        |_| {},
        |asm| {
            asm.load(0, reached(RBX, 0));
            asm.lea(true, RBX, Mem::base(RBX, 16));
            asm.load(0, reached(RBX, -16));
            asm.load(0, reached(RBX, 8));
            asm.mov(RCX, RBX);
            asm.op_reg(true, &[0x01], reg::R10, RCX); // add rcx, r10
            asm.load(0, Mem::base(RCX, 4));
        },
    );
    assert_eq!(made.verify(), Ok(()));
}

#[test]
fn what_lies_outside_can_not() {
    for disp in [-1, 25, 32, i32::MIN, i32::MAX] {
        let made = checked(32, |_| {}, |asm| asm.load(0, reached(RBX, disp)));
        assert_eq!(made.verify(), Err(Why::Unchecked), "{disp}");
    }
}

#[test]
fn a_base_that_was_written_is_another_one() {
    let written: [&[u8]; 5] = [
        &[0x48, 0x89, 0xCB],       // mov rbx, rcx
        &[0x48, 0x01, 0xCB],       // add rbx, rcx
        &[0x89, 0xDB],             // mov ebx, ebx
        &[0xB3, 0x00],             // mov bl, 0
        &[0x48, 0x0F, 0xB1, 0xCB], // cmpxchg rbx, rcx
    ];
    for bytes in written {
        let made = checked(
            8,
            |_| {},
            |asm| {
                asm.bytes(bytes);
                asm.load(0, reached(RBX, 0));
            },
        );
        assert_eq!(made.verify(), Err(Why::Unchecked), "{bytes:02x?}");
    }
}

#[test]
fn a_way_around_a_check_is_found_where_ways_meet() {
    let made = checked(
        8,
        |_| {},
        |asm| {
            // The addend is right on both ways, but one of them changes the base.
            let same = asm.jcc(Condition::Equal);
            asm.lea(true, RBX, Mem::base(RBX, 8));
            asm.bind(same);
            asm.load(0, reached(RBX, 0));
        },
    );
    assert_eq!(made.verify(), Err(Why::Unchecked));
    let made = checked(
        8,
        |_| {},
        |asm| {
            // The same on both ways.
            let same = asm.jcc(Condition::Equal);
            asm.lea(true, RCX, Mem::base(RBX, 8));
            asm.bind(same);
            asm.load(0, reached(RBX, 0));
        },
    );
    assert_eq!(made.verify(), Ok(()));
}

#[test]
fn an_index_that_is_older_than_its_address_selects_nothing() {
    let made = checked(8, |asm| asm.lea(true, reg::R9, Mem::base(reg::R9, 1)), |_| {});
    assert_eq!(made.verify(), Err(Why::Table));
}
