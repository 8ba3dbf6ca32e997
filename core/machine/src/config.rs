//! What a machine is made of.

use kasane_cpu::cpuid::{CpuModel, CpuModelName, FeatureSet};

/// What happens when a processor shuts down (triple fault).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CrashPolicy {
    /// The machine stops and its state can be looked at.
    #[default]
    Stop,
    /// The board resets the machine, as a PC's chip set does.
    Reset,
}

/// What a machine is made of. Everything that the guest can see follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineConfig {
    /// Processors, 1 to 64. Their local APIC ids count from 0.
    pub cpus: u32,
    /// What each processor can do.
    pub cpu_model: CpuModel,
    /// RAM in bytes, a multiple of 4 KiB.
    pub memory_bytes: u64,
    /// Time-stamp counter's frequency in Hz.
    pub tsc_hz: u64,
    /// Whether the configuration space is in memory too (MCFG). The i440FX of old had none.
    pub ecam: bool,
    /// Devices with registers in memory, which the tables name; a machine counts its own.
    pub mmio_devices: u8,
    /// What a triple fault does.
    pub on_crash: CrashPolicy,
}

impl Default for MachineConfig {
    fn default() -> Self {
        Self {
            cpus: 1,
            cpu_model: CpuModel::new(CpuModelName::X86_64V2, FeatureSet::EMPTY),
            memory_bytes: 512 << 20,
            tsc_hz: 1_000_000_000,
            ecam: false,
            mmio_devices: 0,
            on_crash: CrashPolicy::Stop,
        }
    }
}

impl MachineConfig {
    /// The I/O APIC's id: the first that no processor has.
    #[must_use]
    pub fn ioapic_id(&self) -> u8 {
        u8::try_from(self.cpus).unwrap_or(u8::MAX)
    }

    /// The interrupt line that firmware has routed a PCI slot's pin to (0 is INTA).
    #[must_use]
    pub const fn pci_irq(&self, slot: u8, pin: u8) -> u8 {
        match (slot, pin) {
            (1, 0) => crate::layout::SCI_IRQ,
            // The PIRQ inputs A to D are routed to 10, 10, 11, 11.
            _ => match slot.wrapping_add(pin).wrapping_sub(1) % 4 {
                0 | 1 => 10,
                _ => 11,
            },
        }
    }
}
