//! The tags of a Multiboot2 loader (Multiboot2 Specification 2.0 §3.6).

use crate::Module;
use crate::memory_map::{Region, RegionKind};
use crate::read::{text, u32_at, u64_at};

const END: u32 = 0;
const COMMAND_LINE: u32 = 1;
const MODULE: u32 = 3;
const MEMORY_MAP: u32 = 6;
const ACPI_1: u32 = 14;
const ACPI_2: u32 = 15;

/// Bytes of a tag's head.
const HEAD: usize = 8;

/// The boot information, as bytes.
#[derive(Clone, Copy, Debug)]
pub struct Information<'a> {
    bytes: &'a [u8],
    address: u64,
}

impl<'a> Information<'a> {
    /// The information's length, by its first eight bytes.
    #[must_use]
    pub fn len_of(head: &[u8]) -> Option<u32> {
        u32_at(head, 0)
    }

    /// `bytes` is the information that lies at `address`.
    #[must_use]
    pub const fn new(bytes: &'a [u8], address: u64) -> Self {
        Self { bytes, address }
    }

    /// The tags' types, payloads and places, until the end or the first that is malformed.
    fn tags(&self) -> impl Iterator<Item = (u32, &'a [u8], usize)> + use<'a> {
        let bytes = self.bytes;
        let mut at = HEAD;
        core::iter::from_fn(move || {
            let kind = u32_at(bytes, at)?;
            let len = u32_at(bytes, at.checked_add(4)?)? as usize;
            if kind == END || len < HEAD {
                return None;
            }
            let body = at.checked_add(HEAD)?;
            let payload = bytes.get(body..at.checked_add(len)?)?;
            at = at.checked_add(len)?.checked_next_multiple_of(8)?;
            Some((kind, payload, body))
        })
    }

    fn find(&self, wanted: u32) -> Option<(&'a [u8], usize)> {
        self.tags().find(|(kind, _, _)| *kind == wanted).map(|(_, payload, at)| (payload, at))
    }

    /// The image's command line.
    #[must_use]
    pub fn command_line(&self) -> &'a str {
        self.find(COMMAND_LINE).map_or("", |(payload, _)| text(payload))
    }

    /// The modules.
    pub fn modules(&self) -> impl Iterator<Item = Module<'a>> + use<'a> {
        self.tags().filter(|(kind, _, _)| *kind == MODULE).filter_map(|(_, payload, _)| {
            let (start, end) = (u32_at(payload, 0)?, u32_at(payload, 4)?);
            let len = end.checked_sub(start)?.into();
            let command_line = text(payload.get(8..)?);
            Some(Module { command_line, start: start.into(), len })
        })
    }

    /// The memory map.
    pub fn regions(&self) -> impl Iterator<Item = Region> + use<'a> {
        let (payload, _) = self.find(MEMORY_MAP).unwrap_or_default();
        let size = u32_at(payload, 0).unwrap_or(0) as usize;
        let entries = payload.get(8..).unwrap_or_default();
        entries.chunks_exact(size.max(20)).filter_map(|entry| {
            Some(Region {
                start: u64_at(entry, 0)?,
                len: u64_at(entry, 8)?,
                kind: RegionKind::from_number(u32_at(entry, 16)?),
            })
        })
    }

    /// Where the copy of the ACPI root pointer is, the newer one if there are two.
    #[must_use]
    pub fn rsdp(&self) -> Option<u64> {
        let (_, at) = self.find(ACPI_2).or_else(|| self.find(ACPI_1))?;
        self.address.checked_add(at as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn tag(kind: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend((payload.len() as u32 + 8).to_le_bytes());
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    fn information(tags: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = std::vec![0; 8];
        bytes.extend(tags.concat());
        bytes.extend(tag(END, &[]));
        let len = bytes.len() as u32;
        bytes[..4].copy_from_slice(&len.to_le_bytes());
        bytes
    }

    fn module(start: u32, end: u32, name: &str) -> Vec<u8> {
        let payload = [&start.to_le_bytes(), &end.to_le_bytes(), name.as_bytes(), &[0]].concat();
        tag(MODULE, &payload)
    }

    #[test]
    fn modules_memory_and_root_pointer_are_found() {
        let mut map = [24u32.to_le_bytes(), 0u32.to_le_bytes()].concat();
        for (start, len, kind) in [(0u64, 0x9_FC00u64, 1u32), (0xF_0000, 0x1_0000, 2)] {
            map.extend(start.to_le_bytes());
            map.extend(len.to_le_bytes());
            map.extend(kind.to_le_bytes());
            map.extend(0u32.to_le_bytes());
        }
        let bytes = information(&[
            tag(COMMAND_LINE, b"quiet\0"),
            module(0x1000, 0x1234, "/vm.toml"),
            tag(MEMORY_MAP, &map),
            tag(ACPI_1, b"RSD PTR "),
        ]);

        let information = Information::new(&bytes, 0x5000);

        let modules: Vec<_> = information.modules().map(|m| (m.name(), m.start, m.len)).collect();
        assert_eq!(modules, [("vm.toml", 0x1000, 0x234)]);
        let regions: Vec<_> = information.regions().map(|r| (r.end(), r.kind)).collect();
        assert_eq!(regions, [(0x9_FC00, RegionKind::Usable), (0x10_0000, RegionKind::Reserved)]);
        assert_eq!(information.command_line(), "quiet");
        let rsdp = (information.rsdp().unwrap() - 0x5000) as usize;
        assert_eq!(&bytes[rsdp..rsdp + 8], b"RSD PTR ");
    }

    #[test]
    fn a_tag_that_is_too_long_or_too_short_ends_the_list() {
        let mut long = information(&[module(0, 1, "a"), tag(COMMAND_LINE, b"x\0")]);
        long[12] = 0xFF;
        let mut short = information(&[module(0, 1, "a")]);
        short[12] = 3;

        assert_eq!(Information::new(&long, 0).modules().count(), 0);
        assert_eq!(Information::new(&long, 0).command_line(), "");
        assert_eq!(Information::new(&short, 0).modules().count(), 0);
    }

    #[test]
    fn a_module_that_ends_before_it_begins_is_left_out() {
        let bytes = information(&[module(2, 1, "a"), module(1, 2, "b")]);

        let names: Vec<_> = Information::new(&bytes, 0).modules().map(|m| m.name()).collect();

        assert_eq!(names, ["b"]);
    }
}
