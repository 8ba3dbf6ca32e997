//! The block as a state machine. Its registers' bits are in `kasane_spec_pc::acpi_pm`, where the
//! firmware tables find them too.

use kasane_cpu::AccessSize;
use kasane_spec_pc::acpi_pm as spec;

use super::saved;
use crate::saved::{RestoreError, Section};
use crate::socket::{Access, Chip, Effects};
use crate::system::SystemRequest;

/// Offset of port 0xB2 in the chip's space; 0xB3 is the next.
pub const SMI_COMMAND: u32 = 0x40;
/// Wire 0: the SCI.
const SCI: u32 = 1;
/// PM1 events that make an SCI.
const EVENTS: u16 = spec::TIMER_BIT | spec::GLOBAL | spec::POWER_BUTTON | spec::RTC;

/// Bits of the timer, as the FADT's TMR_VAL_EXT tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimerWidth {
    /// 24, as the PIIX4 has.
    #[default]
    Bits24,
    /// 32.
    Bits32,
}

/// The block.
#[derive(Clone, Debug)]
pub struct AcpiPm {
    pub(super) width: TimerWidth,
    pub(super) status: u16,
    pub(super) enable: u16,
    pub(super) control: u16,
    pub(super) gpe_status: u16,
    pub(super) gpe_enable: u16,
    /// 0xB2 and 0xB3.
    pub(super) smi: [u8; 2],
    /// Registers 0x10 to 0x3F that nothing here acts on: kept as written.
    pub(super) other: [u8; 32],
    /// The timer was looked at up to this tick.
    pub(super) seen_tick: u64,
}

/// Offset of the first kept register.
const OTHER: u32 = 0x20;

