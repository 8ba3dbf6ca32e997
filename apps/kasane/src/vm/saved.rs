//! A whole machine as bytes: saved while it is paused, rebuilt in another process.
//!
//! ```text
//! "kasane state 1\n"
//! u32 number of sections; for each: u16 name length, name, u32 version, u64 length, u32 CRC, bytes
//! pages of RAM that are not zero: u64 guest-physical address, u32 CRC, 4096 bytes
//! u64::MAX
//! ```
//! All little-endian; CRC-32 as in ISO-HDLC. The sections are the machine's (`header`, one for
//! each device) and `cpu.N`, independent of the engine and of this file's form.

use std::io::{self, Read, Write};

use kasane_cpu::{CpuState, StateSet};
use kasane_devices::{RestoreError, Section};
use kasane_machine::{SavedHeader, SavedStateError, restore_processor, save_processor};
use kasane_memory::{GuestMemory, MemoryError};

use super::assemble::{self, Parts};
use super::control::{Begin, NotPaused};
use super::{Lent, Specification, StartError, VirtualMachine};

const MAGIC: &[u8; 15] = b"kasane state 1\n";
const PAGE: usize = 4096;
/// In place of an address: there are no more pages.
const END: u64 = u64::MAX;
/// More than any machine has; a bound against damaged files.
const SECTIONS_MAX: u32 = 4096;
/// Likewise, in bytes.
const SECTION_BYTES_MAX: u64 = 64 << 20;

