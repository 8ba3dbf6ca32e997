//! Ways to the configuration spaces: mechanism #1 and ECAM.

use alloc::sync::Arc;

use kasane_cpu::AccessSize;
use kasane_spec_pci::mechanism::config1;
use lock_api::RawMutex;

use super::address::PciAddress;
use super::bus::PciBus;
use crate::bus::Device;

/// Configuration mechanism #1, 8 ports from 0xCF8 on.
pub struct ConfigPorts<R: RawMutex>(pub Arc<PciBus<R>>);

impl<R: RawMutex + Send + Sync + 'static> ConfigPorts<R> {
    /// The register that an access to the data port at `offset` reaches.
    fn target(&self, offset: u32) -> Option<(PciAddress, u16)> {
        let register = self.0.config_address();
        if register & config1::ENABLE == 0 {
            return None;
        }
        let (address, base) = PciAddress::from_config1(register);
        Some((address, base | (offset & 3) as u16))
    }
}

impl<R: RawMutex + Send + Sync + 'static> Device for ConfigPorts<R> {
    fn name(&self) -> &'static str {
        "pci-config"
    }
    fn read(&self, offset: u32, size: AccessSize, _now_ns: u64) -> u64 {
        match (offset, size) {
            (0, AccessSize::Dword) => u64::from(self.0.config_address()),
            // Other accesses to the address register are ordinary I/O, that nobody answers.
            (0..4, _) => size.mask(),
            (4.., _) => match self.target(offset) {
                Some((address, register)) => self.0.config_read(address, register, size),
                None => size.mask(),
            },
        }
    }
    fn write(&self, offset: u32, size: AccessSize, value: u64, _now_ns: u64) {
        match (offset, size) {
            (0, AccessSize::Dword) => self.0.set_config_address(value as u32),
            (0..4, _) => {}
            (4.., _) => {
                if let Some((address, register)) = self.target(offset) {
                    self.0.config_write(address, register, size, value);
                }
            }
        }
    }
}

/// ECAM: 4 KiB for each function, 1 MiB for each bus.
pub struct EcamWindow<R: RawMutex>(pub Arc<PciBus<R>>);

impl<R: RawMutex + Send + Sync + 'static> Device for EcamWindow<R> {
    fn name(&self) -> &'static str {
        "ecam"
    }
    fn read(&self, offset: u32, size: AccessSize, _now_ns: u64) -> u64 {
        let (address, register) = PciAddress::from_ecam(offset);
        self.0.config_read(address, register, size)
    }
    fn write(&self, offset: u32, size: AccessSize, value: u64, _now_ns: u64) {
        let (address, register) = PciAddress::from_ecam(offset);
        self.0.config_write(address, register, size, value);
    }
}
