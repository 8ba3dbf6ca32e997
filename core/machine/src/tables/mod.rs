//! What firmware would leave in the first MiB: interrupt vectors, the BIOS data area, the ACPI tables, the Intel MP
//! table and an SMBIOS entry. A guest finds them by their signatures; the boot protocols that
//! have a field for it also say where the RSDP is.

use alloc::vec::Vec;

use kasane_memory::{GuestMemory, MemoryError};

mod acpi;
mod dsdt;
mod mp;
mod smbios;

use crate::config::MachineConfig;
use crate::layout;
use crate::record::Record;

/// The BIOS data area's fields that kernels look at (at 0x400).
mod bios_data {
    pub(super) const COM1: u64 = 0x400;
    pub(super) const EBDA_SEGMENT: u64 = 0x40E;
    pub(super) const EQUIPMENT: u64 = 0x410;
    pub(super) const MEMORY_K: u64 = 0x413;
    pub(super) const LEN: u64 = 0x100;
}

/// Real-mode interrupt service routines, for kernels that call firmware although they were booted
/// directly: there is none, and this is how a PC's firmware says that it lacks a function.
mod no_service {
    /// Segment of the routines.
    pub(super) const SEGMENT: u16 = 0xF000;
    /// IRET alone, where the AT has its dummy routine.
    pub(super) const RETURN: u16 = 0xFF53;
    /// Sets CF in the caller's flags, AH to 86h ("function not supported"), returns: PUSH BP;
    /// MOV BP, SP; OR BYTE \[BP+6\], 1; POP BP; MOV AH, 86h; IRET.
    pub(super) const REFUSE: u16 = 0xFF54;
    pub(super) const CODE: [u8; 12] =
        [0xCF, 0x55, 0x89, 0xE5, 0x80, 0x4E, 0x06, 0x01, 0x5D, 0xB4, 0x86, 0xCF];
    /// Vectors of services: video to time of day.
    pub(super) const SERVICES: core::ops::RangeInclusive<u16> = 0x10..=0x1A;
}

/// Writes the tables; gives the RSDP's address.
///
/// # Errors
/// When there is no RAM in the first MiB.
pub fn write(memory: &dyn GuestMemory, config: &MachineConfig) -> Result<u64, MemoryError> {
    write_bios_data(memory)?;
    let (rsdp, blob) = acpi::build(config, layout::FIRMWARE);
    memory.fill(layout::FIRMWARE, layout::HIGH_MEMORY - layout::FIRMWARE, 0)?;
    memory.write(layout::FIRMWARE, &blob)?;
    let mp = mp::build(config, layout::FIRMWARE_HIGH);
    memory.write(layout::FIRMWARE_HIGH, &mp)?;
    // Both are searched for at multiples of 16.
    let smbios_at = layout::FIRMWARE_HIGH.saturating_add(mp.len() as u64).next_multiple_of(16);
    memory.write(smbios_at, &smbios::build(smbios_at))?;
    write_interrupt_vectors(memory)?;
    Ok(rsdp)
}

fn write_interrupt_vectors(memory: &dyn GuestMemory) -> Result<(), MemoryError> {
    let mut table = Record::zeroed(1024);
    for vector in 0..=255u16 {
        let service = no_service::SERVICES.contains(&vector);
        let offset = if service { no_service::REFUSE } else { no_service::RETURN };
        table.put_u16(usize::from(vector) * 4, offset);
        table.put_u16(usize::from(vector) * 4 + 2, no_service::SEGMENT);
    }
    memory.write(0, &table.0)?;
    let code = (u64::from(no_service::SEGMENT) << 4) + u64::from(no_service::RETURN);
    memory.write(code, &no_service::CODE)
}

fn write_bios_data(memory: &dyn GuestMemory) -> Result<(), MemoryError> {
    memory.fill(bios_data::COM1, bios_data::LEN, 0)?;
    memory.write(bios_data::COM1, &0x3F8u16.to_le_bytes())?;
    memory.write(bios_data::EBDA_SEGMENT, &((layout::EBDA >> 4) as u16).to_le_bytes())?;
    // An x87, a PS/2 mouse, one serial port.
    memory.write(bios_data::EQUIPMENT, &0x0206u16.to_le_bytes())?;
    memory.write(bios_data::MEMORY_K, &((layout::EBDA >> 10) as u16).to_le_bytes())?;
    // The extended BIOS data area begins with its size in KiB.
    memory.fill(layout::EBDA, 1024, 0)?;
    memory.write(layout::EBDA, &[1])
}

/// Sets the byte at `at` so that all of `bytes` add up to 0 modulo 256.
fn set_checksum(record: &mut Record, at: usize) {
    record.put_u8(at, 0);
    let sum = record.0.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    record.put_u8(at, sum.wrapping_neg());
}

/// Adds up a table's parts.
fn concat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[cfg(test)]
mod tests;
