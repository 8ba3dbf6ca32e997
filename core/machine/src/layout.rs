//! Where things are in the guest-physical address space of the `pc` board, and its fixed ports.
//! QEMU's `-M pc` is the model.

/// Start of conventional memory that loaders may use (the interrupt vectors and the BIOS data
/// area are below).
pub const LOW_FREE: u64 = 0x1000;
/// Extended BIOS data area: the last KiB of conventional memory.
pub const EBDA: u64 = 0x9_FC00;
/// End of conventional memory; the VGA window begins.
pub const CONVENTIONAL_END: u64 = 0xA_0000;
/// Where the firmware's area begins: the ACPI tables here.
pub const FIRMWARE: u64 = 0xE_0000;
/// The Intel MP table and the SMBIOS entry point.
pub const FIRMWARE_HIGH: u64 = 0xF_0000;
/// First byte above the first MiB.
pub const HIGH_MEMORY: u64 = 0x10_0000;
/// RAM below 4 GiB ends here at the latest.
pub const LOW_RAM_MAX: u64 = 0xC000_0000;
/// RAM that does not fit below the hole goes on here.
pub const HIGH_RAM: u64 = 0x1_0000_0000;
/// PCI memory window below 4 GiB.
pub const PCI_MEMORY: core::ops::RangeInclusive<u64> = LOW_RAM_MAX..=0xFEBF_FFFF;
/// ECAM window (256 buses), where the board exposes it.
pub const ECAM: u64 = 0xE000_0000;
/// Length of the ECAM window.
pub const ECAM_LEN: u64 = 0x1000_0000;
/// Registers of the first virtio device that is not on the PCI bus. They are behind the I/O APIC,
/// where no PCI window is.
pub const MMIO_DEVICES: u64 = 0xFEC1_0000;
/// The most devices of that kind.
pub const MMIO_DEVICES_MAX: u8 = 32;
/// Inputs of the I/O APIC that have no ISA interrupt: those devices share them.
const MMIO_GSIS: core::ops::Range<u32> = 16..24;
/// PIIX4 power management block: see [`kasane_spec_pc::acpi_pm`] for what is in it.
pub const PM_BASE: u16 = 0x600;
/// The SCI's interrupt line.
pub const SCI_IRQ: u8 = kasane_spec_pc::irq::SCI;

/// Where the registers of a virtio device in memory are, 0 to 31:
/// [`LEN`](kasane_spec_virtio::mmio::LEN) bytes.
#[must_use]
pub const fn mmio_device(index: u8) -> u64 {
    MMIO_DEVICES.saturating_add(kasane_spec_virtio::mmio::LEN.saturating_mul(index as u64))
}

/// The I/O APIC's input that the device's interrupt leads to: level-triggered, active high.
#[must_use]
pub const fn mmio_gsi(index: u8) -> u32 {
    MMIO_GSIS.start.saturating_add(index as u32 % (MMIO_GSIS.end - MMIO_GSIS.start))
}

/// RAM as (base, length) pairs for `memory_bytes` of it: below the hole, then from 4 GiB.
#[must_use]
pub fn ram_ranges(memory_bytes: u64) -> alloc::vec::Vec<(u64, u64)> {
    let low = memory_bytes.min(LOW_RAM_MAX);
    let high = memory_bytes.saturating_sub(LOW_RAM_MAX);
    let mut ranges = alloc::vec![(0, low)];
    if high != 0 {
        ranges.push((HIGH_RAM, high));
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_above_three_gib_moves_over_the_hole() {
        assert_eq!(ram_ranges(0xC000_0000), [(0, 0xC000_0000)]);
        assert_eq!(ram_ranges(0x1_0000_0000), [(0, 0xC000_0000), (0x1_0000_0000, 0x4000_0000)]);
    }
}
