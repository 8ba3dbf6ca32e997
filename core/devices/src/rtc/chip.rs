//! The clock as a state machine.
//!
//! Time isn't stepped: while the clock runs, the time registers are a function of guest time
//! (`offset_s` and `phase_ns`); while it is held (SET, or the divider in reset) they are plain
//! bytes. Flags of register C that nobody waits for are worked out when it is read.

use core::convert::Infallible;

use super::calendar::{Moment, weekday};
use super::cmos::{self, CmosConfig};
use super::saved;
use super::spec::{self, RegisterA, RegisterB, RegisterC};
use crate::saved::{RestoreError, Section};
use crate::socket::{Access, Chip, Effects};

const NS: u64 = 1_000_000_000;
const DAY_S: u32 = 86_400;
/// Wire 0: the interrupt request.
const IRQ: u32 = 1;
/// Wire 1: the alarm among its reasons, for the power management's wake-up event.
const ALARM: u32 = 2;

/// The MC146818.
#[derive(Clone, Debug)]
pub struct Rtc {
    pub(super) index: u8,
    /// All 128 bytes; those of the running time are stale.
    pub(super) bytes: [u8; 128],
    /// Seconds since 1970 at second 0 of the divider.
    pub(super) offset_s: i64,
    /// Added to guest time before it is divided into seconds.
    pub(super) phase_ns: u64,
    /// What the home's wall clock was ahead of guest time when this clock was last set by it.
    pub(super) wall_ahead_ns: i64,
    /// What the weekday register is ahead of the calendar, 0 to 6.
    pub(super) weekday_ahead: u8,
    /// Flags are worked out up to this guest time.
    pub(super) seen_ns: u64,
}

impl Rtc {
    /// A clock that shows UTC, in BCD and 24-hour form, as a PC's firmware leaves it.
    #[must_use]
    pub fn new(config: &CmosConfig) -> Self {
        let mut rtc = Self {
            index: 0,
            bytes: cmos::contents(config),
            offset_s: (config.wall_clock_ns / NS) as i64,
            phase_ns: config.wall_clock_ns % NS,
            wall_ahead_ns: config.wall_clock_ns as i64,
            weekday_ahead: 0,
            seen_ns: 0,
        };
        // 32.768 kHz, 1024 Hz.
        rtc.put(spec::A, 0x26);
        rtc.put(spec::B, RegisterB::HOURS_24.bits());
        rtc
    }

    /// Takes in the time that has passed in the home but not in the guest: in a pause, or between
    /// a save and a restore. What the guest has set the clock ahead or behind stays. As of any
    /// clock with a battery, an alarm of that time has rung.
    pub fn follow(&mut self, wall_clock_ns: u64, now_ns: u64) {
        self.sync(now_ns);
        let wall_ahead_ns = wall_clock_ns.wrapping_sub(now_ns) as i64;
        let gone_ns = wall_ahead_ns.wrapping_sub(self.wall_ahead_ns);
        if gone_ns.unsigned_abs() < spec::APART_NS {
            return;
        }
        self.wall_ahead_ns = wall_ahead_ns;
        if self.is_held() {
            return;
        }
        let (before_s, divided_ns) = (self.seconds(now_ns), i128::from(self.divided_ns(now_ns)));
        let alarm_ns = self.next_alarm_ns(now_ns);
        let second_ns = i128::from(NS);
        let shown_ns = i128::from(self.offset_s) * second_ns + divided_ns + i128::from(gone_ns);
        let phase_ns = i128::from(self.phase_ns) + i128::from(gone_ns);
        self.phase_ns = phase_ns.rem_euclid(second_ns) as u64;
        let whole_s = i128::from(self.divided_ns(now_ns) / NS);
        self.offset_s = (shown_ns.div_euclid(second_ns) - whole_s) as i64;
        let mut flags = self.c();
        if gone_ns > 0 && self.seconds(now_ns) != before_s {
            flags |= RegisterC::UPDATE;
            let end_ns = now_ns.saturating_add(gone_ns.unsigned_abs());
            if alarm_ns.is_some_and(|at| at <= end_ns) {
                flags |= RegisterC::ALARM;
            }
        }
        self.put(spec::C, flags.bits());
        self.request();
    }

    /// The RESET pin: interrupts go off; time and memory stay (datasheet page 9).
    pub fn reset(&mut self) {
        self.index = 0;
        let kept = self.b()
            - (RegisterB::PERIODIC_INTERRUPT
                | RegisterB::ALARM_INTERRUPT
                | RegisterB::UPDATE_INTERRUPT
                | RegisterB::SQUARE_WAVE);
        self.put(spec::B, kept.bits());
        self.put(spec::C, 0);
    }

