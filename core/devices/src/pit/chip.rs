//! Three counters and the control port.

use core::convert::Infallible;

use kasane_ports::Level;

use super::channel::Channel;
use super::saved;
use super::spec::{Bytes, ControlB, Mode, REFRESH_TICKS, Radix, ReadBack, TICKS_PER_SECOND};
use crate::saved::{RestoreError, Section};
use crate::socket::{Access, Chip, Effects};

/// Offset of port 0x61 in the chip's space; 0 to 3 are the 8254's own.
pub(super) const CONTROL_B: u32 = 4;
/// Wire 0: OUT of counter 0.
const OUT_0: u32 = 1;

/// The 8254.
///
/// OUT of counter 0 in the periodic modes is held high between its rising edges, each of which is
/// a pulse. In mode 3 the real wire is low for half of the period, and an 8259A takes an edge
/// back when its input falls; a processor that this host didn't let run meanwhile would lose
/// ticks which a real one, always running, has served.
#[derive(Clone, Debug)]
pub struct Pit {
    pub(super) channels: [Channel; 3],
    pub(super) control_b: u8,
    /// Rising edges up to this tick were seen.
    pub(super) seen_tick: u64,
}

impl Default for Pit {
    fn default() -> Self {
        Self {
            channels: [
                Channel::new(Level::High),
                Channel::new(Level::High),
                Channel::new(Level::Low),
            ],
            control_b: 0,
            seen_tick: 0,
        }
    }
}

/// The tick that runs at a time.
fn tick_of(now_ns: u64) -> u64 {
    (u128::from(now_ns) * u128::from(TICKS_PER_SECOND) / 1_000_000_000) as u64
}

/// The first nanosecond of a tick.
fn ns_of(tick: u64) -> u64 {
    let ns = (u128::from(tick) * 1_000_000_000).div_ceil(u128::from(TICKS_PER_SECOND));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

impl Pit {
    fn sync(&mut self, now_ns: u64, effects: &mut Effects<Infallible>) -> u64 {
        // Time may come a little out of order from different threads; the chip's doesn't go back.
        let tick = tick_of(now_ns).max(self.seen_tick);
        let [timer, refresh, speaker] = &mut self.channels;
        if timer.next_rise(self.seen_tick).is_some_and(|rise| rise <= tick) {
            effects.pulses |= OUT_0;
        }
        for channel in [timer, refresh, speaker] {
            channel.sync(tick);
        }
        self.seen_tick = tick;
        tick
    }

    fn control_word(&mut self, value: u8, tick: u64) {
        let bytes = match value >> 4 & 3 {
            1 => Some(Bytes::Low),
            2 => Some(Bytes::High),
            3 => Some(Bytes::Both),
            _ => None,
        };
        let select = usize::from(value >> 6);
        let Some(channel) = self.channels.get_mut(select) else {
            return self.read_back(value, tick);
        };
        match bytes {
            Some(bytes) => channel.control(bytes, Mode::decode(value >> 1), Radix::decode(value)),
            None => channel.latch_count(tick),
        }
    }

    fn read_back(&mut self, value: u8, tick: u64) {
        let flags = ReadBack::from_bits_retain(value);
        for (number, channel) in self.channels.iter_mut().enumerate() {
            if value & (2 << number) == 0 {
                continue;
            }
            if !flags.contains(ReadBack::NO_COUNT) {
                channel.latch_count(tick);
            }
            if !flags.contains(ReadBack::NO_STATUS) {
                channel.latch_status(tick);
            }
        }
    }

    fn read_control_b(&self, tick: u64) -> u8 {
        let mut value = ControlB::from_bits_retain(self.control_b);
        value.set(ControlB::REFRESH, (tick / REFRESH_TICKS) & 1 != 0);
        let [_, _, speaker] = &self.channels;
        value.set(ControlB::OUT_2, speaker.out(tick));
        value.bits()
    }
}

impl Chip for Pit {
    type Effect = Infallible;
    const NAME: &'static str = "pit";

    fn read(&mut self, access: Access, effects: &mut Effects<Infallible>) -> u64 {
        let tick = self.sync(access.now_ns, effects);
        let value = match access.offset {
            CONTROL_B => self.read_control_b(tick),
            // The control word can't be read.
            3 | 5.. => 0xFF,
            number @ 0..3 => match self.channels.get_mut(number as usize) {
                Some(channel) => channel.read(tick),
                None => 0xFF,
            },
        };
        u64::from(value)
    }

    fn write(&mut self, access: Access, value: u64, effects: &mut Effects<Infallible>) {
        let tick = self.sync(access.now_ns, effects);
        let value = value as u8;
        match access.offset {
            CONTROL_B => {
                self.control_b = value & ControlB::WRITABLE.bits();
                let gate = ControlB::from_bits_retain(value).contains(ControlB::GATE_2);
                let [_, _, speaker] = &mut self.channels;
                speaker.set_gate(Level::from_asserted(gate), tick);
            }
            3 => self.control_word(value, tick),
            5.. => {}
            number @ 0..3 => {
                if let Some(channel) = self.channels.get_mut(number as usize) {
                    channel.write(value, tick);
                }
            }
        }
    }

    fn levels(&self) -> u32 {
        let [timer, _, _] = &self.channels;
        let high = match timer.mode {
            Mode::TerminalCount | Mode::OneShot => timer.out(self.seen_tick),
            Mode::RateGenerator
            | Mode::SquareWave
            | Mode::SoftwareStrobe
            | Mode::HardwareStrobe => true,
        };
        if high { OUT_0 } else { 0 }
    }

    fn next_deadline_ns(&self) -> Option<u64> {
        let [timer, _, _] = &self.channels;
        timer.next_deadline(self.seen_tick).map(ns_of)
    }

    fn advance(&mut self, now_ns: u64, effects: &mut Effects<Infallible>) {
        self.sync(now_ns, effects);
    }

    fn save(&self, name: &str) -> Section {
        Section::encode(name, saved::VERSION, &saved::PitForm::of(self))
    }

    fn restore(&mut self, name: &str, section: &Section) -> Result<(), RestoreError> {
        section.decode::<saved::PitForm>(name, saved::VERSION)?.put(self);
        Ok(())
    }
}
