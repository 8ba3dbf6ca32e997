//! x87 registers in the form that GDB shows: full tags and 32-bit words.

use kasane_cpu::VectorState;

use super::table::X87;

/// Tags of a register (SDM vol. 1 §8.1.7).
mod tag {
    pub(super) const VALID: u32 = 0;
    pub(super) const ZERO: u32 = 1;
    pub(super) const SPECIAL: u32 = 2;
    pub(super) const EMPTY: u32 = 3;
}

/// The ten bytes of a register as a number.
pub(super) fn from_bytes(bytes: [u8; 10]) -> u128 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u128::from(*byte))
}

/// The low ten bytes of a number.
pub(super) fn to_bytes(value: u128) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
    bytes
}

pub(super) fn word(vector: &VectorState, which: X87) -> u32 {
    match which {
        X87::Control => vector.fcw().into(),
        X87::Status => vector.fsw().into(),
        X87::Tags => full_tags(vector),
        X87::InstructionSelector => vector.fcs.into(),
        X87::InstructionOffset => vector.fip() as u32,
        X87::OperandSelector => vector.fds.into(),
        X87::OperandOffset => vector.fdp() as u32,
        X87::Opcode => vector.fop().into(),
    }
}

pub(super) fn set_word(vector: &mut VectorState, which: X87, value: u32) {
    let half = value as u16;
    match which {
        X87::Control => vector.set_fcw(half),
        X87::Status => vector.set_fsw(half),
        X87::Tags => vector.set_ftw(abridged(value)),
        X87::InstructionSelector => vector.fcs = half,
        X87::InstructionOffset => vector.set_fip(value.into()),
        X87::OperandSelector => vector.fds = half,
        X87::OperandOffset => vector.set_fdp(value.into()),
        X87::Opcode => vector.set_fop(half & 0x7FF),
    }
}

/// Two bits for each physical register: what FNSTENV stores.
fn full_tags(vector: &VectorState) -> u32 {
    let top = (vector.fsw() >> 11 & 7) as u8;
    let one = |physical: u8| {
        let tag = if vector.ftw() >> physical & 1 == 0 {
            tag::EMPTY
        } else {
            class(from_bytes(vector.st(physical.wrapping_sub(top) & 7)))
        };
        tag << (physical * 2)
    };
    (0..8).map(one).sum()
}

fn class(value: u128) -> u32 {
    let mantissa = value as u64;
    match (value >> 64 & 0x7FFF, mantissa) {
        (0, 0) => tag::ZERO,
        (0 | 0x7FFF, _) => tag::SPECIAL,
        _ if mantissa >> 63 == 0 => tag::SPECIAL,
        _ => tag::VALID,
    }
}

/// One bit for each physical register: set where it is not empty.
fn abridged(tags: u32) -> u8 {
    (0..8).filter(|n| tags >> (n * 2) & 3 != tag::EMPTY).fold(0, |bits, n| bits | 1 << n)
}
