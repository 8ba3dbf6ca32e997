//! How often what happened: exits by reason, accesses by device.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use kasane_cpu::Exit;

/// A name and how often it was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Exit reason or device.
    pub name: &'static str,
    /// How often.
    pub count: u64,
}

/// What a machine has counted since it was made. Names that were never met are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Exits by reason.
    pub exits: Vec<Count>,
    /// Accesses by device; `nobody` is where nothing is mapped.
    pub devices: Vec<Count>,
}

/// Where accesses that no device answers are counted.
const NOBODY: &str = "nobody";
/// Devices that weren't there when the machine was made.
const OTHERS: &str = "others";

/// The counters. They are never a part of the saved state.
pub(crate) struct Counters {
    exits: [Counter; 16],
    devices: Vec<Counter>,
    nobody: Counter,
    others: Counter,
}

struct Counter {
    name: &'static str,
    count: AtomicU64,
}

impl Counter {
    const fn new(name: &'static str) -> Self {
        Self { name, count: AtomicU64::new(0) }
    }
    fn add(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }
    fn get(&self) -> Count {
        Count { name: self.name, count: self.count.load(Ordering::Relaxed) }
    }
}

/// One of each kind of exit, for their names; the order is that of [`index`].
const KINDS: [Exit; 16] = {
    use kasane_cpu::AccessSize::Byte;
    [
        Exit::PortRead { port: 0, size: Byte },
        Exit::PortWrite { port: 0, size: Byte, value: 0 },
        Exit::PortWriteString { port: 0, size: Byte, count: 0, data: [0; 32] },
        Exit::MmioRead { gpa: 0, size: Byte },
        Exit::MmioWrite { gpa: 0, size: Byte, value: 0 },
        Exit::MsrRead { index: 0 },
        Exit::MsrWrite { index: 0, value: 0 },
        Exit::Hypercall,
        Exit::Halt,
        Exit::InterruptWindow,
        Exit::Eoi { vector: 0 },
        Exit::TripleFault,
        Exit::Smi,
        Exit::BudgetUsed,
        Exit::Kicked,
        Exit::Debug { rip: 0, dr6: 0 },
    ]
};

const fn index(exit: &Exit) -> usize {
    match exit {
        Exit::PortRead { .. } => 0,
        Exit::PortWrite { .. } => 1,
        Exit::PortWriteString { .. } => 2,
        Exit::MmioRead { .. } => 3,
        Exit::MmioWrite { .. } => 4,
        Exit::MsrRead { .. } => 5,
        Exit::MsrWrite { .. } => 6,
        Exit::Hypercall => 7,
        Exit::Halt => 8,
        Exit::InterruptWindow => 9,
        Exit::Eoi { .. } => 10,
        Exit::TripleFault => 11,
        Exit::Smi => 12,
        Exit::BudgetUsed => 13,
        Exit::Kicked => 14,
        Exit::Debug { .. } => 15,
    }
}

impl Counters {
    /// Counters for these devices.
    pub(crate) fn new(devices: impl Iterator<Item = &'static str>) -> Self {
        let mut names: Vec<&'static str> = devices.collect();
        names.sort_unstable();
        names.dedup();
        Self {
            exits: KINDS.map(|exit| Counter::new(exit.name())),
            devices: names.into_iter().map(Counter::new).collect(),
            nobody: Counter::new(NOBODY),
            others: Counter::new(OTHERS),
        }
    }

    pub(crate) fn exit(&self, exit: &Exit) {
        if let Some(counter) = self.exits.get(index(exit)) {
            counter.add();
        }
    }

    pub(crate) fn access(&self, device: Option<&'static str>) {
        let counter = match device {
            None => &self.nobody,
            Some(name) => self.devices.iter().find(|c| c.name == name).unwrap_or(&self.others),
        };
        counter.add();
    }

    pub(crate) fn get(&self) -> Statistics {
        let met = |count: &Count| count.count != 0;
        let devices = self.devices.iter().chain([&self.others, &self.nobody]);
        Statistics {
            exits: self.exits.iter().map(Counter::get).filter(met).collect(),
            devices: devices.map(Counter::get).filter(met).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_exit_has_its_own_counter() {
        let places: Vec<usize> = KINDS.iter().map(index).collect();
        assert_eq!(places, (0..16).collect::<Vec<_>>());
    }

    #[test]
    fn devices_are_counted_by_name_and_strangers_too() {
        let counters = Counters::new(["pit", "rtc", "pit"].into_iter());

        for device in [Some("rtc"), Some("rtc"), Some("toaster"), None] {
            counters.access(device);
        }

        let counts: Vec<(&str, u64)> =
            counters.get().devices.iter().map(|c| (c.name, c.count)).collect();
        assert_eq!(counts, [("rtc", 2), ("others", 1), ("nobody", 1)]);
    }
}