    /// The clock of a machine that is gone goes on in this one: same memory, same settings, and
    /// the time that has passed meanwhile.
    ///
    /// # Errors
    /// A section of another chip or version, or malformed.
    pub fn take_over(
        &mut self,
        section: &Section,
        wall_clock_ns: u64,
        now_ns: u64,
    ) -> Result<(), RestoreError> {
        self.restore(&section.name, section)?;
        self.seen_ns = now_ns;
        self.follow(wall_clock_ns, now_ns);
        self.reset();
        Ok(())
    }

    /// A byte of the memory, not of the clock.
    #[must_use]
    pub fn byte(&self, index: u8) -> u8 {
        self.bytes.get(usize::from(index & 0x7F)).copied().unwrap_or(0xFF)
    }

    fn put(&mut self, index: u8, value: u8) {
        if let Some(byte) = self.bytes.get_mut(usize::from(index & 0x7F)) {
            *byte = value;
        }
    }

    fn a(&self) -> RegisterA {
        RegisterA::from_bits_retain(self.byte(spec::A))
    }
    fn b(&self) -> RegisterB {
        RegisterB::from_bits_retain(self.byte(spec::B))
    }
    fn c(&self) -> RegisterC {
        RegisterC::from_bits_retain(self.byte(spec::C))
    }

    fn divider_held(&self) -> bool {
        self.a().contains(RegisterA::DIVIDER_RESET)
    }
    fn is_held(&self) -> bool {
        self.divider_held() || self.b().contains(RegisterB::SET)
    }

    /// The divider's time.
    fn divided_ns(&self, now_ns: u64) -> u64 {
        now_ns.wrapping_add(self.phase_ns)
    }
    /// The guest time of the divider's time `divided_ns`.
    fn guest_ns(&self, divided_ns: u64) -> u64 {
        divided_ns.saturating_sub(self.phase_ns)
    }
    fn seconds(&self, now_ns: u64) -> i64 {
        self.offset_s.wrapping_add((self.divided_ns(now_ns) / NS) as i64)
    }