/// A machine that can't be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// It has ended, or is not paused.
    #[error(transparent)]
    NotPaused(#[from] NotPaused),
    /// Its memory.
    #[error("the guest's memory can't be read")]
    Memory(#[from] MemoryError),
    /// Where it is saved to.
    #[error("the saved machine can't be written")]
    Write(#[from] io::Error),
}

/// A saved machine that can't be taken back.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not one, cut off, or damaged.
    #[error("this is no saved machine: {what}")]
    Form {
        /// What is wrong.
        what: &'static str,
    },
    /// It can't be read.
    #[error("the saved machine can't be read")]
    Read(#[from] io::Error),
    /// Another machine, or a section that is missing or damaged.
    #[error("the saved state can't be taken over")]
    State(#[from] SavedStateError),
    /// The same, of a vCPU.
    #[error("a processor's state can't be taken over")]
    Processor(#[from] RestoreError),
    /// Memory that this machine doesn't have.
    #[error("the saved memory doesn't fit")]
    Memory(#[from] MemoryError),
    /// The machine can't be built at all.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl VirtualMachine {
    /// Saves the machine, which has to be paused and stays so.
    ///
    /// # Errors
    /// When it is not paused, or can't be written.
    pub fn save(&self, to: &mut impl Write) -> Result<(), SaveError> {
        let mut sections = self.machine.save();
        for index in 0..self.cpus() {
            let state = self.control.with_vcpu(index, |vcpu| {
                let mut state = CpuState::reset(false);
                vcpu.read(StateSet::ALL, &mut state);
                state
            })?;
            sections.push(save_processor(index, &state));
        }
        write_sections(to, &sections)?;
        for (base, len) in self.ram.ram_ranges() {
            write_ram(to, &*self.ram, base..base.saturating_add(len))?;
        }
        to.write_all(&END.to_le_bytes())?;
        Ok(to.flush()?)
    }

    /// Builds the machine that was saved; it goes on where it stood.
    ///
    /// # Errors
    /// When the bytes are no saved machine, or one of another kind than `specification`.
    pub fn start_saved(
        specification: &Specification,
        lent: &Lent,
        from: &mut impl Read,
    ) -> Result<Self, LoadError> {
        let mut parts = assemble::hardware(specification, lent)?;
        let sections = read_sections(from)?;
        parts.clock.pause();
        parts.clock.set_ns(SavedHeader::read(&sections)?.time_ns);
        read_ram(from, &*parts.ram)?;
        restore(&mut parts, &sections)?;
        parts.clock.resume();
        Ok(Self::launch(parts, Begin::Running)?)
    }
}

fn restore(parts: &mut Parts, sections: &[Section]) -> Result<(), LoadError> {
    parts.machine.restore(sections)?;
    for one in &mut parts.vcpus {
        let state = restore_processor(one.index, sections)?;
        one.vcpu.write(StateSet::ALL, &state);
    }
    Ok(())
}

fn write_sections(to: &mut impl Write, sections: &[Section]) -> io::Result<()> {
    to.write_all(MAGIC)?;
    to.write_all(&u32_of(sections.len())?.to_le_bytes())?;
    for Section { name, version, bytes } in sections {
        let name_len = u16::try_from(name.len()).map_err(io::Error::other)?;
        to.write_all(&name_len.to_le_bytes())?;
        to.write_all(name.as_bytes())?;
        to.write_all(&version.to_le_bytes())?;
        to.write_all(&(bytes.len() as u64).to_le_bytes())?;
        to.write_all(&crc32fast::hash(bytes).to_le_bytes())?;
        to.write_all(bytes)?;
    }
    Ok(())
}

fn u32_of(number: usize) -> io::Result<u32> {
    u32::try_from(number).map_err(io::Error::other)
}

fn read_sections(from: &mut impl Read) -> Result<Vec<Section>, LoadError> {
    let magic: [u8; MAGIC.len()] = read(from)?;
    if magic != *MAGIC {
        return Err(LoadError::Form { what: "it doesn't begin as one" });
    }
    let count = u32::from_le_bytes(read(from)?);
    if count > SECTIONS_MAX {
        return Err(LoadError::Form { what: "it has too many sections" });
    }
    (0..count).map(|_| read_section(from)).collect()
}

fn read_section(from: &mut impl Read) -> Result<Section, LoadError> {
    let mut name = vec![0; usize::from(u16::from_le_bytes(read(from)?))];
    read_all(from, &mut name)?;
    let name =
        String::from_utf8(name).map_err(|_| LoadError::Form { what: "a section has no name" })?;
    let version = u32::from_le_bytes(read(from)?);
    let len = u64::from_le_bytes(read(from)?);
    if len > SECTION_BYTES_MAX {
        return Err(LoadError::Form { what: "a section is too long" });
    }
    let crc = u32::from_le_bytes(read(from)?);
    let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
    read_all(from, &mut bytes)?;
    if crc32fast::hash(&bytes) != crc {
        return Err(LoadError::Form { what: "a section is damaged" });
    }
    Ok(Section { name, version, bytes })
}

fn write_ram(
    to: &mut impl Write,
    ram: &impl GuestMemory,
    range: std::ops::Range<u64>,
) -> Result<(), SaveError> {
    let mut page = [0; PAGE];
    for address in range.step_by(PAGE) {
        ram.read(address, &mut page)?;
        if page.iter().any(|byte| *byte != 0) {
            to.write_all(&address.to_le_bytes())?;
            to.write_all(&crc32fast::hash(&page).to_le_bytes())?;
            to.write_all(&page)?;
        }
    }
    Ok(())
}

/// Into memory that is all zero.
fn read_ram(from: &mut impl Read, ram: &impl GuestMemory) -> Result<(), LoadError> {
    loop {
        let address = u64::from_le_bytes(read(from)?);
        if address == END {
            return Ok(());
        }
        let crc = u32::from_le_bytes(read(from)?);
        let page: [u8; PAGE] = read(from)?;
        if crc32fast::hash(&page) != crc {
            return Err(LoadError::Form { what: "a page of memory is damaged" });
        }
        ram.write(address, &page)?;
    }
}

fn read<const N: usize>(from: &mut impl Read) -> Result<[u8; N], LoadError> {
    let mut bytes = [0; N];
    read_all(from, &mut bytes)?;
    Ok(bytes)
}

fn read_all(from: &mut impl Read, bytes: &mut [u8]) -> Result<(), LoadError> {
    from.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => LoadError::Form { what: "it is cut off" },
        _ => LoadError::Read(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kasane_memory::{Ram, RamSlot};

    fn sections() -> Vec<Section> {
        let section = |name: &str, bytes: &[u8]| Section {
            name: name.into(),
            version: 3,
            bytes: bytes.to_vec(),
        };
        vec![section("header", b"abc"), section("cpu.0", b"")]
    }

    #[test]
    fn sections_and_memory_come_back() {
        let ram = Ram::new(vec![RamSlot::allocated(0, 0x10_0000)]);
        ram.write(0x5FFF, b"xy").unwrap();
        let mut file = Vec::new();
        write_sections(&mut file, &sections()).unwrap();
        write_ram(&mut file, &ram, 0..0x10_0000).unwrap();
        file.extend(END.to_le_bytes());

        let other = Ram::new(vec![RamSlot::allocated(0, 0x10_0000)]);
        let mut from = &file[..];
        let found = read_sections(&mut from).unwrap();
        read_ram(&mut from, &other).unwrap();
        let mut bytes = [0; 2];
        other.read(0x5FFF, &mut bytes).unwrap();

        assert_eq!(found, sections());
        assert_eq!(&bytes, b"xy");
        assert!(file.len() < 3 * PAGE, "zero pages were written");
    }

    #[test]
    fn a_cut_file_is_an_error_wherever_it_is_cut() {
        let mut file = Vec::new();
        write_sections(&mut file, &sections()).unwrap();
        let cut = (0..file.len()).filter(|len| read_sections(&mut &file[..*len]).is_ok());

        assert_eq!(cut.count(), 0);
    }

    #[test]
    fn a_changed_byte_of_a_section_is_an_error() {
        let mut file = Vec::new();
        write_sections(&mut file, &sections()[..1]).unwrap();
        let last = file.len() - 1;
        file[last] ^= 1;

        assert_eq!(
            read_sections(&mut &file[..]).unwrap_err().to_string(),
            "this is no saved machine: a section is damaged"
        );
    }

    #[test]
    fn another_file_is_named_as_such() {
        assert_eq!(
            read_sections(&mut &b"#!/bin/sh and more"[..]).unwrap_err().to_string(),
            "this is no saved machine: it doesn't begin as one"
        );
    }
}
