//! ELF executables, 32- and 64-bit, little-endian x86 (System V ABI, chapters 4 and 5).

use alloc::vec::Vec;

use super::BootError;
use super::image::Image;
use super::placement::Placement;

const MAGIC: &[u8; 4] = b"\x7FELF";
const CLASS32: u8 = 1;
const CLASS64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const EXECUTABLE: u16 = 2;
const SHARED: u16 = 3;
const MACHINE_386: u16 = 3;
const MACHINE_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// A bound for hostile headers; kernels have about ten.
const SEGMENTS_MAX: u16 = 256;

/// Whether the file begins like an ELF file.
pub(super) fn is_elf(image: Image<'_>) -> bool {
    image.has(0, MAGIC)
}

/// A program header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    kind: u32,
    offset: u64,
    vaddr: u64,
    paddr: u64,
    file_len: u64,
    memory_len: u64,
    align: u64,
}

/// A checked executable.
pub(super) struct Elf<'a> {
    file: Image<'a>,
    /// The entry point's virtual address.
    entry: u64,
    segments: Vec<Segment>,
}

impl<'a> Elf<'a> {
    /// Reads and checks the headers.
    pub(super) fn read(file: Image<'a>) -> Result<Self, BootError> {
        const WHAT: &str = "the ELF header";
        let class = file.u8(WHAT, 4)?;
        let wide = match class {
            CLASS32 => false,
            CLASS64 => true,
            _ => return Err(bad("the ELF class", class.into(), "1 (32-bit) or 2 (64-bit)")),
        };
        let encoding = file.u8(WHAT, 5)?;
        if encoding != LITTLE_ENDIAN {
            return Err(bad("the ELF data encoding", encoding.into(), "1 (little-endian)"));
        }
        let kind = file.u16(WHAT, 16)?;
        if kind != EXECUTABLE && kind != SHARED {
            return Err(bad("the ELF type", kind.into(), "2 (executable) or 3 (shared)"));
        }
        let machine = file.u16(WHAT, 18)?;
        if machine != MACHINE_386 && machine != MACHINE_X86_64 {
            return Err(bad("the ELF machine", machine.into(), "3 (i386) or 62 (x86-64)"));
        }
        let (entry, table, entry_len_at, expected_len) = if wide {
            (file.u64(WHAT, 24)?, file.u64(WHAT, 32)?, 54, 56)
        } else {
            (file.u32(WHAT, 24)?.into(), file.u32(WHAT, 28)?.into(), 42, 32)
        };
        let entry_len = file.u16(WHAT, entry_len_at)?;
        if entry_len != expected_len {
            return Err(bad("the ELF program header's size", entry_len.into(), "56 or 32"));
        }
        let count = file.u16(WHAT, entry_len_at + 2)?;
        if count == 0 || count > SEGMENTS_MAX {
            return Err(bad("the number of ELF program headers", count.into(), "1 to 256"));
        }
        let mut segments = Vec::new();
        for n in 0..u64::from(count) {
            let at = table.saturating_add(n * u64::from(entry_len));
            segments.push(Segment::read(file, at, wide)?);
        }
        Ok(Self { file, entry, segments })
    }

    /// Copies the loadable segments to their physical addresses.
    pub(super) fn load(&self, placement: &mut Placement<'_>) -> Result<(), BootError> {
        const WHAT: &str = "an ELF segment";
        for s in self.segments.iter().filter(|s| s.kind == PT_LOAD && s.memory_len != 0) {
            if s.file_len > s.memory_len {
                return Err(bad(
                    "an ELF segment's size in the file",
                    s.file_len,
                    "at most its size in memory",
                ));
            }
            let data = self.file.slice(WHAT, s.offset, s.file_len)?;
            placement.claim(WHAT, s.paddr, s.memory_len)?;
            placement.write(s.paddr, data)?;
            placement.clear(s.paddr.saturating_add(s.file_len), s.memory_len - s.file_len)?;
        }
        Ok(())
    }

    /// The entry point as a physical address, below 4 GiB.
    pub(super) fn physical_entry(&self) -> Result<u64, BootError> {
        let by_virtual = |s: &&Segment| {
            s.kind == PT_LOAD
                && self.entry.checked_sub(s.vaddr).is_some_and(|offset| offset < s.memory_len)
        };
        let found = self.segments.iter().find(by_virtual);
        let entry = match found {
            Some(s) => s.paddr.wrapping_add(self.entry.wrapping_sub(s.vaddr)),
            None => self.entry,
        };
        self.checked_entry(entry)
    }

    /// `entry`, if a loaded segment holds it.
    pub(super) fn checked_entry(&self, entry: u64) -> Result<u64, BootError> {
        let inside = |s: &Segment| {
            s.kind == PT_LOAD
                && entry.checked_sub(s.paddr).is_some_and(|offset| offset < s.memory_len)
        };
        if self.segments.iter().any(inside) {
            Ok(entry)
        } else {
            Err(bad("the entry point", entry, "an address in a loaded segment"))
        }
    }

    /// The descriptor of the first note of this owner and type.
    pub(super) fn note(&self, owner: &[u8], kind: u32) -> Result<Option<&'a [u8]>, BootError> {
        const WHAT: &str = "an ELF note";
        for s in self.segments.iter().filter(|s| s.kind == PT_NOTE) {
            let notes = Image::new(self.file.slice("an ELF note segment", s.offset, s.file_len)?);
            // Descriptors are aligned to 4 bytes, or to 8 where the segment is.
            let align = if s.align == 8 { 8 } else { 4 };
            let mut at = 0u64;
            while at < notes.len() {
                let name_len = u64::from(notes.u32(WHAT, at)?);
                let desc_len = u64::from(notes.u32(WHAT, at.saturating_add(4))?);
                let found = notes.u32(WHAT, at.saturating_add(8))?;
                let name_at = at.saturating_add(12);
                let desc_at = name_at.saturating_add(name_len).next_multiple_of(align);
                let name = notes.slice(WHAT, name_at, name_len)?;
                let desc = notes.slice(WHAT, desc_at, desc_len)?;
                if name == owner && found == kind {
                    return Ok(Some(desc));
                }
                at = desc_at.saturating_add(desc_len).next_multiple_of(align);
            }
        }
        Ok(None)
    }
}

impl Segment {
    fn read(file: Image<'_>, at: u64, wide: bool) -> Result<Self, BootError> {
        const WHAT: &str = "the ELF program headers";
        let u32_at = |offset: u64| file.u32(WHAT, at.saturating_add(offset));
        let u64_at = |offset: u64| file.u64(WHAT, at.saturating_add(offset));
        if wide {
            return Ok(Self {
                kind: u32_at(0)?,
                offset: u64_at(8)?,
                vaddr: u64_at(16)?,
                paddr: u64_at(24)?,
                file_len: u64_at(32)?,
                memory_len: u64_at(40)?,
                align: u64_at(48)?,
            });
        }
        Ok(Self {
            kind: u32_at(0)?,
            offset: u32_at(4)?.into(),
            vaddr: u32_at(8)?.into(),
            paddr: u32_at(12)?.into(),
            file_len: u32_at(16)?.into(),
            memory_len: u32_at(20)?.into(),
            align: u32_at(28)?.into(),
        })
    }
}

const fn bad(field: &'static str, value: u64, expected: &'static str) -> BootError {
    BootError::BadField { field, value, expected }
}
