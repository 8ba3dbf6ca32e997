//! The block: counter, timers, and where their interrupts go.

use kasane_cpu::AccessSize;
use kasane_ports::Msi;
use kasane_spec_pc::hpet::{BLOCK_ID, PERIOD_FS, PERIOD_NS, ROUTES};

use super::saved;
use super::spec::{
    CAPABILITIES, CONFIGURATION, COUNTER, Configuration, DEADLINE_GRID_NS, STATUS,
    TIMER_COMPARATOR, TIMER_CONFIGURATION, TIMER_MESSAGE, TIMER_STRIDE, TIMERS, TimerConfiguration,
};
use super::timer::Timer;
use crate::interrupts::TimerRoute;
use crate::saved::{RestoreError, Section};
use crate::socket::{Access, Chip, Effects};

/// Wires 0 to 23 are the I/O APIC's pins; this one is IRQ 0 in legacy replacement.
pub(super) const LEGACY_IRQ0: u32 = 24;
/// IRQ 8 in legacy replacement.
pub(super) const LEGACY_IRQ8: u32 = 25;

/// How the timers' interrupts can be delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// By wires.
    #[default]
    Wires,
    /// By wires and, where software asks for it, by messages.
    WiresAndMessages,
}

/// What the block does beyond its wires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HpetEffect {
    /// A timer's message.
    Message(Msi),
    /// Legacy replacement went on or off.
    Route(TimerRoute),
}

/// The HPET.
#[derive(Clone, Debug)]
pub struct Hpet {
    pub(super) delivery: Delivery,
    pub(super) configuration: u64,
    pub(super) status: u64,
    /// The counter's value at `counter_ns`.
    pub(super) counter: u64,
    /// The time of `counter`; what is after it wasn't looked at for matches.
    pub(super) counter_ns: u64,
    pub(super) timers: [Timer; 3],
}

impl Hpet {
    /// A block after reset.
    #[must_use]
    pub fn new(delivery: Delivery) -> Self {
        Self {
            delivery,
            configuration: 0,
            status: 0,
            counter: 0,
            counter_ns: 0,
            timers: Default::default(),
        }
    }

    fn flags(&self) -> Configuration {
        Configuration::from_bits_retain(self.configuration)
    }
    fn enabled(&self) -> bool {
        self.flags().contains(Configuration::ENABLE)
    }

    fn capable(&self) -> TimerConfiguration {
        let flags = TimerConfiguration::PERIODIC_CAPABLE | TimerConfiguration::SIZE_64;
        match self.delivery {
            Delivery::Wires => flags,
            Delivery::WiresAndMessages => flags | TimerConfiguration::MESSAGES_CAPABLE,
        }
    }

    /// The wire of a timer.
    fn wire(&self, number: usize) -> u32 {
        let legacy = self.flags().contains(Configuration::LEGACY_REPLACEMENT);
        match (legacy, number) {
            (true, 0) => 1 << LEGACY_IRQ0,
            (true, 1) => 1 << LEGACY_IRQ8,
            _ => {
                let route = self.timers.get(number).map_or(0, Timer::route);
                if ROUTES & 1u32.wrapping_shl(route) != 0 { 1u32.wrapping_shl(route) } else { 0 }
            }
        }
    }

    /// Brings the counter to `now_ns` and serves the matches on the way.
    fn sync(&mut self, now_ns: u64, effects: &mut Effects<HpetEffect>) {
        let Some(passed_ns) = now_ns.checked_sub(self.counter_ns) else { return };
        if !self.enabled() {
            self.counter_ns = now_ns;
            return;
        }
        let ticks = passed_ns / PERIOD_NS;
        let before = self.counter;
        self.counter = before.wrapping_add(ticks);
        self.counter_ns = self.counter_ns.wrapping_add(ticks * PERIOD_NS);
        for number in 0..self.timers.len() {
            let matched = self.timers.get_mut(number).is_some_and(|t| t.pass(before, ticks));
            if matched {
                self.event(number, effects);
            }
        }
    }

    fn event(&mut self, number: usize, effects: &mut Effects<HpetEffect>) {
        let wire = self.wire(number);
        let Some(timer) = self.timers.get_mut(number) else { return };
        let flags = timer.flags();
        if flags.contains(TimerConfiguration::LEVEL) {
            self.status |= 1 << number;
        }
        if !flags.contains(TimerConfiguration::ENABLE) {
            return;
        }
        if flags.contains(TimerConfiguration::MESSAGES) {
            let (address, data) = (timer.message >> 32, timer.message as u32);
            effects.push(HpetEffect::Message(Msi { address, data }));
        } else if !flags.contains(TimerConfiguration::LEVEL) {
            timer.held = true;
            effects.pulses |= wire;
        }
    }

    fn timer_at(offset: u32) -> Option<(usize, u32)> {
        let at = offset.checked_sub(TIMERS)?;
        Some(((at / TIMER_STRIDE) as usize, at % TIMER_STRIDE))
    }