fn tick_of(now_ns: u64) -> u64 {
    (u128::from(now_ns) * u128::from(spec::TIMER_HZ) / 1_000_000_000) as u64
}
fn ns_of(tick: u64) -> u64 {
    let ns = (u128::from(tick) * 1_000_000_000).div_ceil(u128::from(spec::TIMER_HZ));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

impl AcpiPm {
    /// A block after power-on.
    #[must_use]
    pub const fn new(width: TimerWidth) -> Self {
        Self {
            width,
            status: 0,
            enable: 0,
            control: 0,
            gpe_status: 0,
            gpe_enable: 0,
            smi: [0; 2],
            other: [0; 32],
            seen_tick: 0,
        }
    }

    /// Ticks between two changes of the timer's highest bit, as a shift.
    const fn half_turn_shift(&self) -> u32 {
        match self.width {
            TimerWidth::Bits24 => 23,
            TimerWidth::Bits32 => 31,
        }
    }

    fn timer(&self) -> u32 {
        let mask = match self.width {
            TimerWidth::Bits24 => 0x00FF_FFFF,
            TimerWidth::Bits32 => 0xFFFF_FFFF,
        };
        (self.seen_tick & mask) as u32
    }

    fn sync(&mut self, now_ns: u64) {
        let tick = tick_of(now_ns).max(self.seen_tick);
        let shift = self.half_turn_shift();
        if tick >> shift != self.seen_tick >> shift {
            self.status |= spec::TIMER_BIT;
        }
        self.seen_tick = tick;
    }

    /// Somebody pressed the power button.
    pub fn press_power_button(&mut self) {
        self.status |= spec::POWER_BUTTON;
    }

    /// The clock's alarm rang.
    pub fn rtc_alarm(&mut self) {
        self.status |= spec::RTC;
    }

    /// General purpose event `number`, 0 to 15, happened.
    pub fn raise_event(&mut self, number: u32) {
        self.gpe_status |= 1u16.checked_shl(number).unwrap_or(0);
    }

    /// Whether the system has taken the events over (SCI_EN).
    #[must_use]
    pub const fn acpi_enabled(&self) -> bool {
        self.control & spec::SCI_ENABLE != 0
    }

    /// Hands the events to the system, as firmware without an SMI handler does before it starts
    /// the system.
    pub fn enable_acpi(&mut self) {
        self.control |= spec::SCI_ENABLE;
    }

    /// One byte of the block or of the SMI ports.
    fn byte(&self, offset: u32) -> u8 {
        let of = |value: u32, first: u16| {
            value.wrapping_shr(8 * (offset.wrapping_sub(u32::from(first)))) as u8
        };
        match offset {
            0x00 | 0x01 => of(u32::from(self.status), spec::PM1_STATUS),
            0x02 | 0x03 => of(u32::from(self.enable), spec::PM1_ENABLE),
            0x04 | 0x05 => of(u32::from(self.control), spec::PM1_CONTROL),
            0x08..=0x0B => of(self.timer(), spec::TIMER),
            0x0C | 0x0D => of(u32::from(self.gpe_status), spec::GPE0_STATUS),
            0x0E | 0x0F => of(u32::from(self.gpe_enable), spec::GPE0_ENABLE),
            // Reserved; reading 0x14 and 0x15 would enter C2 and C3, which take no time here.
            0x06 | 0x07 | 0x10..0x20 => 0,
            0x20..0x40 => {
                let at = offset.wrapping_sub(OTHER) as usize;
                self.other.get(at).copied().unwrap_or(0)
            }
            SMI_COMMAND.. => {
                let at = offset.wrapping_sub(SMI_COMMAND) as usize;
                self.smi.get(at).copied().unwrap_or(0xFF)
            }
        }
    }

    fn set_byte(&mut self, offset: u32, value: u8, effects: &mut Effects<SystemRequest>) {
        let shift = 8 * (offset & 1);
        let bits = u16::from(value) << shift;
        let mask = 0xFFu16 << shift;
        match offset {
            0x00 | 0x01 => self.status &= !bits,
            0x02 | 0x03 => self.enable = (self.enable & !mask) | (bits & EVENTS),
            0x04 | 0x05 => self.set_control(bits, mask, effects),
            0x0C | 0x0D => self.gpe_status &= !bits,
            0x0E | 0x0F => self.gpe_enable = (self.gpe_enable & !mask) | bits,
            // The timer and the reserved ones.
            0x06..=0x0B | 0x10..0x20 => {}
            0x20..0x40 => {
                if let Some(byte) = self.other.get_mut(offset.wrapping_sub(OTHER) as usize) {
                    *byte = value;
                }
            }
            SMI_COMMAND.. => self.set_smi_port(offset.wrapping_sub(SMI_COMMAND), value),
        }
    }

    fn set_control(&mut self, bits: u16, mask: u16, effects: &mut Effects<SystemRequest>) {
        let kept = spec::SCI_ENABLE | spec::BUS_MASTER_RELOAD | spec::SLEEP_TYPE;
        self.control = (self.control & !mask) | (bits & kept);
        if bits & spec::SLEEP_ENABLE != 0 {
            let kind = ((self.control & spec::SLEEP_TYPE) >> spec::SLEEP_TYPE_SHIFT) as u8;
            effects.push(match kind {
                spec::SLEEP_TYPE_S5 => SystemRequest::PowerOff,
                kind => SystemRequest::Sleep(kind),
            });
        }
    }

    /// The SMI command port has the two commands that every ACPI system sends; any other would
    /// be for a firmware's handler, and is kept for reading only.
    fn set_smi_port(&mut self, at: u32, value: u8) {
        if let Some(byte) = self.smi.get_mut(at as usize) {
            *byte = value;
        }
        match (at, value) {
            (0, spec::ACPI_ENABLE) => self.control |= spec::SCI_ENABLE,
            (0, spec::ACPI_DISABLE) => self.control &= !spec::SCI_ENABLE,
            _ => {}
        }
    }
}

impl Chip for AcpiPm {
    type Effect = SystemRequest;
    const NAME: &'static str = "acpi-pm";
    const WIDEST: AccessSize = AccessSize::Dword;

    fn read(&mut self, access: Access, _effects: &mut Effects<SystemRequest>) -> u64 {
        self.sync(access.now_ns);
        let bytes = 0..u32::from(access.size.bytes());
        bytes.fold(0, |value, n| {
            let byte = self.byte(access.offset.wrapping_add(n));
            value | u64::from(byte) << (8 * n)
        })
    }

    fn write(&mut self, access: Access, value: u64, effects: &mut Effects<SystemRequest>) {
        self.sync(access.now_ns);
        for n in 0..u32::from(access.size.bytes()) {
            self.set_byte(access.offset.wrapping_add(n), (value >> (8 * n)) as u8, effects);
        }
    }

    fn levels(&self) -> u32 {
        let event =
            self.status & self.enable & EVENTS != 0 || self.gpe_status & self.gpe_enable != 0;
        if event && self.acpi_enabled() { SCI } else { 0 }
    }

    fn next_deadline_ns(&self) -> Option<u64> {
        let wanted = self.enable & spec::TIMER_BIT != 0 && self.status & spec::TIMER_BIT == 0;
        let shift = self.half_turn_shift();
        wanted.then(|| ns_of((self.seen_tick >> shift).wrapping_add(1) << shift))
    }

    fn advance(&mut self, now_ns: u64, _effects: &mut Effects<SystemRequest>) {
        self.sync(now_ns);
    }

    fn save(&self, name: &str) -> Section {
        Section::encode(name, saved::VERSION, &saved::Form::of(self))
    }

    fn restore(&mut self, name: &str, section: &Section) -> Result<(), RestoreError> {
        section.decode::<saved::Form>(name, saved::VERSION)?.put(self);
        Ok(())
    }
}
