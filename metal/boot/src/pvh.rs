//! What a PVH loader leaves behind: `hvm_start_info` and what it points to
//! (Xen, public/arch-x86/hvm/start_info.h).

use crate::memory_map::{Region, RegionKind};
use crate::read::{u32_at, u64_at};

/// The first word of a start info.
pub const MAGIC: u32 = 0x336E_C578;
/// Bytes of the structure, version 1.
pub const START_INFO_LEN: u64 = 56;
/// Bytes of an entry of the module list.
pub const MODULE_LEN: u64 = 32;
/// Bytes of an entry of the memory map.
pub const REGION_LEN: u64 = 24;

/// A list somewhere in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List {
    /// Physical address of the first entry.
    pub address: u64,
    /// How many entries.
    pub count: u32,
}

/// The start info.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartInfo {
    /// The modules, [`MODULE_LEN`] bytes each.
    pub modules: List,
    /// Physical address of the command line; 0 is none.
    pub command_line: u64,
    /// Physical address of the ACPI root pointer; 0 is none.
    pub rsdp: u64,
    /// The memory map, [`REGION_LEN`] bytes each.
    pub memory_map: List,
}

impl StartInfo {
    /// Reads the structure; nothing if it is none, or older than version 1 (without a memory map).
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let sound = u32_at(bytes, 0)? == MAGIC && u32_at(bytes, 4)? >= 1;
        let info = Self {
            modules: List { address: u64_at(bytes, 16)?, count: u32_at(bytes, 12)? },
            command_line: u64_at(bytes, 24)?,
            rsdp: u64_at(bytes, 32)?,
            memory_map: List { address: u64_at(bytes, 40)?, count: u32_at(bytes, 48)? },
        };
        sound.then_some(info)
    }
}

/// An entry of the module list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleEntry {
    /// Physical address.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// Physical address of its command line; 0 is none.
    pub command_line: u64,
}

/// The entries of a module list.
pub fn modules(bytes: &[u8]) -> impl Iterator<Item = ModuleEntry> + '_ {
    bytes.chunks_exact(MODULE_LEN as usize).filter_map(|entry| {
        Some(ModuleEntry {
            start: u64_at(entry, 0)?,
            len: u64_at(entry, 8)?,
            command_line: u64_at(entry, 16)?,
        })
    })
}

/// The entries of a memory map.
pub fn regions(bytes: &[u8]) -> impl Iterator<Item = Region> + '_ {
    bytes.chunks_exact(REGION_LEN as usize).filter_map(|entry| {
        Some(Region {
            start: u64_at(entry, 0)?,
            len: u64_at(entry, 8)?,
            kind: RegionKind::from_number(u32_at(entry, 16)?),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_start_info_is_read_and_an_older_one_refused() {
        let mut bytes = Vec::new();
        for word in [MAGIC, 1, 0, 2] {
            bytes.extend(word.to_le_bytes());
        }
        for word in [0x1000u64, 0x2000, 0x3000, 0x4000, 5] {
            bytes.extend(word.to_le_bytes());
        }
        let info = StartInfo::parse(&bytes);
        bytes[4] = 0;

        let expected = StartInfo {
            modules: List { address: 0x1000, count: 2 },
            command_line: 0x2000,
            rsdp: 0x3000,
            memory_map: List { address: 0x4000, count: 5 },
        };
        assert_eq!((info, StartInfo::parse(&bytes)), (Some(expected), None));
    }

    #[test]
    fn half_an_entry_is_none() {
        let bytes = [0; REGION_LEN as usize * 2 - 1];

        assert_eq!(regions(&bytes).count(), 1);
    }
}
