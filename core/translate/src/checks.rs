//! The inline TLB's check (`emit::memory`): in line, where it is made once and copied, because it is
//! most of the code and the same everywhere but for its jump's target; and in stubs.

use alloc::vec::Vec;

use crate::asm::{Asm, Condition, Jump, Mem, reg};
use crate::layout::{CLASSES, TLB_ROTATION, at};

/// Sizes of accesses whose checks are made once.
pub(crate) const CHECKED_SIZES: [u32; 6] = [1, 2, 4, 8, 16, 32];
/// The number of a size among them, which are the first powers of two.
pub(crate) fn number_of(size: u32) -> Option<usize> {
    (size.is_power_of_two() && size <= 32).then(|| size.trailing_zeros() as usize)
}
/// Bytes of a check at most.
const LONGEST: usize = 48;

/// How the operand is reached behind a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    /// R10 is its page's addend.
    ByAddend,
    /// R9 is its host address.
    ByHost,
    /// The caller sees to it.
    Otherwise,
}

/// Code that is the same everywhere.
#[derive(Clone, Copy)]
pub(crate) struct Fixed {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Fixed {
    pub(crate) fn of(asm: &Asm) -> Self {
        let mut bytes = [0; LONGEST];
        for (to, from) in bytes.iter_mut().zip(&asm.code) {
            *to = *from;
        }
        Self { bytes, len: asm.here().min(LONGEST) }
    }
    pub(crate) fn emit(&self, asm: &mut Asm) {
        asm.sequence(&self.bytes, self.len);
    }
}

#[derive(Clone, Copy)]
struct Check {
    code: Fixed,
    jump: usize,
}

/// All of them.
pub(crate) struct Checks(Vec<Check>);

fn number(class: usize, write: bool, size: usize, reached: Reached) -> usize {
    let way = class.wrapping_mul(2).wrapping_add(usize::from(write));
    let sized = way.wrapping_mul(CHECKED_SIZES.len()).wrapping_add(size);
    sized.wrapping_mul(2).wrapping_add(usize::from(reached == Reached::ByHost))
}

impl Checks {
    pub(crate) fn new() -> Self {
        let mut all = Vec::new();
        for class in 0..CLASSES {
            for write in [false, true] {
                for size in CHECKED_SIZES {
                    for reached in [Reached::ByAddend, Reached::ByHost] {
                        let mut asm = Asm::default();
                        let Jump(jump) = check(&mut asm, (class, write, size), reached, 0);
                        all.push(Check { code: Fixed::of(&asm), jump });
                    }
                }
            }
        }
        Self(all)
    }
    /// Emits the check of an access to the address in R9: the jump is taken if it is refused.
    pub(crate) fn emit(
        &self,
        asm: &mut Asm,
        (class, write, size): (usize, bool, u32),
        reached: Reached,
    ) -> Jump {
        let made = number_of(size)
            .filter(|_| reached != Reached::Otherwise)
            .and_then(|size| self.0.get(number(class, write, size, reached)));
        let Some(made) = made else { return check(asm, (class, write, size), reached, 0) };
        let begin = asm.here();
        made.code.emit(asm);
        Jump(begin.wrapping_add(made.jump))
    }
}

/// `pushed`: bytes by which RSP is lower than in translated code.
pub(crate) fn check(
    asm: &mut Asm,
    (class, write, size): (usize, bool, u32),
    reached: Reached,
    pushed: i32,
) -> Jump {
    let here = |mem: Mem| mem.moved(pushed);
    let entry = |table: usize| here(Mem::indexed(table, reg::R10));
    let tags = if write { at::write_tags(class) } else { at::read_tags(class) };
    asm.bytes(&[0xC4, 0x43, 0x7B, 0xF0, 0xD1, TLB_ROTATION]); // rorx r10d, r9d, ..
    asm.op_mem(false, &[0x23], reg::R10, here(Mem::state(at::TLB_MASK))); // and r10d, ..
    asm.op_mem(true, &[0x2B], reg::R9, entry(tags)); // sub
    is_within(asm, reg::R9, size, pushed);
    let refused = asm.jcc(Condition::Above);
    match reached {
        Reached::ByAddend => asm.load(reg::R10, entry(at::addends(class))),
        Reached::ByHost => asm.op_mem(true, &[0x03], reg::R9, entry(at::hosts(class))), // add
        Reached::Otherwise => {}
    }
    refused
}

/// Compares an offset in a page with the last one at which an access may begin. `pushed` as above.
pub(crate) fn is_within(asm: &mut Asm, register: u8, size: u32, pushed: i32) {
    match at::last(size).map(Mem::state) {
        Some(last) => {
            let last = last.moved(pushed);
            asm.op_mem(true, &[0x3B], register, last); // cmp
        }
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
                        assert_eq!(check(&mut made, (class, write, size), reached, 0), jump);
                        assert_eq!(copied.code, made.code);
                    }
                }
            }
        }
    }
}