    /// The 64-bit register at an offset that is a multiple of 8.
    fn register(&self, offset: u32) -> u64 {
        match offset {
            CAPABILITIES => u64::from(PERIOD_FS) << 32 | u64::from(BLOCK_ID),
            CONFIGURATION => self.configuration,
            STATUS => self.status,
            COUNTER => self.counter,
            offset => {
                let Some((number, register)) = Self::timer_at(offset) else { return 0 };
                let Some(timer) = self.timers.get(number) else { return 0 };
                match register {
                    TIMER_CONFIGURATION => {
                        timer.configuration | self.capable().bits() | u64::from(ROUTES) << 32
                    }
                    TIMER_COMPARATOR => timer.comparator,
                    TIMER_MESSAGE => timer.message,
                    _ => 0,
                }
            }
        }
    }

    /// Writes the bytes `mask` of the 64-bit register at `offset`.
    fn set_register(
        &mut self,
        offset: u32,
        value: u64,
        mask: u64,
        effects: &mut Effects<HpetEffect>,
    ) {
        let merged = (self.register(offset) & !mask) | (value & mask);
        match offset {
            CONFIGURATION => self.configure(merged, effects),
            STATUS => self.status &= !(value & mask),
            COUNTER => self.counter = merged,
            offset => {
                let capable = self.capable();
                let Some((number, register)) = Self::timer_at(offset) else { return };
                let Some(timer) = self.timers.get_mut(number) else { return };
                match register {
                    TIMER_CONFIGURATION => timer.write_configuration(merged, capable),
                    TIMER_COMPARATOR => timer.write_comparator(value, mask),
                    TIMER_MESSAGE if capable.contains(TimerConfiguration::MESSAGES_CAPABLE) => {
                        timer.message = merged;
                    }
                    _ => {}
                }
            }
        }
    }

    fn configure(&mut self, value: u64, effects: &mut Effects<HpetEffect>) {
        let before = self.flags();
        let after = Configuration::from_bits_truncate(value);
        self.configuration = after.bits();
        if (before ^ after).contains(Configuration::LEGACY_REPLACEMENT) {
            for timer in &mut self.timers {
                timer.held = false;
            }
            let legacy = after.contains(Configuration::LEGACY_REPLACEMENT);
            let route = if legacy { TimerRoute::Hpet } else { TimerRoute::Legacy };
            effects.push(HpetEffect::Route(route));
        }
    }
}

impl Chip for Hpet {
    type Effect = HpetEffect;
    const NAME: &'static str = "hpet";
    const WIDEST: AccessSize = AccessSize::Qword;

    fn read(&mut self, access: Access, effects: &mut Effects<HpetEffect>) -> u64 {
        self.sync(access.now_ns, effects);
        self.register(access.offset & !7) >> ((access.offset & 7) * 8)
    }

    fn write(&mut self, access: Access, value: u64, effects: &mut Effects<HpetEffect>) {
        self.sync(access.now_ns, effects);
        let shift = (access.offset & 7) * 8;
        let mask = access.size.mask() << shift;
        self.set_register(access.offset & !7, value << shift, mask, effects);
    }

    fn levels(&self) -> u32 {
        if !self.enabled() {
            return 0;
        }
        self.timers.iter().enumerate().fold(0, |levels, (number, timer)| {
            let flags = timer.flags();
            let by_wire = flags.contains(TimerConfiguration::ENABLE)
                && !flags.contains(TimerConfiguration::MESSAGES);
            let high = if flags.contains(TimerConfiguration::LEVEL) {
                self.status & 1 << number != 0
            } else {
                timer.held
            };
            if by_wire && high { levels | self.wire(number) } else { levels }
        })
    }

    fn next_deadline_ns(&self) -> Option<u64> {
        if !self.enabled() {
            return None;
        }
        let waiting = self.timers.iter().enumerate().filter(|(number, timer)| {
            let flags = timer.flags();
            // A level that is up already can't rise again before it is served.
            let up = flags.contains(TimerConfiguration::LEVEL) && self.status & 1 << number != 0;
            flags.contains(TimerConfiguration::ENABLE) && !up
        });
        let deadlines = waiting.map(|(_, timer)| {
            let ticks = timer.ticks_to_match(self.counter);
            let at_ns = u128::from(self.counter_ns) + ticks * u128::from(PERIOD_NS);
            let grid_ns = if timer.is_rapid() { DEADLINE_GRID_NS } else { 1 };
            at_ns.next_multiple_of(grid_ns.into())
        });
        u64::try_from(deadlines.min()?).ok()
    }

    fn advance(&mut self, now_ns: u64, effects: &mut Effects<HpetEffect>) {
        self.sync(now_ns, effects);
    }

    fn save(&self, name: &str) -> Section {
        Section::encode(name, saved::VERSION, &saved::Form::of(self))
    }

    fn restore(&mut self, name: &str, section: &Section) -> Result<(), RestoreError> {
        section.decode::<saved::Form>(name, saved::VERSION)?.put(self);
        Ok(())
    }
}
