//! Names of functions: bus, slot (device), function.

use core::fmt;

use kasane_spec_pci::mechanism::{config1, ecam};

/// Bus, slot and function, ordered as a scan meets them.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct PciAddress(u16);

impl PciAddress {
    /// A function of a slot on bus 0. Only the low 5 and 3 bits count.
    #[must_use]
    pub const fn new(slot: u8, function: u8) -> Self {
        Self(((slot & 31) as u16) << 3 | (function & 7) as u16)
    }
    /// Bus number.
    #[must_use]
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }
    /// Slot, 0 to 31.
    #[must_use]
    pub const fn slot(self) -> u8 {
        (self.0 >> 3 & 31) as u8
    }
    /// Function, 0 to 7.
    #[must_use]
    pub const fn function(self) -> u8 {
        (self.0 & 7) as u8
    }
    /// Function 0 of the same slot.
    #[must_use]
    pub const fn first_function(self) -> Self {
        Self(self.0 & !7)
    }
    /// The function and register that the address register of mechanism #1 names.
    #[must_use]
    pub const fn from_config1(register: u32) -> (Self, u16) {
        let address = (register >> config1::FUNCTION_SHIFT & 0xFFFF) as u16;
        (Self(address), (register & config1::REGISTER) as u16)
    }
    /// The function and register at an offset of the ECAM window.
    #[must_use]
    pub const fn from_ecam(offset: u32) -> (Self, u16) {
        let address = (offset >> ecam::FUNCTION_SHIFT & 0xFFFF) as u16;
        (Self(address), (offset & ecam::REGISTER) as u16)
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus(), self.slot(), self.function())
    }
}
