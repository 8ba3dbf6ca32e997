//! The memory map that firmware would report (INT 15h, AX=E820h).

use alloc::vec::Vec;

use crate::config::MachineConfig;
use crate::layout;

/// What a range of addresses is, with the number that E820, PVH and Multiboot use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    /// RAM for the operating system.
    Usable = 1,
    /// Not for it.
    Reserved = 2,
}

/// One entry of the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) base: u64,
    pub(crate) len: u64,
    pub(crate) kind: Kind,
}

/// The memory map for RAM at `ram`, in ascending order.
pub(crate) fn memory_map(config: &MachineConfig, ram: &[(u64, u64)]) -> Vec<Entry> {
    let mut map = Vec::new();
    let mut push = |base: u64, end: u64, kind: Kind| {
        if base < end {
            map.push(Entry { base, len: end - base, kind });
        }
    };
    for &(base, len) in ram.iter().filter(|(base, _)| *base < layout::LOW_RAM_MAX) {
        let end = base.saturating_add(len);
        push(base, end.min(layout::EBDA), Kind::Usable);
        if base == 0 {
            push(layout::EBDA, layout::CONVENTIONAL_END, Kind::Reserved);
            push(layout::FIRMWARE, layout::HIGH_MEMORY, Kind::Reserved);
        }
        push(base.max(layout::HIGH_MEMORY), end, Kind::Usable);
    }
    if config.ecam {
        push(layout::ECAM, layout::ECAM + layout::ECAM_LEN, Kind::Reserved);
    }
    for &(base, len) in ram.iter().filter(|(base, _)| *base >= layout::LOW_RAM_MAX) {
        push(base, base.saturating_add(len), Kind::Usable);
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_map_leaves_out_the_first_mib_and_the_hole() {
        let config = MachineConfig { ecam: true, ..MachineConfig::default() };

        let map = memory_map(&config, &[(0, 0xC000_0000), (0x1_0000_0000, 0x1000)]);

        let found: Vec<(u64, u64, u32)> =
            map.iter().map(|e| (e.base, e.len, e.kind as u32)).collect();
        assert_eq!(
            found,
            [
                (0, 0x9_FC00, 1),
                (0x9_FC00, 0x400, 2),
                (0xE_0000, 0x2_0000, 2),
                (0x10_0000, 0xBFF0_0000, 1),
                (0xE000_0000, 0x1000_0000, 2),
                (0x1_0000_0000, 0x1000, 1),
            ]
        );
    }
}
