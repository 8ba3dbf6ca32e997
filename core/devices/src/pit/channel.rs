//! One counter of the 8254.
//!
//! The counting element isn't stepped: it is a function of the ticks since the count was loaded.
//! `loaded_at` is the tick at which the element held the count; a gate that stops the count
//! freezes the number of ticks elapsed.

use kasane_ports::Level;

use super::spec::{Bytes, Mode, Radix, SHORTEST_DEADLINE_TICKS};

/// A count on its way into the counting element of a periodic mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct NextCount {
    /// The tick at which the running period ends.
    pub(crate) at: u64,
    /// The count register then taken over.
    pub(crate) register: u16,
}

/// One counter.
#[derive(Clone, Debug)]
pub(crate) struct Channel {
    pub(super) mode: Mode,
    pub(super) radix: Radix,
    pub(super) bytes: Bytes,
    pub(super) gate: bool,
    /// The count register, as written.
    pub(super) register: u16,
    /// The register that the running count started from.
    pub(super) running: u16,
    /// The tick at which the counting element was loaded; none before the first count.
    pub(super) loaded_at: Option<u64>,
    /// Ticks elapsed when the gate stopped the count.
    pub(super) frozen: Option<u64>,
    pub(super) next: Option<NextCount>,
    /// The low byte of a count of two bytes was written.
    pub(super) low_written: Option<u8>,
    /// The high byte is read next.
    pub(super) read_high: bool,
    pub(super) latched_count: Option<u16>,
    pub(super) latched_status: Option<u8>,
}

impl Channel {
    pub(crate) const fn new(gate: Level) -> Self {
        Self {
            mode: Mode::SquareWave,
            radix: Radix::Binary,
            bytes: Bytes::Both,
            gate: gate.is_high(),
            register: 0,
            running: 0,
            loaded_at: None,
            frozen: None,
            next: None,
            low_written: None,
            read_high: false,
            latched_count: None,
            latched_status: None,
        }
    }

    /// Ticks of one count: 1 to 65536, or in BCD to 10000.
    fn ticks(&self, register: u16) -> u64 {
        match (self.radix, register) {
            (Radix::Binary, 0) => 0x1_0000,
            (Radix::Decimal, 0) => 10_000,
            (Radix::Binary, register) => u64::from(register),
            (Radix::Decimal, register) => from_bcd(register),
        }
    }

    fn period(&self) -> u64 {
        self.ticks(self.running)
    }

    /// Takes over a count whose period has begun.
    pub(crate) fn sync(&mut self, tick: u64) {
        if let Some(next) = self.next
            && tick >= next.at
        {
            self.running = next.register;
            self.loaded_at = Some(next.at);
            self.next = None;
        }
    }

    fn elapsed(&self, tick: u64) -> Option<u64> {
        let loaded_at = self.loaded_at?;
        Some(self.frozen.unwrap_or_else(|| tick.saturating_sub(loaded_at)))
    }

    /// The level of OUT.
    pub(crate) fn out(&self, tick: u64) -> bool {
        let high_at_rest = self.mode != Mode::TerminalCount;
        let Some(elapsed) = self.elapsed(tick) else { return high_at_rest };
        let period = self.period();
        match self.mode {
            Mode::TerminalCount | Mode::OneShot => elapsed >= period,
            Mode::RateGenerator => !self.gate || elapsed % period != period - 1 || period == 1,
            Mode::SquareWave => !self.gate || elapsed % period < period.div_ceil(2),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => elapsed != period,
        }
    }

    /// The counting element.
    pub(crate) fn count(&self, tick: u64) -> u16 {
        let Some(elapsed) = self.elapsed(tick) else { return self.register };
        let period = self.period();
        let count = match self.mode {
            Mode::TerminalCount | Mode::OneShot | Mode::SoftwareStrobe | Mode::HardwareStrobe => {
                period.wrapping_sub(elapsed)
            }
            Mode::RateGenerator => period - elapsed % period,
            // It counts by two, twice per period; an odd count holds one tick longer in the
            // first half (datasheet page 14).
            Mode::SquareWave => {
                let (at, half) = (elapsed % period, period.div_ceil(2));
                let within = if at < half { at } else { at - half };
                (period & !1).wrapping_sub(within * 2)
            }
        };
        match self.radix {
            Radix::Binary => count as u16,
            Radix::Decimal => to_bcd((count as i64).rem_euclid(10_000) as u64),
        }
    }

    /// The next tick after `after` at which OUT rises.
    pub(crate) fn next_rise(&self, after: u64) -> Option<u64> {
        let loaded_at = self.loaded_at?;
        if self.frozen.is_some() {
            return None;
        }
        let period = self.period();
        let once = |tick: u64| Some(tick).filter(|tick| *tick > after);
        match self.mode {
            Mode::TerminalCount | Mode::OneShot => once(loaded_at.wrapping_add(period)),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => {
                once(loaded_at.wrapping_add(period).wrapping_add(1))
            }
            Mode::RateGenerator | Mode::SquareWave => {
                let periods = (after.saturating_sub(loaded_at) / period).saturating_add(1);
                let rise = loaded_at.wrapping_add(periods.wrapping_mul(period));
                Some(self.next.map_or(rise, |next| rise.min(next.at.max(after.saturating_add(1)))))
            }
        }
    }

