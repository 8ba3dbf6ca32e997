//! The inline TLB's checks, made once: they are most of the code, and the same everywhere but for
//! their jump's target.

use alloc::vec::Vec;

use crate::asm::{Asm, Condition, Jump, Mem, reg};
use crate::layout::{CLASSES, TLB_ROTATION, at};
use crate::stubs::CHECKED_SIZES;

/// Bytes of a check at most.
const LONGEST: usize = 48;

/// How the operand is reached behind a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// R10 is its page's addend.
    ByAddend,
    /// R9 is its host address.
    ByHost,
    /// The caller sees to it.
    Otherwise,
}

#[derive(Clone, Copy)]
struct Check {
    bytes: [u8; LONGEST],
    len: usize,
    jump: usize,
}

/// All of them.
pub(super) struct Checks(Vec<Check>);

fn number(class: usize, write: bool, size: usize, reached: Reached) -> usize {
    let way = class.wrapping_mul(2).wrapping_add(usize::from(write));
    let sized = way.wrapping_mul(CHECKED_SIZES.len()).wrapping_add(size);
    sized.wrapping_mul(2).wrapping_add(usize::from(reached == Reached::ByHost))
}

impl Checks {
    pub(super) fn new() -> Self {
        let mut all = Vec::new();
        for class in 0..CLASSES {
            for write in [false, true] {
                for size in CHECKED_SIZES {
                    for reached in [Reached::ByAddend, Reached::ByHost] {
                        let mut asm = Asm::default();
                        let Jump(jump) = check(&mut asm, class, write, size, reached);
                        let len = asm.here();
                        let mut bytes = [0; LONGEST];
                        for (to, from) in bytes.iter_mut().zip(asm.code) {
                            *to = from;
                        }
                        all.push(Check { bytes, len, jump });
                    }
                }
            }
        }
        Self(all)
    }
    /// Emits the check of an access to the address in R9: the jump is taken if it is refused.
    pub(super) fn emit(
        &self,
        asm: &mut Asm,
        (class, write, size): (usize, bool, u32),
        reached: Reached,
    ) -> Jump {
        let known = CHECKED_SIZES.iter().position(|known| *known == size);
        let made = known
            .filter(|_| reached != Reached::Otherwise)
            .and_then(|size| self.0.get(number(class, write, size, reached)));
        let Some(made) = made else { return check(asm, class, write, size, reached) };
        let begin = asm.here();
        asm.sequence(&made.bytes, made.len);
        Jump(begin.wrapping_add(made.jump))
    }
}

fn check(asm: &mut Asm, class: usize, write: bool, size: u32, reached: Reached) -> Jump {
    let tags = if write { at::write_tags(class) } else { at::read_tags(class) };
    asm.bytes(&[0xC4, 0x43, 0x7B, 0xF0, 0xD1, TLB_ROTATION]); // rorx r10d, r9d, ..
    asm.op_mem(false, &[0x23], reg::R10, Mem::state(at::TLB_MASK)); // and r10d, ..
    asm.op_mem(true, &[0x2B], reg::R9, Mem::indexed(tags, reg::R10)); // sub
    is_within(asm, reg::R9, size);
    let refused = asm.jcc(Condition::Above);
    match reached {
        Reached::ByAddend => asm.load(reg::R10, Mem::indexed(at::addends(class), reg::R10)),
        Reached::ByHost => {
            asm.op_mem(true, &[0x03], reg::R9, Mem::indexed(at::hosts(class), reg::R10)); // add
        }
        Reached::Otherwise => {}
    }
    refused
}

/// Compares an offset in a page with the last one at which an access may begin.
pub(super) fn is_within(asm: &mut Asm, register: u8, size: u32) {
    match at::last(size) {
        Some(last) => asm.cmp_state(register, last),
        None => asm.cmp_imm(register, 4096i32.wrapping_sub(size as i32)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_once_is_what_would_be_made() {
        let checks = Checks::new();
        for class in 0..CLASSES {
            for write in [false, true] {
                for size in CHECKED_SIZES {
                    for reached in [Reached::ByAddend, Reached::ByHost] {
                        let (mut copied, mut made) = (Asm::default(), Asm::default());
                        let jump = checks.emit(&mut copied, (class, write, size), reached);
                        assert_eq!(check(&mut made, class, write, size, reached), jump);
                        assert_eq!(copied.code, made.code);
                    }
                }
            }
        }
    }
}
