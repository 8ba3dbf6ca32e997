//! What GDB wants to stop at.

use gdbstub::target::ext::breakpoints::WatchKind;
use kasane_cpu::engine::{DebugControl, Watchpoint};

/// GDB tells one watchpoint from another by the bits B0 to B3 of DR6, so there are four.
const WATCHPOINTS_MAX: usize = 4;
/// As many hardware breakpoints as a processor has.
const HARDWARE_MAX: usize = 4;
/// The engine looks through all of them at each instruction.
const SOFTWARE_MAX: usize = 256;
/// Longest watched range in bytes.
const WATCHED_MAX: u64 = 4096;

/// One watchpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watched {
    /// Linear address.
    pub(crate) address: u64,
    /// Bytes.
    pub(crate) len: u64,
    /// What stops.
    pub(crate) kind: WatchKind,
}

/// Breakpoints and watchpoints. Inserting what is there and removing what is not are fine: the
/// protocol asks for that.
#[derive(Clone, Debug, Default)]
pub(crate) struct Breakpoints {
    software: Vec<u64>,
    hardware: Vec<u64>,
    watched: Vec<Watched>,
}

fn insert<T: PartialEq>(list: &mut Vec<T>, item: T, max: usize) -> bool {
    if list.contains(&item) {
        return true;
    }
    if list.len() >= max {
        return false;
    }
    list.push(item);
    true
}

impl Breakpoints {
    /// False if there are too many.
    pub(crate) fn insert_software(&mut self, address: u64) -> bool {
        insert(&mut self.software, address, SOFTWARE_MAX)
    }
    pub(crate) fn remove_software(&mut self, address: u64) {
        self.software.retain(|one| *one != address);
    }
    pub(crate) fn is_software(&self, address: u64) -> bool {
        self.software.contains(&address)
    }
    /// False if there are too many.
    pub(crate) fn insert_hardware(&mut self, address: u64) -> bool {
        insert(&mut self.hardware, address, HARDWARE_MAX)
    }
    pub(crate) fn remove_hardware(&mut self, address: u64) {
        self.hardware.retain(|one| *one != address);
    }
    /// False if there are too many, or the range is empty or too long.
    pub(crate) fn insert_watched(&mut self, watched: Watched) -> bool {
        let fits = (1..=WATCHED_MAX).contains(&watched.len);
        fits && insert(&mut self.watched, watched, WATCHPOINTS_MAX)
    }
    pub(crate) fn remove_watched(&mut self, watched: Watched) {
        self.watched.retain(|one| *one != watched);
    }
    /// The watchpoint that the first of DR6's bits B0 to B3 names.
    pub(crate) fn watched(&self, dr6: u32) -> Option<Watched> {
        let first = (dr6 & 15).trailing_zeros() as usize;
        self.watched.get(first).copied()
    }

    /// For an engine.
    pub(crate) fn control(&self) -> DebugControl {
        let watchpoint = |one: &Watched| Watchpoint {
            address: one.address,
            len: one.len,
            on_read: one.kind != WatchKind::Write,
            on_write: one.kind != WatchKind::Read,
        };
        DebugControl {
            single_step: false,
            breakpoints: self.software.iter().chain(&self.hardware).copied().collect(),
            watchpoints: self.watched.iter().map(watchpoint).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(address: u64) -> Watched {
        Watched { address, len: 8, kind: WatchKind::Write }
    }

    #[test]
    fn inserting_twice_is_inserting_once() {
        let mut all = Breakpoints::default();
        all.insert_software(1);
        all.insert_software(1);
        all.remove_software(1);

        assert_eq!(all.control(), DebugControl::default());
    }

    #[test]
    fn a_fifth_watchpoint_is_refused() {
        let mut all = Breakpoints::default();
        let inserted: Vec<bool> = (0..5).map(|n| all.insert_watched(watched(n * 8))).collect();

        assert_eq!(inserted, [true, true, true, true, false]);
        assert_eq!(all.watched(0b1000), Some(watched(24)));
        assert_eq!(all.watched(0), None);
    }

    #[test]
    fn the_kinds_become_reads_and_writes() {
        let mut all = Breakpoints::default();
        for (address, kind) in
            [(0, WatchKind::Read), (8, WatchKind::Write), (16, WatchKind::ReadWrite)]
        {
            all.insert_watched(Watched { address, len: 8, kind });
        }

        let kinds: Vec<(bool, bool)> =
            all.control().watchpoints.iter().map(|one| (one.on_read, one.on_write)).collect();
        assert_eq!(kinds, [(true, false), (false, true), (true, true)]);
    }
}