    /// The tick after `after` at which somebody has to look. It is that of the next rise, but
    /// where a short period makes them too many: then only each so-manieth rise, counted from the
    /// load, has a deadline, and the rises up to it are seen as one.
    pub(crate) fn next_deadline(&self, after: u64) -> Option<u64> {
        let rise = self.next_rise(after)?;
        let (Some(loaded_at), true, None) = (self.loaded_at, self.mode.is_periodic(), self.next)
        else {
            return Some(rise);
        };
        let period = self.period();
        let stride = period.wrapping_mul(SHORTEST_DEADLINE_TICKS.div_ceil(period));
        let strides = (after.saturating_sub(loaded_at) / stride).saturating_add(1);
        Some(loaded_at.wrapping_add(strides.wrapping_mul(stride)))
    }

    /// A control word for this counter (not a latch command).
    pub(crate) fn control(&mut self, bytes: Bytes, mode: Mode, radix: Radix) {
        *self = Self { mode, radix, bytes, ..Self::new(Level::from_asserted(self.gate)) };
    }

    pub(crate) fn latch_count(&mut self, tick: u64) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.count(tick));
        }
    }

    pub(crate) fn latch_status(&mut self, tick: u64) {
        // The count isn't in the element yet: not loaded, or waiting for the end of a period.
        let null = self.loaded_at.is_none_or(|at| tick < at)
            || self.next.is_some()
            || (self.mode.is_triggered() && self.register != self.running);
        let status = u8::from(self.out(tick)) << 7
            | u8::from(null) << 6
            | self.bytes.bits() << 4
            | self.mode.number() << 1
            | u8::from(self.radix == Radix::Decimal);
        self.latched_status.get_or_insert(status);
    }

    pub(crate) fn read(&mut self, tick: u64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self.latched_count.unwrap_or_else(|| self.count(tick)).to_le_bytes();
        let (byte, done) = match self.bytes {
            Bytes::Low => (low, true),
            Bytes::High => (high, true),
            Bytes::Both if self.read_high => (high, true),
            Bytes::Both => (low, false),
        };
        if self.bytes == Bytes::Both {
            self.read_high = !self.read_high;
        }
        if done {
            self.latched_count = None;
        }
        byte
    }

    pub(crate) fn write(&mut self, value: u8, tick: u64) {
        let register = match (self.bytes, self.low_written.take()) {
            (Bytes::Low, _) => u16::from(value),
            (Bytes::High, _) => u16::from(value) << 8,
            (Bytes::Both, Some(low)) => u16::from_le_bytes([low, value]),
            (Bytes::Both, None) => {
                self.low_written = Some(value);
                // In mode 0 the first byte stops the count and OUT stays low (page 11).
                if self.mode == Mode::TerminalCount {
                    self.loaded_at = None;
                    self.frozen = None;
                }
                return;
            }
        };
        self.register = register;
        if self.mode.is_triggered() {
            return;
        }
        match self.loaded_at {
            Some(loaded_at) if self.mode.is_periodic() && self.frozen.is_none() => {
                let period = self.period();
                let periods = (tick.saturating_sub(loaded_at) / period).saturating_add(1);
                let at = loaded_at.wrapping_add(periods.wrapping_mul(period));
                self.next = Some(NextCount { at, register });
            }
            Some(_) | None => self.load(tick),
        }
    }

    /// Loads the counting element with the next tick.
    fn load(&mut self, tick: u64) {
        self.running = self.register;
        self.loaded_at = Some(tick.wrapping_add(1));
        self.next = None;
        self.frozen = (!self.gate && !self.mode.is_triggered()).then_some(0);
    }

    /// Drives the gate.
    pub(crate) fn set_gate(&mut self, gate: Level, tick: u64) {
        let gate = gate.is_high();
        if gate == self.gate {
            return;
        }
        let elapsed = self.elapsed(tick);
        self.gate = gate;
        match self.mode {
            Mode::TerminalCount | Mode::SoftwareStrobe => {
                if gate {
                    if let Some(elapsed) = self.frozen.take() {
                        self.loaded_at = Some(tick.wrapping_sub(elapsed));
                    }
                } else {
                    self.frozen = elapsed;
                }
            }
            Mode::RateGenerator | Mode::SquareWave => {
                if !gate {
                    self.frozen = elapsed;
                } else if self.loaded_at.is_some() {
                    self.load(tick);
                }
            }
            // The trigger; before a first count was written it counts from 0, as the chip does.
            Mode::OneShot | Mode::HardwareStrobe => {
                if gate {
                    self.load(tick);
                }
            }
        }
    }
}

/// The value of four decimal digits; digits above 9 count as they do in the chip.
fn from_bcd(value: u16) -> u64 {
    let digit = |shift: u32| u64::from(value >> shift & 15);
    digit(0) + digit(4) * 10 + digit(8) * 100 + digit(12) * 1000
}

fn to_bcd(value: u64) -> u16 {
    let digit = |divisor: u64| (value / divisor % 10) as u16;
    digit(1) | digit(10) << 4 | digit(100) << 8 | digit(1000) << 12
}