    /// Ticks of 32768 Hz in one period of the periodic interrupt (datasheet table 5).
    fn period_ticks(&self) -> Option<u64> {
        match (self.a() & RegisterA::RATE).bits() {
            0 => None,
            // 1 and 2 are the rates of 8 and 9 with this oscillator.
            rate @ 1..3 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }
    fn periods(&self, now_ns: u64, ticks: u64) -> u64 {
        (u128::from(self.divided_ns(now_ns)) * 32_768 / u128::from(ticks * NS)) as u64
    }

    /// Works the flags out up to `now_ns`.
    fn sync(&mut self, now_ns: u64) {
        let before_ns = self.seen_ns;
        if now_ns <= before_ns {
            return;
        }
        let mut flags = self.c();
        if !self.divider_held()
            && let Some(ticks) = self.period_ticks()
            && self.periods(now_ns, ticks) != self.periods(before_ns, ticks)
        {
            flags |= RegisterC::PERIODIC;
        }
        if !self.is_held() && self.seconds(now_ns) != self.seconds(before_ns) {
            flags |= RegisterC::UPDATE;
            if self.next_alarm_ns(before_ns).is_some_and(|at| at <= now_ns) {
                flags |= RegisterC::ALARM;
            }
        }
        self.seen_ns = now_ns;
        self.put(spec::C, flags.bits());
        self.request();
    }

    /// Enable bits of B and flags of C have the same places.
    fn request(&mut self) {
        let enabled = RegisterC::from_bits_truncate(self.b().bits())
            & (RegisterC::UPDATE | RegisterC::ALARM | RegisterC::PERIODIC);
        let mut flags = self.c();
        flags.set(RegisterC::REQUEST, flags.intersects(enabled));
        self.put(spec::C, flags.bits());
    }

    fn decode(&self, value: u8) -> u8 {
        if self.b().contains(RegisterB::BINARY) {
            value
        } else {
            (value >> 4).wrapping_mul(10).wrapping_add(value & 15)
        }
    }
    fn encode(&self, value: u8) -> u8 {
        if self.b().contains(RegisterB::BINARY) {
            value
        } else {
            ((value / 10 % 10) << 4) | (value % 10)
        }
    }
    fn decode_hour(&self, value: u8) -> u8 {
        if self.b().contains(RegisterB::HOURS_24) {
            return self.decode(value);
        }
        let hour = self.decode(value & 0x7F) % 12;
        if value & 0x80 != 0 { hour + 12 } else { hour }
    }
    fn encode_hour(&self, hour: u8) -> u8 {
        if self.b().contains(RegisterB::HOURS_24) {
            return self.encode(hour);
        }
        let twelve = if hour.is_multiple_of(12) { 12 } else { hour % 12 };
        self.encode(twelve) | if hour >= 12 { 0x80 } else { 0 }
    }

    /// Writes the running time into the registers.
    fn registers_from_time(&mut self, now_ns: u64) {
        let seconds = self.seconds(now_ns);
        let moment = Moment::from_seconds(seconds);
        let day_of_week = (weekday(seconds) - 1 + self.weekday_ahead) % 7 + 1;
        let century = moment.year.div_euclid(100).rem_euclid(100) as u8;
        let year = moment.year.rem_euclid(100) as u8;
        for (index, value) in [
            (spec::SECONDS, self.encode(moment.second)),
            (spec::MINUTES, self.encode(moment.minute)),
            (spec::HOURS, self.encode_hour(moment.hour)),
            (spec::WEEKDAY, self.encode(day_of_week)),
            (spec::DAY, self.encode(moment.day)),
            (spec::MONTH, self.encode(moment.month)),
            (spec::YEAR, self.encode(year)),
            (spec::CENTURY, self.encode(century)),
        ] {
            self.put(index, value);
        }
    }

    /// Takes the running time from the registers.
    fn time_from_registers(&mut self, now_ns: u64) {
        let field = |index| self.decode(self.byte(index));
        let moment = Moment {
            year: i64::from(field(spec::CENTURY)) * 100 + i64::from(field(spec::YEAR)),
            month: field(spec::MONTH),
            day: field(spec::DAY),
            hour: self.decode_hour(self.byte(spec::HOURS)),
            minute: field(spec::MINUTES),
            second: field(spec::SECONDS),
        };
        let day_of_week = field(spec::WEEKDAY);
        let seconds = moment.to_seconds();
        self.offset_s = seconds.wrapping_sub((self.divided_ns(now_ns) / NS) as i64);
        let ahead = i64::from(day_of_week) - i64::from(weekday(seconds));
        self.weekday_ahead = ahead.rem_euclid(7) as u8;
    }

    /// The guest time of the first alarm after `now_ns`.
    fn next_alarm_ns(&self, now_ns: u64) -> Option<u64> {
        let every = |index| (self.byte(index) & 0xC0 == 0xC0).then_some(());
        let second = every(spec::SECONDS_ALARM)
            .map_or_else(|| Some(self.decode(self.byte(spec::SECONDS_ALARM))), |()| None);
        let minute = every(spec::MINUTES_ALARM)
            .map_or_else(|| Some(self.decode(self.byte(spec::MINUTES_ALARM))), |()| None);
        let hour = every(spec::HOURS_ALARM)
            .map_or_else(|| Some(self.decode_hour(self.byte(spec::HOURS_ALARM))), |()| None);
        let start = self.seconds(now_ns).wrapping_add(1).rem_euclid(i64::from(DAY_S)) as u32;
        let at = next_match(start, hour, minute, second)?;
        let wait = (at + DAY_S - start) % DAY_S;
        let next_second = self.divided_ns(now_ns) / NS + 1;
        Some(self.guest_ns(next_second.wrapping_add(u64::from(wait)).saturating_mul(NS)))
    }

    fn read_data(&mut self, now_ns: u64) -> u8 {
        self.sync(now_ns);
        let index = self.index;
        let is_time = matches!(index, 0 | 2 | 4 | 6..=9 | spec::CENTURY);
        if is_time && !self.is_held() {
            self.registers_from_time(now_ns);
        }
        let value = self.byte(index);
        match index {
            spec::A => {
                let left_ns = NS - self.divided_ns(now_ns) % NS;
                let updating = !self.is_held() && left_ns <= spec::UPDATE_LEAD_NS;
                value | if updating { RegisterA::UPDATE_IN_PROGRESS.bits() } else { 0 }
            }
            spec::C => {
                self.put(spec::C, 0);
                value
            }
            spec::D => spec::VALID_RAM_AND_TIME,
            _ => value,
        }
    }

    fn write_data(&mut self, value: u8, now_ns: u64) {
        self.sync(now_ns);
        let index = self.index;
        match index {
            spec::A => self.write_a(value, now_ns),
            spec::B => self.write_b(value, now_ns),
            spec::C | spec::D => {}
            0 | 2 | 4 | 6..=9 | spec::CENTURY => {
                if self.is_held() {
                    self.put(index, value);
                } else {
                    self.registers_from_time(now_ns);
                    self.put(index, value);
                    self.time_from_registers(now_ns);
                }
            }
            _ => self.put(index, value),
        }
    }

    fn write_a(&mut self, value: u8, now_ns: u64) {
        let (was_held, was_reset) = (self.is_held(), self.divider_held());
        if !was_held {
            self.registers_from_time(now_ns);
        }
        self.put(spec::A, value & !RegisterA::UPDATE_IN_PROGRESS.bits());
        if was_reset && !self.divider_held() {
            // The divider starts half a second before its next update.
            let into = now_ns % NS;
            self.phase_ns = (NS + spec::FIRST_UPDATE_NS - into) % NS;
        }
        if !self.is_held() {
            self.time_from_registers(now_ns);
        }
    }

    fn write_b(&mut self, value: u8, now_ns: u64) {
        let was_held = self.is_held();
        let mut flags = RegisterB::from_bits_retain(value);
        if flags.contains(RegisterB::SET) {
            flags.remove(RegisterB::UPDATE_INTERRUPT);
        }
        if !was_held && flags.contains(RegisterB::SET) {
            self.registers_from_time(now_ns);
        }
        self.put(spec::B, flags.bits());
        if was_held && !self.is_held() {
            self.time_from_registers(now_ns);
        }
        self.request();
    }
}

/// The first second of the day from `start` on (around midnight) that has the given fields.
fn next_match(start: u32, hour: Option<u8>, minute: Option<u8>, second: Option<u8>) -> Option<u32> {
    if hour.is_some_and(|h| h > 23)
        || minute.is_some_and(|m| m > 59)
        || second.is_some_and(|s| s > 59)
    {
        return None;
    }
    let fits = |wanted: Option<u8>, value: u32| wanted.is_none_or(|w| u32::from(w) == value);
    let (h0, m0, s0) = (start / 3600 % 24, start / 60 % 60, start % 60);
    let first_second = second.map_or(0, u32::from);
    if fits(hour, h0) {
        let this_second = second.map_or(s0, u32::from);
        if fits(minute, m0) && this_second >= s0 {
            return Some(h0 * 3600 + m0 * 60 + this_second);
        }
        if let Some(m) = (m0 + 1..60).find(|m| fits(minute, *m)) {
            return Some(h0 * 3600 + m * 60 + first_second);
        }
    }
    let h = (h0 + 1..=h0 + 24).map(|h| h % 24).find(|h| fits(hour, *h))?;
    Some(h * 3600 + minute.map_or(0, u32::from) * 60 + first_second)
}

impl Chip for Rtc {
    type Effect = Infallible;
    const NAME: &'static str = "rtc";

