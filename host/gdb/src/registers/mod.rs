//! The registers that GDB sees: one table that makes the target description, the order of bytes
//! in the `g` packet, and the single accesses.
//!
//! The features of the names `org.gnu.gdb.i386.*` are GDB's own, and it insists on the names in
//! them (GDB manual, "i386 Features"); `org.kasane.system` is ours, which GDB shows as it is.

mod access;
mod description;
mod table;
mod x87;

pub(crate) use access::{read, set_of, write};
pub(crate) use description::target_xml;
pub(crate) use table::{Register, all, by_number};

use std::num::NonZeroUsize;

use gdbstub::arch::{Arch, RegId, Registers};
use kasane_cpu::CpuState;

/// x86-64 with everything that an operating system's author wants to see.
pub(crate) enum Processor {}

impl Arch for Processor {
    type Usize = u64;
    type Registers = RegisterBytes;
    type BreakpointKind = usize;
    type RegId = &'static Register;

    fn target_description_xml() -> Option<&'static str> {
        Some(target_xml())
    }
}

impl RegId for &'static Register {
    fn from_raw_id(id: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        by_number(id).map(|register| (register, NonZeroUsize::new(register.bytes())))
    }
}

/// All registers, in the order of the table, as the `g` packet has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RegisterBytes(Vec<u8>);

impl RegisterBytes {
    /// Those of `state`.
    pub(crate) fn of(state: &CpuState) -> Self {
        Self(all().flat_map(|register| value_bytes(register, state)).collect())
    }

    /// The registers with their bytes; those that the packet does not reach are left out.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static Register, &[u8])> {
        let mut rest = self.0.as_slice();
        all().map_while(move |register| {
            let (value, after) = rest.split_at_checked(register.bytes())?;
            rest = after;
            Some((register, value))
        })
    }
}

/// A register's value in little-endian bytes.
pub(crate) fn value_bytes(register: &Register, state: &CpuState) -> Vec<u8> {
    read(state, register.what).to_le_bytes().into_iter().take(register.bytes()).collect()
}

impl Registers for RegisterBytes {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        let pc = self.iter().find(|(register, _)| register.name == "rip");
        pc.and_then(|(_, value)| value.try_into().ok()).map_or(0, u64::from_le_bytes)
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        self.0.iter().for_each(|byte| write_byte(Some(*byte)));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.0 = bytes.to_vec();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
