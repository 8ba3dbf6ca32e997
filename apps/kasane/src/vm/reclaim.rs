//! Memory that the guest gives back goes back to the host.

use std::sync::Arc;

use kasane_host_memory::HostRam;
use kasane_memory::{PinAccess, Ram};
use kasane_ports::{GuestRange, PageReclaim};

/// Bytes that are given back at once.
const STEP: u64 = 1 << 30;

/// The guest's RAM with the mappings that it is made of.
pub(super) struct Reclaim {
    pub(super) ram: Arc<Ram>,
    /// Guest-physical base of each mapping.
    pub(super) slots: Vec<(u64, Arc<HostRam>)>,
}

impl PageReclaim for Reclaim {
    fn discard(&self, gpa: u64, len: u64) {
        let mut done = 0;
        while done < len {
            let (at, step) = (gpa.wrapping_add(done), STEP.min(len.wrapping_sub(done)));
            self.discard_some(at, step);
            done = done.saturating_add(step);
        }
    }
}

impl Reclaim {
    /// At most [`STEP`] bytes.
    fn discard_some(&self, gpa: u64, len: u64) {
        let range = GuestRange { gpa, len: u32::try_from(len).unwrap_or(u32::MAX) };
        // Pinned, so that whoever keeps something about the pages hears of the change after it.
        let Ok(pinned) = self.ram.pin(&[range], PinAccess::HostWrites) else { return };
        let end = gpa.saturating_add(len);
        for (base, slot) in &self.slots {
            let (from, to) = (gpa.max(*base), end.min(base.saturating_add(slot_len(slot))));
            if from < to {
                // A host that takes nothing back leaves the guest's bytes as they are.
                let _kept = slot.release(from - base..to - base);
            }
        }
        drop(pinned);
    }
}

fn slot_len(slot: &HostRam) -> u64 {
    kasane_memory::RamBacking::len(slot) as u64
}