    fn read(&mut self, access: Access, _effects: &mut Effects<Infallible>) -> u64 {
        match access.offset {
            1 => u64::from(self.read_data(access.now_ns)),
            // The index can't be read back.
            _ => 0xFF,
        }
    }

    fn write(&mut self, access: Access, value: u64, _effects: &mut Effects<Infallible>) {
        match access.offset {
            // Bit 7 masks NMIs, of which this board has no source.
            0 => self.index = value as u8 & 0x7F,
            1 => self.write_data(value as u8, access.now_ns),
            _ => {}
        }
    }

    fn levels(&self) -> u32 {
        let request = self.c().contains(RegisterC::REQUEST);
        let alarm =
            self.c().contains(RegisterC::ALARM) && self.b().contains(RegisterB::ALARM_INTERRUPT);
        (u32::from(request) * IRQ) | (u32::from(alarm) * ALARM)
    }

    /// Only what would raise the wire: while a request stands, reading C comes first.
    fn next_deadline_ns(&self) -> Option<u64> {
        if self.c().contains(RegisterC::REQUEST) {
            return None;
        }
        let (b, seen_ns) = (self.b(), self.seen_ns);
        let periodic = self
            .period_ticks()
            .filter(|_| b.contains(RegisterB::PERIODIC_INTERRUPT) && !self.divider_held())
            .map(|ticks| {
                let next = u128::from(self.periods(seen_ns, ticks)) + 1;
                let divided = (next * u128::from(ticks * NS)).div_ceil(32_768);
                self.guest_ns(u64::try_from(divided).unwrap_or(u64::MAX))
            });
        let running = !self.is_held();
        let update = (running && b.contains(RegisterB::UPDATE_INTERRUPT)).then(|| {
            let next = self.divided_ns(seen_ns) / NS + 1;
            self.guest_ns(next.saturating_mul(NS))
        });
        let alarm = (running && b.contains(RegisterB::ALARM_INTERRUPT))
            .then(|| self.next_alarm_ns(seen_ns))
            .flatten();
        [periodic, update, alarm].into_iter().flatten().min()
    }

    fn advance(&mut self, now_ns: u64, _effects: &mut Effects<Infallible>) {
        self.sync(now_ns);
    }

    fn save(&self, name: &str) -> Section {
        Section::encode(name, saved::VERSION, &saved::RtcForm::of(self))
    }

    fn restore(&mut self, name: &str, section: &Section) -> Result<(), RestoreError> {
        let form = section.decode::<saved::RtcForm>(name, saved::VERSION)?;
        form.put(self).map_err(|()| RestoreError::Malformed { name: section.name.clone() })
    }
}
