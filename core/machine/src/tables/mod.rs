//! What firmware would leave in the first MiB: the BIOS data area, the ACPI tables, the Intel MP
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
    Ok(rsdp)
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
