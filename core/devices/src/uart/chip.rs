//! The UART as a state machine.
//!
//! Sending takes no time: a byte written is out at once, so the holding register is always empty
//! and only the interrupt that says so has state. A paced transmitter was rejected: nothing waits
//! for the pace, and each byte of a guest's console would cost a deadline.
//!
//! Receiving has back-pressure: the home asks how many bytes fit. Bytes come in at the speed at
//! which the guest takes them; an overrun happens in loopback only.
//!
//! They also wait until the guest *listens*. A driver empties the FIFOs when it opens the port, so
//! what came in before would be lost, and input from a pipe is there before the guest is. It
//! listens once its receive interrupt is on and it asserts RTS, as a line with hardware flow
//! control has it; or without RTS, once the set-up has rested for a while; or when it polls the
//! line status again and again with nothing to send.

use alloc::collections::VecDeque;

use super::saved;
use super::spec::{
    CLOCK_HZ, DATA, FIFO_LEN, Fcr, IER, IIR_FCR, Identification, Ier, LCR, LSR, Lcr, Lsr, MCR, MSR,
    Mcr, Msr, SCR,
};
use crate::saved::{RestoreError, Section};
use crate::socket::{Access, Chip, Effects};

/// Wire 0: the interrupt.
const INTR: u32 = 1;
/// So many looks at the line status without a byte sent are polling for input. Sending takes two
/// or three, as the transmitter is always empty.
const POLLS: u8 = 8;
/// A driver that interrupts without RTS listens when its set-up has rested for so long.
const SETTLE_NS: u64 = 10_000_000;

/// What a UART does beyond its wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UartEffect {
    /// A byte was sent.
    Send(u8),
    /// The guest took bytes: there is room for input again.
    Room,
}

/// The 16550A.
#[derive(Clone, Debug)]
pub struct Uart {
    pub(super) ier: u8,
    pub(super) fcr: u8,
    pub(super) lcr: u8,
    pub(super) mcr: u8,
    /// The error bits of the line status.
    pub(super) errors: u8,
    pub(super) msr: u8,
    pub(super) scratch: u8,
    pub(super) divisor: u16,
    pub(super) received: VecDeque<u8>,
    /// The holding register became empty since that was last identified or filled.
    pub(super) transmitter_pending: bool,
    pub(super) timeout_pending: bool,
    /// When the receiver's time-out comes.
    pub(super) timeout_ns: Option<u64>,
    /// Looks at the line status in a row, up to `POLLS`.
    pub(super) polls: u8,
    /// When the set-up counts as done.
    pub(super) settle_ns: Option<u64>,
    /// It is.
    pub(super) settled: bool,
}

impl Default for Uart {
    fn default() -> Self {
        Self {
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            errors: 0,
            // Somebody is connected and ready.
            msr: (Msr::CTS | Msr::DSR | Msr::DCD).bits(),
            scratch: 0,
            divisor: 12,
            received: VecDeque::new(),
            transmitter_pending: false,
            timeout_pending: false,
            timeout_ns: None,
            polls: 0,
            settle_ns: None,
            settled: false,
        }
    }
}

impl Uart {
    fn ier(&self) -> Ier {
        Ier::from_bits_retain(self.ier)
    }
    fn mcr(&self) -> Mcr {
        Mcr::from_bits_retain(self.mcr)
    }
    fn fifos_on(&self) -> bool {
        Fcr::from_bits_retain(self.fcr).contains(Fcr::ENABLE)
    }
    fn divisor_access(&self) -> bool {
        Lcr::from_bits_retain(self.lcr).contains(Lcr::DIVISOR_ACCESS)
    }
    fn capacity(&self) -> usize {
        if self.fifos_on() { FIFO_LEN } else { 1 }
    }
    fn trigger(&self) -> usize {
        match (self.fifos_on(), self.fcr >> 6) {
            (false, _) | (true, 0) => 1,
            (true, 1) => 4,
            (true, 2) => 8,
            (true, _) => 14,
        }
    }

    /// Four characters of the line's speed and format.
    fn four_characters_ns(&self) -> u64 {
        let lcr = Lcr::from_bits_retain(self.lcr);
        let bits = 1
            + 5
            + u64::from((lcr & Lcr::WORD_LENGTH).bits())
            + u64::from(lcr.contains(Lcr::PARITY))
            + 1
            + u64::from(lcr.contains(Lcr::STOP));
        4 * bits * 16 * u64::from(self.divisor.max(1)) * 1_000_000_000 / CLOCK_HZ
    }

    /// Whether the guest wants input (see the module's head).
    fn listens(&self) -> bool {
        let driven = self.ier().contains(Ier::RECEIVED);
        driven && (self.mcr().contains(Mcr::RTS) || self.settled) || self.polls >= POLLS
    }

    /// A register of the set-up was written.
    fn set_up(&mut self, now_ns: u64) {
        self.polls = 0;
        let driven = self.ier().contains(Ier::RECEIVED);
        self.settled &= driven;
        let waits = driven && !self.settled && !self.mcr().contains(Mcr::RTS);
        self.settle_ns = waits.then(|| now_ns.saturating_add(SETTLE_NS));
    }

