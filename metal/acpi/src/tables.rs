//! From the root pointer to a table by its signature (ACPI 6.5 §5.2.5 to §5.2.8).

use alloc::vec::Vec;
use core::fmt;

use crate::read::{array, u32_at, u64_at};

/// Bytes of a table's head.
pub(crate) const HEAD: usize = 36;
/// No table that is of use here is longer; a bound on what is read.
const TABLE_MAX: u32 = 4 << 20;
/// More tables than any machine has.
const TABLES_MAX: usize = 256;

/// Physical memory, as far as it may be read.
pub trait Memory {
    /// Bytes at a physical address.
    fn bytes(&self, at: u64, len: u64) -> Option<&[u8]>;
}

/// Why there are no tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TablesError {
    /// No root pointer there, or a damaged one.
    NoRootPointer,
    /// The root table is not readable, or damaged.
    NoRootTable,
}

impl fmt::Display for TablesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRootPointer => "the firmware gave no sound ACPI root pointer",
            Self::NoRootTable => "the ACPI root table is damaged",
        })
    }
}

impl core::error::Error for TablesError {}

/// A table: all its bytes, head and all, with the right sum.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    /// Four letters.
    pub signature: [u8; 4],
    /// The bytes.
    pub bytes: &'a [u8],
}

/// The tables of a machine.
pub struct Tables<'a> {
    memory: &'a dyn Memory,
    addresses: Vec<u64>,
}

impl<'a> Tables<'a> {
    /// Finds the tables by the root pointer at `rsdp`.
    ///
    /// # Errors
    /// When root pointer or root table are damaged.
    pub fn new(memory: &'a dyn Memory, rsdp: u64) -> Result<Self, TablesError> {
        let pointer = memory.bytes(rsdp, 20).ok_or(TablesError::NoRootPointer)?;
        if !pointer.starts_with(b"RSD PTR ") || sum(pointer) != 0 {
            return Err(TablesError::NoRootPointer);
        }
        let old = u32_at(pointer, 16).unwrap_or(0).into();
        let extended = pointer.get(15).copied().unwrap_or(0) >= 2;
        let new = extended.then(|| memory.bytes(rsdp, 36)).flatten();
        let new = new.filter(|bytes| sum(bytes) == 0).and_then(|bytes| u64_at(bytes, 24));
        let (root, width) = match new {
            Some(address) if address != 0 => (address, 8),
            Some(_) | None => (old, 4),
        };
        let table = table(memory, root).ok_or(TablesError::NoRootTable)?;
        let entries = table.bytes.get(HEAD..).unwrap_or_default();
        let addresses = entries.chunks_exact(width).take(TABLES_MAX).filter_map(|entry| {
            if width == 8 { u64_at(entry, 0) } else { u32_at(entry, 0).map(u64::from) }
        });
        Ok(Self { memory, addresses: addresses.collect() })
    }

    /// All tables that are sound.
    pub fn all(&self) -> impl Iterator<Item = Table<'a>> + '_ {
        self.addresses.iter().filter_map(|address| table(self.memory, *address))
    }

    /// The first table of this signature.
    #[must_use]
    pub fn find(&self, signature: [u8; 4]) -> Option<Table<'a>> {
        self.all().find(|table| table.signature == signature)
    }

    /// The table at an address that another table names.
    #[must_use]
    pub fn at(&self, address: u64) -> Option<Table<'a>> {
        table(self.memory, address)
    }
}

fn table(memory: &dyn Memory, at: u64) -> Option<Table<'_>> {
    let head = memory.bytes(at, HEAD as u64)?;
    let len = u32_at(head, 4).filter(|len| (HEAD as u32..=TABLE_MAX).contains(len))?;
    let bytes = memory.bytes(at, len.into())?;
    (sum(bytes) == 0).then_some(Table { signature: array(bytes, 0)?, bytes })
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use std::vec;

    /// Memory from address 0x1000 on.
    pub(crate) struct Bytes(pub(crate) Vec<u8>);

    impl Memory for Bytes {
        fn bytes(&self, at: u64, len: u64) -> Option<&[u8]> {
            let start = at.checked_sub(0x1000)? as usize;
            self.0.get(start..start.checked_add(len as usize)?)
        }
    }

    pub(crate) fn sealed(mut bytes: Vec<u8>, sum_at: usize) -> Vec<u8> {
        bytes[sum_at] = 0;
        bytes[sum_at] = 0u8.wrapping_sub(sum(&bytes));
        bytes
    }

    pub(crate) fn table_of(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut bytes = signature.to_vec();
        bytes.extend((HEAD as u32 + body.len() as u32).to_le_bytes());
        bytes.resize(HEAD, 0);
        bytes.extend(body);
        sealed(bytes, 9)
    }

    /// A root pointer of version 1 at 0x1000, its root table at 0x1100, tables from 0x1200 on,
    /// 0x200 bytes apart.
    pub(crate) fn machine(tables: &[Vec<u8>]) -> Bytes {
        let mut memory = vec![0; 0x200 + 0x200 * tables.len()];
        let mut pointer = b"RSD PTR \0KASANE\0".to_vec();
        pointer.extend(0x1100u32.to_le_bytes());
        memory[..20].copy_from_slice(&sealed(pointer, 8));
        let addresses = (0..tables.len() as u32).flat_map(|n| (0x1200 + n * 0x200).to_le_bytes());
        let root = table_of(b"RSDT", &addresses.collect::<Vec<u8>>());
        memory[0x100..0x100 + root.len()].copy_from_slice(&root);
        for (n, table) in tables.iter().enumerate() {
            let at = 0x200 + n * 0x200;
            memory[at..at + table.len()].copy_from_slice(table);
        }
        Bytes(memory)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;

    #[test]
    fn tables_are_found_by_their_signature() {
        let memory = machine(&[table_of(b"APIC", &[1, 2]), table_of(b"FACP", &[])]);

        let tables = Tables::new(&memory, 0x1000).unwrap();

        assert_eq!(tables.find(*b"APIC").unwrap().bytes.get(HEAD..), Some(&[1, 2][..]));
        assert_eq!(tables.all().count(), 2);
        assert!(tables.find(*b"MCFG").is_none());
    }

    #[test]
    fn a_damaged_table_is_none() {
        let mut damaged = machine(&[table_of(b"APIC", &[1, 2])]);
        damaged.0[0x200 + HEAD] = 9;
        let mut long = machine(&[table_of(b"APIC", &[1, 2])]);
        long.0[0x205] = 0xFF;

        for memory in [damaged, long] {
            assert_eq!(Tables::new(&memory, 0x1000).unwrap().all().count(), 0);
        }
    }

    #[test]
    fn a_damaged_root_is_an_error() {
        let sound = machine(&[]);
        let mut pointer = machine(&[]);
        pointer.0[9] ^= 1;
        let mut root = machine(&[]);
        root.0[0x100] ^= 1;

        let error = |memory: &Bytes, at| Tables::new(memory, at).err();
        assert_eq!(error(&sound, 0x1000), None);
        assert_eq!(error(&sound, 0), Some(TablesError::NoRootPointer));
        assert_eq!(error(&pointer, 0x1000), Some(TablesError::NoRootPointer));
        assert_eq!(error(&root, 0x1000), Some(TablesError::NoRootTable));
    }
}
