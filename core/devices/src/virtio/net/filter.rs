//! Which frames the driver wants (virtio 1.2 §5.1.6.5.1 to .3).

use alloc::vec::Vec;

use super::chip::MacAddress;
use super::header;

/// Addresses that one table holds; with more, all of their kind pass.
pub(super) const TABLE_MAX: usize = 64;
const BROADCAST: MacAddress = [0xFF; 6];
/// 64-bit words for 4096 VLANs.
const VLAN_WORDS: usize = 64;

/// A mode of the filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Modes {
    pub(super) promiscuous: bool,
    pub(super) all_multicast: bool,
    pub(super) all_unicast: bool,
    pub(super) no_multicast: bool,
    pub(super) no_unicast: bool,
    pub(super) no_broadcast: bool,
}

/// The addresses of a table, or that there are too many.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Table {
    pub(super) addresses: Vec<MacAddress>,
    pub(super) overflow: bool,
}

impl Table {
    fn passes(&self, address: &MacAddress) -> bool {
        self.overflow || self.addresses.contains(address)
    }
    fn fits(&self) -> bool {
        self.addresses.len() <= TABLE_MAX
    }
}

/// The receive filter.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Filter {
    pub(super) modes: Modes,
    pub(super) unicast: Table,
    pub(super) multicast: Table,
    vlans: Vec<u64>,
}

impl Default for Filter {
    /// Until a driver says otherwise, everything passes.
    fn default() -> Self {
        Self {
            modes: Modes { promiscuous: true, ..Modes::default() },
            unicast: Table::default(),
            multicast: Table::default(),
            vlans: alloc::vec![0; VLAN_WORDS],
        }
    }
}

impl Filter {
    /// Whether a saved filter can be one.
    pub(super) fn fits(&self) -> bool {
        self.unicast.fits() && self.multicast.fits() && self.vlans.len() == VLAN_WORDS
    }

    /// Lets a VLAN pass or not: whether there is such a one.
    pub(super) fn set_vlan(&mut self, vlan: u16, passes: VlanPasses) -> bool {
        let word = self.vlans.get_mut(usize::from(vlan >> 6)).filter(|_| vlan < 4096);
        let Some(word) = word else { return false };
        let bit = 1u64.wrapping_shl(u32::from(vlan & 63));
        match passes {
            VlanPasses::Yes => *word |= bit,
            VlanPasses::No => *word &= !bit,
        }
        true
    }

    fn vlan_passes(&self, vlan: u16) -> bool {
        let word = self.vlans.get(usize::from(vlan >> 6)).copied().unwrap_or_default();
        word.wrapping_shr(u32::from(vlan & 63)) & 1 != 0
    }

    /// Whether the driver with address `own` wants a frame that begins so.
    pub(super) fn passes(&self, frame: &[u8], own: &MacAddress, vlans: VlanFilter) -> bool {
        let Some(to) = frame.first_chunk::<6>() else { return false };
        if self.modes.promiscuous {
            return true;
        }
        let other_vlan = || header::vlan(frame).is_some_and(|vlan| !self.vlan_passes(vlan));
        if vlans == VlanFilter::On && other_vlan() {
            return false;
        }
        let [first, ..] = to;
        if *to == BROADCAST {
            !self.modes.no_broadcast
        } else if first & 1 != 0 {
            !self.modes.no_multicast && (self.modes.all_multicast || self.multicast.passes(to))
        } else {
            let wanted = to == own || self.modes.all_unicast || self.unicast.passes(to);
            !self.modes.no_unicast && wanted
        }
    }
}

/// Whether a VLAN is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VlanPasses {
    Yes,
    No,
}

/// Whether VLANs are filtered at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VlanFilter {
    On,
    Off,
}
