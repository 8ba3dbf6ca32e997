//! Which host register stands for which guest register.

use iced_x86::{Instruction, OpKind, Register};

use super::NotEncodable;
use super::memory::Reach;
use crate::asm::{Mem, reg};
use crate::guest::Guest;

/// A guest register that lives in the state block.
pub(super) fn is_homed(guest: u8) -> bool {
    matches!(guest, 9..=11 | 15)
}

/// The host register of a guest register that has one.
pub(super) fn host_of(guest: u8) -> u8 {
    if guest == reg::RSP { reg::R15 } else { guest }
}

pub(super) fn number(register: Register) -> u8 {
    (register.full_register().number() & 15) as u8
}

/// The registers in the state block that an instruction has as operands.
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
        let mut homed = Self { places: [(0, 0); 4], count: 0, written: 0 };
        for n in 0..instruction.op_count().min(8) {
            let register = instruction.op_register(n);
            if instruction.op_kind(n) != OpKind::Register || !register.is_gpr() {
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
    pub(super) fn places(&self) -> impl Iterator<Item = (u8, u8)> + use<> {
        self.places.into_iter().take(self.count)
    }
    pub(super) fn is_written(&self, guest_register: u8) -> bool {
        self.written >> guest_register & 1 != 0
    }
    pub(super) fn host(&self, guest_register: u8) -> u8 {
        self.places()
            .find(|(known, _)| *known == guest_register)
            .map_or(host_of(guest_register), |(_, scratch)| scratch)
    }
}

pub(super) fn rename_memory(instruction: &mut Instruction, reach: Reach) {
    instruction.set_segment_prefix(Register::None);
    let Mem { base, index, disp } = reach.mem();
    let register = |number: Option<(u8, u8)>| {
        number.map_or(Register::None, |(number, _)| Register::RAX + u32::from(number))
    };
    instruction.set_memory_base(register(base.map(|base| (base, 0))));
    instruction.set_memory_index(register(index));
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