    /// How many bytes the receiver takes now.
    #[must_use]
    pub fn room(&self) -> usize {
        // In loopback the line's input is cut off; bytes wait outside.
        if self.mcr().contains(Mcr::LOOP) || !self.listens() {
            return 0;
        }
        self.capacity().saturating_sub(self.received.len())
    }

    /// Takes bytes from the line, as many as fit: how many it took.
    pub fn receive(&mut self, bytes: &[u8], now_ns: u64) -> usize {
        let taken = bytes.len().min(self.room());
        for byte in bytes.iter().take(taken) {
            self.take_in(*byte, now_ns);
        }
        taken
    }

    fn take_in(&mut self, byte: u8, now_ns: u64) {
        if self.received.len() >= self.capacity() {
            self.errors |= Lsr::OVERRUN.bits();
            // Without FIFOs the new byte takes the old one's place; a full FIFO stays (§8.3).
            if !self.fifos_on() {
                self.received.clear();
                self.received.push_back(byte);
            }
            return;
        }
        self.received.push_back(byte);
        self.rearm_timeout(now_ns);
    }

    /// The time-out runs while the FIFO holds bytes, and starts over with each that comes or goes.
    fn rearm_timeout(&mut self, now_ns: u64) {
        self.timeout_pending = false;
        self.timeout_ns = (self.fifos_on() && !self.received.is_empty())
            .then(|| now_ns.saturating_add(self.four_characters_ns()));
    }

    fn sync(&mut self, now_ns: u64) {
        if self.timeout_ns.is_some_and(|at| at <= now_ns) {
            self.timeout_ns = None;
            self.timeout_pending = true;
        }
        if self.settle_ns.is_some_and(|at| at <= now_ns) {
            self.settle_ns = None;
            self.settled = true;
        }
    }

    /// The interrupt with the highest priority.
    fn identify(&self) -> Identification {
        let ier = self.ier();
        let received = ier.contains(Ier::RECEIVED);
        if ier.contains(Ier::LINE) && self.errors & Lsr::ERRORS.bits() != 0 {
            Identification::Line
        } else if received && self.received.len() >= self.trigger() {
            Identification::Received
        } else if received && self.timeout_pending {
            Identification::Timeout
        } else if ier.contains(Ier::TRANSMITTER) && self.transmitter_pending {
            Identification::Transmitter
        } else if ier.contains(Ier::MODEM) && self.msr & Msr::DELTAS.bits() != 0 {
            Identification::Modem
        } else {
            Identification::None
        }
    }

    fn line_status(&self) -> Lsr {
        let mut lsr = Lsr::HOLDING_EMPTY | Lsr::TRANSMITTER_EMPTY;
        lsr |= Lsr::from_bits_retain(self.errors);
        lsr.set(Lsr::DATA_READY, !self.received.is_empty());
        let in_fifo = Lsr::PARITY | Lsr::FRAMING | Lsr::BREAK;
        lsr.set(Lsr::FIFO_ERROR, self.fifos_on() && lsr.intersects(in_fifo));
        lsr
    }

    fn read_data(&mut self, now_ns: u64, effects: &mut Effects<UartEffect>) -> u8 {
        let was_full = self.received.len() >= self.capacity();
        let byte = self.received.pop_front().unwrap_or(0);
        self.rearm_timeout(now_ns);
        if was_full || self.received.is_empty() {
            effects.push(UartEffect::Room);
        }
        byte
    }

    fn send(&mut self, byte: u8, now_ns: u64, effects: &mut Effects<UartEffect>) {
        // Filling the register ends the interrupt, and at once it is empty again.
        if self.transmitter_pending && self.levels() != 0 {
            effects.pulses |= INTR;
        }
        self.transmitter_pending = true;
        if self.polls < POLLS {
            self.polls = 0;
        }
        if self.mcr().contains(Mcr::LOOP) {
            self.take_in(byte, now_ns);
        } else {
            effects.push(UartEffect::Send(byte));
        }
    }

    fn write_ier(&mut self, value: u8) {
        let was_on = self.ier().contains(Ier::TRANSMITTER);
        self.ier = value & 0x0F;
        // Enabling it with the register empty raises it at once: drivers test for that (§8.5).
        if self.ier().contains(Ier::TRANSMITTER) && !was_on {
            self.transmitter_pending = true;
        }
    }

    fn write_fcr(&mut self, value: u8) {
        let new = Fcr::from_bits_retain(value);
        let toggled = new.contains(Fcr::ENABLE) != self.fifos_on();
        if toggled || (new.contains(Fcr::ENABLE) && new.contains(Fcr::RESET_RECEIVER)) {
            self.received.clear();
            self.timeout_ns = None;
            self.timeout_pending = false;
        }
        self.fcr = if new.contains(Fcr::ENABLE) {
            (new & (Fcr::ENABLE | Fcr::DMA_MODE | Fcr::TRIGGER)).bits()
        } else {
            0
        };
    }

