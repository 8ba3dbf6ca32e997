//! One comparator.

use kasane_spec_pc::hpet::PERIOD_NS;

use super::spec::{SHORT_PERIOD_NS, TimerConfiguration};

/// A comparator. Counter values come in from the block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timer {
    pub(super) configuration: u64,
    pub(super) comparator: u64,
    pub(super) period: u64,
    /// The low half was written with SET_VALUE; the high half goes with it.
    pub(super) high_follows: bool,
    pub(super) message: u64,
    /// An edge-triggered wire is held high after its event.
    pub(super) held: bool,
}

impl Timer {
    pub(crate) fn flags(&self) -> TimerConfiguration {
        TimerConfiguration::from_bits_retain(self.configuration)
    }

    /// The I/O APIC pin.
    pub(crate) fn route(&self) -> u32 {
        ((self.flags() & TimerConfiguration::ROUTE).bits() >> 9) as u32
    }

    fn mask(&self) -> u64 {
        if self.flags().contains(TimerConfiguration::MODE_32) { 0xFFFF_FFFF } else { u64::MAX }
    }

    /// Ticks from `counter` to the next match, at least 1. The match of the value that the
    /// counter has already is a whole turn away.
    pub(crate) fn ticks_to_match(&self, counter: u64) -> u128 {
        match self.comparator.wrapping_sub(counter) & self.mask() {
            0 => u128::from(self.mask()) + 1,
            ticks => u128::from(ticks),
        }
    }

    /// Whether it matches more often than a host should be woken.
    pub(crate) fn is_rapid(&self) -> bool {
        self.flags().contains(TimerConfiguration::PERIODIC)
            && (1..SHORT_PERIOD_NS / PERIOD_NS).contains(&self.period)
    }

    /// The counter went from `before` on by `elapsed` ticks: whether it matched. A periodic timer's
    /// comparator goes on by whole periods.
    pub(crate) fn pass(&mut self, before: u64, elapsed: u64) -> bool {
        let to_match = self.ticks_to_match(before);
        let Some(after) = u128::from(elapsed).checked_sub(to_match) else { return false };
        if self.flags().contains(TimerConfiguration::PERIODIC) && self.period != 0 {
            let periods = (after / u128::from(self.period)) as u64;
            let steps = periods.wrapping_add(1);
            self.comparator =
                self.comparator.wrapping_add(self.period.wrapping_mul(steps)) & self.mask();
        }
        true
    }

    pub(crate) fn write_configuration(&mut self, value: u64, capable: TimerConfiguration) {
        let mut writable = TimerConfiguration::WRITABLE;
        if !capable.contains(TimerConfiguration::MESSAGES_CAPABLE) {
            writable -= TimerConfiguration::MESSAGES;
        }
        self.configuration = value & writable.bits();
        if self.flags().contains(TimerConfiguration::MODE_32) {
            self.comparator &= 0xFFFF_FFFF;
            self.period &= 0xFFFF_FFFF;
        }
        if !self.flags().contains(TimerConfiguration::ENABLE)
            || self.flags().contains(TimerConfiguration::LEVEL)
        {
            self.held = false;
        }
    }

    /// A write of the bytes `mask` of the comparator (§2.3.9.2).
    pub(crate) fn write_comparator(&mut self, value: u64, mask: u64) {
        let flags = self.flags();
        let periodic = flags.contains(TimerConfiguration::PERIODIC);
        let merged = |old: u64| ((old & !mask) | (value & mask)) & self.mask();
        let low = mask & 0xFFFF_FFFF != 0;
        let with_low = !low && self.high_follows;
        let comparator = merged(self.comparator);
        let period = merged(self.period);
        if !periodic || flags.contains(TimerConfiguration::SET_VALUE) || with_low {
            self.comparator = comparator;
        }
        if periodic {
            self.period = period;
        }
        self.high_follows = low && mask >> 32 == 0 && flags.contains(TimerConfiguration::SET_VALUE);
        self.configuration &= !TimerConfiguration::SET_VALUE.bits();
    }
}
