//! Which host register stands for which guest register.

use iced_x86::{Instruction, OpKind, Register};

use super::NotEncodable;
use super::memory::Reach;
use crate::asm::reg;
use crate::guest::Guest;

/// A guest register that lives in the state block.
#[inline]
pub(super) fn is_homed(guest: u8) -> bool {
    matches!(guest, 9..=11 | 15)
}

/// The host register of a guest register that has one.
#[inline]
pub(super) fn host_of(guest: u8) -> u8 {
    if guest == reg::RSP { reg::R15 } else { guest }
}

/// The number of the general register that this is, or is a part of; of another register its own.
#[inline]
pub(super) fn number(register: Register) -> u8 {
    const AX: u32 = Register::AX as u32;
    const SPL: u32 = Register::SPL as u32;
    const AL: u32 = Register::AL as u32;
    // In iced's numbering 8 low and high bytes come first, then the other bytes from SPL on, and
    // then 16 registers of each width.
    let place = register as u32;
    let number = match place {
        AX.. => {
            return if place <= Register::R15 as u32 {
                (place.wrapping_sub(AX) & 15) as u8
            } else {
                (register.full_register().number() & 15) as u8
            };
        }
        SPL.. => place.wrapping_sub(SPL).wrapping_add(4),
        AL.. => place.wrapping_sub(AL) & 3,
        0 => 0,
    };
    number as u8
}

/// What is unusual about the registers that an instruction has as operands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Unusual(u8);

impl Unusual {
    const HOMED: u8 = 1;
    /// RSP, which has another host register.
    const STACK: u8 = 2;
    const HIGH_BYTE: u8 = 4;

    fn of_register(register: Register) -> u8 {
        use Register::{AH, BH, CH, DH};
        match register {
            AH | CH | DH | BH => Self::HIGH_BYTE,
            _ if !register.is_gpr() => 0,
            _ if is_homed(number(register)) => Self::HOMED,
            _ if number(register) == reg::RSP => Self::STACK,
            _ => 0,
        }
    }
    /// That of each register.
    pub(super) fn table() -> [u8; 256] {
        let mut table = [0; 256];
        for register in Register::values() {
            if let Some(place) = table.get_mut(register as usize) {
                *place = Self::of_register(register);
            }
        }
        table
    }
    /// An operand that is no register counts as none. Behind the fourth there are only constants.
    #[inline]
    pub(super) fn of(table: &[u8; 256], instruction: &Instruction) -> Self {
        let one = |register: Register| table.get(register as usize).copied().unwrap_or(0);
        Self(
            one(instruction.op0_register())
                | one(instruction.op1_register())
                | one(instruction.op2_register())
                | one(instruction.op3_register()),
        )
    }
    /// All registers stay what they are, and none is AH, CH, DH or BH.
    pub(super) fn is_nothing(self) -> bool {
        self.0 == 0
    }
    pub(super) fn has_high_byte(self) -> bool {
        self.0 & Self::HIGH_BYTE != 0
    }
    /// Nothing but that.
    pub(super) fn is_high_byte(self) -> bool {
        self.0 == Self::HIGH_BYTE
    }
    pub(super) fn has_homed(self) -> bool {
        self.0 & Self::HOMED != 0
    }
}

/// The registers in the state block that an instruction has as operands.
#[derive(Default)]
pub(super) struct Homed {
    /// Guest register and the scratch register that stands for it.
    places: [(u8, u8); 4],
    pub(super) count: usize,
    /// Bit n: guest register n is written.
    written: u16,
}

impl Homed {
    pub(super) fn of(guest: &Guest) -> Self {
        let instruction = &guest.instruction;
        let mut homed = Self::default();
        // Behind the fourth operand there are only constants.
        let operands = [
            (instruction.op0_kind(), instruction.op0_register()),
            (instruction.op1_kind(), instruction.op1_register()),
            (instruction.op2_kind(), instruction.op2_register()),
            (instruction.op3_kind(), instruction.op3_register()),
        ];
        let count = instruction.op_count() as usize;
        for (n, (kind, register)) in operands.into_iter().take(count).enumerate() {
            if kind != OpKind::Register || !register.is_gpr() {
                continue;
            }
            let guest_register = number(register);
            if !is_homed(guest_register) {
                continue;
            }
            if guest.written_operands >> n & 1 != 0 {
                homed.written |= 1 << guest_register;
            }
            let known = homed.places().any(|(known, _)| known == guest_register);
            if !known && let Some(place) = homed.places.get_mut(homed.count) {
                place.0 = guest_register;
                homed.count = homed.count.wrapping_add(1);
            }
        }
        homed
    }
    pub(super) fn assign(&mut self, free: &[u8]) -> Result<(), NotEncodable> {
        for (n, place) in self.places.iter_mut().take(self.count).enumerate() {
            place.1 = *free.get(n).ok_or(NotEncodable)?;
        }
        Ok(())
    }
    #[inline]
    pub(super) fn places(&self) -> impl Iterator<Item = (u8, u8)> + use<> {
        self.places.into_iter().take(self.count)
    }
    pub(super) fn is_written(&self, guest_register: u8) -> bool {
        self.written >> guest_register & 1 != 0
    }
    #[inline]
    pub(super) fn host(&self, guest_register: u8) -> u8 {
        self.places()
            .find(|(known, _)| *known == guest_register)
            .map_or(host_of(guest_register), |(_, scratch)| scratch)
    }
}

pub(super) fn rename_memory(instruction: &mut Instruction, reach: Reach) {
    instruction.set_segment_prefix(Register::None);
    let (base, index, disp) = match reach {
        Reach::Base { base, disp } => (base, Register::R10, disp),
        Reach::Host => (reg::R9, Register::None, 0),
    };
    instruction.set_memory_base(Register::RAX + u32::from(base));
    instruction.set_memory_index(index);
    instruction.set_memory_index_scale(1);
    instruction.set_memory_displacement64(i64::from(disp) as u64);
    instruction.set_memory_displ_size(u32::from(disp != 0));
}

pub(super) fn rename_registers(instruction: &mut Instruction, homed: &Homed) {
    for n in 0..instruction.op_count().min(8) {
        let register = instruction.op_register(n);
        if instruction.op_kind(n) == OpKind::Register && register.is_gpr() {
            let host = homed.host(number(register));
            instruction.set_op_register(n, with_number(register, host));
        }
    }
}

/// The register of the same width with another number.
pub(super) fn with_number(register: Register, host: u8) -> Register {
    use Register::{AH, AL, AX, BH, CH, DH, EAX, R8L, RAX, SPL};
    let host_u32 = u32::from(host);
    match register {
        AH | CH | DH | BH => register,
        _ if register.is_gpr64() => RAX + host_u32,
        _ if register.is_gpr32() => EAX + host_u32,
        _ if register.is_gpr16() => AX + host_u32,
        _ => match host {
            0..=3 => AL + host_u32,
            4..=7 => SPL + host_u32.wrapping_sub(4),
            _ => R8L + host_u32.wrapping_sub(8),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_full_registers() {
        for register in Register::values() {
            let expected = (register.full_register().number() & 15) as u8;
            assert_eq!(number(register), expected, "{register:?}");
        }
    }
}
