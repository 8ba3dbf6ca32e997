//! Where PCI's configuration space is in memory (PCI Firmware 3.2 §4.1.2).

use alloc::vec::Vec;

use crate::read::{u16_at, u64_at};
use crate::tables::{HEAD, Table};

/// A window of configuration space: 4 KiB for each function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EcamWindow {
    /// Physical address of bus 0.
    pub address: u64,
    /// Segment group.
    pub segment: u16,
    /// First bus.
    pub first_bus: u8,
    /// Last bus.
    pub last_bus: u8,
}

/// The windows.
#[must_use]
pub fn read_mcfg(table: &Table<'_>) -> Vec<EcamWindow> {
    let entries = table.bytes.get(HEAD + 8..).unwrap_or_default();
    let windows = entries.chunks_exact(16).filter_map(|entry| {
        Some(EcamWindow {
            address: u64_at(entry, 0)?,
            segment: u16_at(entry, 8)?,
            first_bus: *entry.get(10)?,
            last_bus: *entry.get(11)?,
        })
    });
    windows.filter(|window| window.first_bus <= window.last_bus).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::testing::table_of;

    #[test]
    fn windows_are_read() {
        let mut body = [0; 8 + 16 + 15];
        body[8..16].copy_from_slice(&0xB000_0000u64.to_le_bytes());
        body[19] = 255;
        let bytes = table_of(b"MCFG", &body);

        let windows = read_mcfg(&Table { signature: *b"MCFG", bytes: &bytes });

        let window = EcamWindow { address: 0xB000_0000, segment: 0, first_bus: 0, last_bus: 255 };
        assert_eq!(windows, [window]);
    }
}