    /// Modem lines: in loopback they are the chip's own outputs (§8.7).
    fn update_modem(&mut self) {
        let mcr = self.mcr();
        let lines = if mcr.contains(Mcr::LOOP) {
            let mut lines = Msr::empty();
            lines.set(Msr::CTS, mcr.contains(Mcr::RTS));
            lines.set(Msr::DSR, mcr.contains(Mcr::DTR));
            lines.set(Msr::RI, mcr.contains(Mcr::OUT1));
            lines.set(Msr::DCD, mcr.contains(Mcr::OUT2));
            lines
        } else {
            Msr::CTS | Msr::DSR | Msr::DCD
        };
        let before = Msr::from_bits_retain(self.msr);
        let changed = before ^ lines;
        let mut deltas = before & Msr::DELTAS;
        for (line, delta) in
            [(Msr::CTS, Msr::DELTA_CTS), (Msr::DSR, Msr::DELTA_DSR), (Msr::DCD, Msr::DELTA_DCD)]
        {
            if changed.contains(line) {
                deltas |= delta;
            }
        }
        if before.contains(Msr::RI) && !lines.contains(Msr::RI) {
            deltas |= Msr::TRAILING_RI;
        }
        self.msr = (lines | deltas).bits();
    }

    fn write_mcr(&mut self, value: u8) {
        self.mcr = value & Mcr::WRITABLE.bits();
        self.update_modem();
    }

    fn read_line_status(&mut self) -> u8 {
        let value = self.line_status();
        self.errors = 0;
        if !value.contains(Lsr::DATA_READY) {
            self.polls = self.polls.saturating_add(1).min(POLLS);
        }
        value.bits()
    }

    /// Tells the home when there is room and was none.
    fn tell_room(&self, before: usize, effects: &mut Effects<UartEffect>) {
        let told = effects.list.contains(&UartEffect::Room);
        if before == 0 && self.room() > 0 && !told {
            effects.push(UartEffect::Room);
        }
    }
}

impl Chip for Uart {
    type Effect = UartEffect;
    const NAME: &'static str = "serial";

    fn read(&mut self, access: Access, effects: &mut Effects<UartEffect>) -> u64 {
        let room = self.room();
        self.sync(access.now_ns);
        let [divisor_low, divisor_high] = self.divisor.to_le_bytes();
        let value = match access.offset {
            DATA if self.divisor_access() => divisor_low,
            DATA => self.read_data(access.now_ns, effects),
            IER if self.divisor_access() => divisor_high,
            IER => self.ier,
            IIR_FCR => {
                let identification = self.identify();
                // Reading it as the source ends the transmitter's interrupt.
                if identification == Identification::Transmitter {
                    self.transmitter_pending = false;
                }
                identification.bits() | if self.fifos_on() { 0xC0 } else { 0 }
            }
            LCR => self.lcr,
            MCR => self.mcr,
            LSR => self.read_line_status(),
            MSR => {
                let value = self.msr;
                self.msr &= !Msr::DELTAS.bits();
                value
            }
            SCR => self.scratch,
            _ => 0xFF,
        };
        self.tell_room(room, effects);
        u64::from(value)
    }

    fn write(&mut self, access: Access, value: u64, effects: &mut Effects<UartEffect>) {
        let room = self.room();
        self.sync(access.now_ns);
        let value = value as u8;
        let [divisor_low, divisor_high] = self.divisor.to_le_bytes();
        match access.offset {
            DATA if self.divisor_access() => {
                self.divisor = u16::from_le_bytes([value, divisor_high]);
            }
            DATA => self.send(value, access.now_ns, effects),
            IER if self.divisor_access() => {
                self.divisor = u16::from_le_bytes([divisor_low, value]);
            }
            IER => self.write_ier(value),
            IIR_FCR => self.write_fcr(value),
            LCR => self.lcr = value,
            MCR => self.write_mcr(value),
            SCR => self.scratch = value,
            // The status registers are written in the factory only.
            _ => {}
        }
        if matches!(access.offset, IER | IIR_FCR | LCR | MCR) {
            self.set_up(access.now_ns);
        }
        self.tell_room(room, effects);
    }

    fn levels(&self) -> u32 {
        // OUT2 gates the interrupt on a PC's card; in loopback the output is off.
        let gate = self.mcr() & (Mcr::OUT2 | Mcr::LOOP) == Mcr::OUT2;
        if gate && self.identify() != Identification::None { INTR } else { 0 }
    }

    fn next_deadline_ns(&self) -> Option<u64> {
        let timeout = self.timeout_ns.filter(|_| self.ier().contains(Ier::RECEIVED));
        timeout.into_iter().chain(self.settle_ns).min()
    }

    fn advance(&mut self, now_ns: u64, effects: &mut Effects<UartEffect>) {
        let room = self.room();
        self.sync(now_ns);
        self.tell_room(room, effects);
    }

    fn save(&self, name: &str) -> Section {
        Section::encode(name, saved::VERSION, &saved::UartForm::of(self))
    }

    fn restore(&mut self, name: &str, section: &Section) -> Result<(), RestoreError> {
        section.decode::<saved::UartForm>(name, saved::VERSION)?.put(self);
        Ok(())
    }
}
