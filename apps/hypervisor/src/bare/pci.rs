//! The list of PCI functions.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kasane_metal_cpu::Pci;

const NOTHING: u32 = 0xFFFF_FFFF;

/// A line for each function.
pub(crate) fn list() -> Vec<String> {
    let mut lines = Vec::new();
    for bus in 0..=255u8 {
        for device in 0..32 {
            let functions = if Pci.read(bus, device, 0, 0xC) >> 23 & 1 == 0 { 1 } else { 8 };
            for function in 0..functions {
                let id = Pci.read(bus, device, function, 0);
                if id == NOTHING {
                    continue;
                }
                let class = Pci.read(bus, device, function, 8) >> 8;
                let (vendor, number) = (id & 0xFFFF, id >> 16);
                lines.push(format!(
                    "{bus:02x}:{device:02x}.{function} {vendor:04x}:{number:04x} class {class:06x}"
                ));
            }
        }
    }
    lines
}
