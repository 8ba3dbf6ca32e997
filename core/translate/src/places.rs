//! Where critical instructions stand in the guest's code, and which of them are done in place.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use kasane_interp::critical::{Critical, CriticalInstruction};

use crate::guest::{Guest, Kind};

/// Places that are told apart at most. A kernel has some thousand; a guest that makes code without
/// end must not fill the host's memory.
const MOST: usize = 1 << 16;

/// The critical instructions in the code that was translated.
#[derive(Default)]
pub(crate) struct Places {
    /// By guest-physical address and instruction: whether a block does it in place.
    known: HashMap<(u64, CriticalInstruction), bool>,
    counts: Critical,
}

impl Places {
    /// Notes those of a block that was placed: `done` instructions are translated, and the
    /// interpreter does the one behind them if there is one. `gpa` tells where a RIP is.
    pub(crate) fn note(&mut self, guests: &[Guest], done: usize, gpa: impl Fn(u64) -> u64) {
        for (index, guest) in guests.iter().enumerate().take(done.saturating_add(1)) {
            // All others are harmless, and this is asked of each instruction.
            if !matches!(guest.kind, Kind::System(_) | Kind::Interpreted) {
                continue;
            }
            if let Some(which) = CriticalInstruction::of(&guest.instruction) {
                self.one(gpa(guest.instruction.ip()), which, index < done);
            }
        }
    }
    /// The same place may come in several blocks: of other modes, with other beginnings.
    fn one(&mut self, gpa: u64, which: CriticalInstruction, in_place: bool) {
        let is_full = self.known.len() >= MOST;
        let count = self.counts.of(which);
        match self.known.entry((gpa, which)) {
            Entry::Vacant(_) if is_full => {}
            Entry::Vacant(place) => {
                place.insert(in_place);
                count.met = count.met.wrapping_add(1);
                count.translated = count.translated.wrapping_add(in_place.into());
            }
            Entry::Occupied(mut place) => {
                if in_place && !place.insert(true) {
                    count.translated = count.translated.wrapping_add(1);
                }
            }
        }
    }
    pub(crate) fn critical(&self) -> Critical {
        self.counts.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_once_and_as_translated_if_any_block_does_it_in_place() {
        let mut places = Places::default();
        for in_place in [false, true, true, false] {
            places.one(0x1000, CriticalInstruction::Popf, in_place);
        }
        places.one(0x1001, CriticalInstruction::Popf, false);
        places.one(0x1000, CriticalInstruction::Smsw, false);

        let popf = *places.counts.of(CriticalInstruction::Popf);
        let smsw = *places.counts.of(CriticalInstruction::Smsw);
        assert_eq!((popf.met, popf.translated), (2, 1));
        assert_eq!((smsw.met, smsw.translated), (1, 0));
    }

    #[test]
    fn places_have_a_bound() {
        let mut places = Places::default();
        for gpa in 0..MOST as u64 + 5 {
            places.one(gpa, CriticalInstruction::Cli, true);
        }

        assert_eq!(places.known.len(), MOST);
        assert_eq!(places.counts.of(CriticalInstruction::Cli).met, MOST as u64);
    }
}
