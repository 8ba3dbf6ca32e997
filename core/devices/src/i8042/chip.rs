//! The controller between the devices' wires and the ports.

use alloc::collections::VecDeque;

use super::keyboard::Keyboard;
use super::mouse::Mouse;
use super::saved;
use super::spec::{BYTE_NS, CommandByte, OutputPort, RELEASE, Status, command, translate};
use crate::saved::{RestoreError, Section};
use crate::socket::{Access, Chip, Effects};
use crate::system::{ResetKind, SystemRequest};

/// Offset of the data port.
const DATA: u32 = 0;
/// Offset of the status and command port.
const COMMAND: u32 = 1;

/// Wire 0: IRQ 1.
const IRQ_KEYBOARD: u32 = 1 << 0;
/// Wire 1: IRQ 12.
const IRQ_AUX: u32 = 1 << 1;
/// Wire 2: A20.
const A20: u32 = 1 << 2;

/// Answers that wait at most.
const ANSWERS: usize = 16;

/// Where a byte comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Origin {
    /// The keyboard or the controller itself.
    Keyboard,
    /// The auxiliary port.
    Aux,
}

/// The controller with its two devices.
#[derive(Clone, Debug)]
pub struct I8042 {
    /// The keyboard.
    pub keyboard: Keyboard,
    /// The mouse.
    pub mouse: Mouse,
    pub(super) ram: [u8; 32],
    pub(super) output_port: u8,
    /// The output buffer; the byte stays readable after it was taken.
    pub(super) buffer: u8,
    pub(super) origin: Origin,
    pub(super) full: bool,
    /// The controller's own answers.
    pub(super) answers: VecDeque<(u8, Origin)>,
    /// The command whose argument comes at the data port.
    pub(super) pending: Option<u8>,
    pub(super) last_was_command: bool,
    /// A translated key release: the mark is gone, its code comes.
    pub(super) released: bool,
    /// No device byte before this time.
    pub(super) ready_ns: u64,
    /// The latest time seen.
    pub(super) seen_ns: u64,
}

impl Default for I8042 {
    fn default() -> Self {
        let mut ram = [0; 32];
        if let Some(byte) = ram.first_mut() {
            // As firmware leaves it: both ports on, IRQ 1 on, translation.
            *byte = (CommandByte::KEYBOARD_INTERRUPT
                | CommandByte::AUX_INTERRUPT
                | CommandByte::SYSTEM
                | CommandByte::TRANSLATE)
                .bits();
        }
        Self {
            keyboard: Keyboard::default(),
            mouse: Mouse::default(),
            ram,
            output_port: (OutputPort::NO_RESET | OutputPort::A20).bits() | 0xCC,
            buffer: 0,
            origin: Origin::Keyboard,
            full: false,
            answers: VecDeque::new(),
            pending: None,
            last_was_command: false,
            released: false,
            ready_ns: 0,
            seen_ns: 0,
        }
    }
}

impl I8042 {
    fn command_byte(&self) -> CommandByte {
        CommandByte::from_bits_retain(self.ram.first().copied().unwrap_or(0))
    }

    fn set_command_byte(&mut self, value: CommandByte) {
        if let Some(byte) = self.ram.first_mut() {
            *byte = value.bits();
        }
    }

    fn switch(&mut self, off: CommandByte, on: CommandByte) {
        let value = (self.command_byte() - off) | on;
        self.set_command_byte(value);
    }

    fn answer(&mut self, byte: u8, origin: Origin) {
        if self.answers.len() < ANSWERS {
            self.answers.push_back((byte, origin));
        }
    }

    /// Presses or releases a key: its whole code in scan code set 2.
    pub fn key(&mut self, code: &[u8], now_ns: u64) -> bool {
        let taken = self.keyboard.key(code);
        self.sync(now_ns);
        taken
    }

    /// Moves the mouse.
    pub fn move_mouse(&mut self, movement: super::Movement, now_ns: u64) {
        self.mouse.move_by(movement);
        self.sync(now_ns);
    }

    fn sync(&mut self, now_ns: u64) {
        self.seen_ns = self.seen_ns.max(now_ns);
        self.fill();
    }

    /// Whether a device has a byte and may send it.
    fn device_waits(&self) -> bool {
        let byte = self.command_byte();
        (!byte.contains(CommandByte::KEYBOARD_OFF) && self.keyboard.has_bytes())
            || (!byte.contains(CommandByte::AUX_OFF) && self.mouse.has_bytes())
    }

    /// Moves the next byte into the output buffer, if it is empty.
    fn fill(&mut self) {
        if self.full {
            return;
        }
        if let Some((byte, origin)) = self.answers.pop_front() {
            (self.buffer, self.origin, self.full) = (byte, origin, true);
            return;
        }
        if self.seen_ns < self.ready_ns {
            return;
        }
        let flags = self.command_byte();
        if !flags.contains(CommandByte::KEYBOARD_OFF) {
            while let Some(byte) = self.keyboard.send() {
                let Some(byte) = self.translated(byte, flags) else { continue };
                (self.buffer, self.origin, self.full) = (byte, Origin::Keyboard, true);
                return;
            }
        }
        if !flags.contains(CommandByte::AUX_OFF)
            && let Some(byte) = self.mouse.send()
        {
            (self.buffer, self.origin, self.full) = (byte, Origin::Aux, true);
        }
    }

    fn translated(&mut self, byte: u8, flags: CommandByte) -> Option<u8> {
        if !flags.contains(CommandByte::TRANSLATE) {
            return Some(byte);
        }
        if byte == RELEASE {
            self.released = true;
            return None;
        }
        let mark = if core::mem::take(&mut self.released) { 0x80 } else { 0 };
        Some(translate(byte) | mark)
    }

    fn status(&self) -> Status {
        let mut status = Status::UNLOCKED;
        status.set(Status::OUTPUT_FULL, self.full);
        status.set(Status::AUX, self.full && self.origin == Origin::Aux);
        status.set(Status::SYSTEM, self.command_byte().contains(CommandByte::SYSTEM));
        status.set(Status::COMMAND, self.last_was_command);
        status
    }

    fn read_output_port(&self) -> u8 {
        let mut value = OutputPort::from_bits_retain(self.output_port);
        let levels = self.levels();
        value.set(OutputPort::KEYBOARD_FULL, levels & IRQ_KEYBOARD != 0);
        value.set(OutputPort::AUX_FULL, levels & IRQ_AUX != 0);
        value.bits()
    }

    fn write_output_port(&mut self, value: u8, effects: &mut Effects<SystemRequest>) {
        if !OutputPort::from_bits_retain(value).contains(OutputPort::NO_RESET) {
            effects.push(SystemRequest::Reset(ResetKind::Processor));
        }
        self.output_port = value | OutputPort::NO_RESET.bits();
    }

    fn write_command(&mut self, value: u8, effects: &mut Effects<SystemRequest>) {
        self.last_was_command = true;
        self.pending = None;
        let none = CommandByte::empty();
        match value {
            command::READ_RAM..=0x3F => {
                let at = usize::from(value & 0x1F);
                let byte = self.ram.get(at).copied().unwrap_or(0);
                self.answer(byte, Origin::Keyboard);
            }
            command::WRITE_RAM..=0x7F
            | command::WRITE_OUTPUT_PORT
            | command::ECHO_KEYBOARD
            | command::ECHO_AUX
            | command::WRITE_AUX => self.pending = Some(value),
            // No password.
            command::TEST_PASSWORD => self.answer(0xF1, Origin::Keyboard),
            command::AUX_OFF => self.switch(none, CommandByte::AUX_OFF),
            command::AUX_ON => self.switch(CommandByte::AUX_OFF, none),
            command::AUX_TEST | command::KEYBOARD_TEST => self.answer(0, Origin::Keyboard),
            command::SELF_TEST => {
                self.switch(none, CommandByte::SYSTEM);
                self.answers.clear();
                self.full = false;
                self.answer(0x55, Origin::Keyboard);
            }
            command::KEYBOARD_OFF => self.switch(none, CommandByte::KEYBOARD_OFF),
            command::KEYBOARD_ON => self.switch(CommandByte::KEYBOARD_OFF, none),
            // Keyboard not locked, colour display.
            command::READ_INPUT_PORT => self.answer(0x80, Origin::Keyboard),
            command::READ_OUTPUT_PORT => {
                let byte = self.read_output_port();
                self.answer(byte, Origin::Keyboard);
            }
            command::A20_LOW => self.output_port &= !OutputPort::A20.bits(),
            command::A20_HIGH => self.output_port |= OutputPort::A20.bits(),
            command::READ_TEST_INPUTS => self.answer(0, Origin::Keyboard),
            command::PULSE.. if value & OutputPort::NO_RESET.bits() == 0 => {
                effects.push(SystemRequest::Reset(ResetKind::Processor));
            }
            // The other lines that can be pulsed aren't connected; the rest are no commands.
            _ => {}
        }
    }

    fn write_data(&mut self, value: u8, effects: &mut Effects<SystemRequest>) {
        self.last_was_command = false;
        match self.pending.take() {
            Some(at @ command::WRITE_RAM..=0x7F) => {
                if let Some(byte) = self.ram.get_mut(usize::from(at & 0x1F)) {
                    *byte = value;
                }
            }
            Some(command::WRITE_OUTPUT_PORT) => self.write_output_port(value, effects),
            Some(command::ECHO_KEYBOARD) => self.answer(value, Origin::Keyboard),
            Some(command::ECHO_AUX) => self.answer(value, Origin::Aux),
            Some(command::WRITE_AUX) => {
                // Sending to a port switches it on.
                self.switch(CommandByte::AUX_OFF, CommandByte::empty());
                self.mouse.receive(value);
            }
            Some(_) | None => {
                self.switch(CommandByte::KEYBOARD_OFF, CommandByte::empty());
                self.keyboard.receive(value);
            }
        }
    }

    /// Calls `change`, fills the buffer, and pulses the interrupt of a byte that took another's
    /// place at once.
    fn change(
        &mut self,
        effects: &mut Effects<SystemRequest>,
        change: impl FnOnce(&mut Self, &mut Effects<SystemRequest>),
    ) {
        let before = self.levels();
        change(self, effects);
        let refilled = !self.full;
        self.fill();
        if refilled && self.full {
            effects.pulses |= before & self.levels() & (IRQ_KEYBOARD | IRQ_AUX);
        }
    }
}

impl Chip for I8042 {
    type Effect = SystemRequest;
    const NAME: &'static str = "i8042";

    fn read(&mut self, access: Access, effects: &mut Effects<SystemRequest>) -> u64 {
        self.sync(access.now_ns);
        let value = match access.offset {
            DATA => {
                let byte = self.buffer;
                if self.full {
                    self.ready_ns = self.seen_ns.saturating_add(BYTE_NS);
                    self.change(effects, |chip, _| chip.full = false);
                }
                byte
            }
            COMMAND => self.status().bits(),
            _ => 0xFF,
        };
        u64::from(value)
    }

    fn write(&mut self, access: Access, value: u64, effects: &mut Effects<SystemRequest>) {
        self.sync(access.now_ns);
        let value = value as u8;
        match access.offset {
            DATA => self.change(effects, |chip, effects| chip.write_data(value, effects)),
            COMMAND => self.change(effects, |chip, effects| chip.write_command(value, effects)),
            _ => {}
        }
    }

    fn levels(&self) -> u32 {
        let flags = self.command_byte();
        let mut levels = 0;
        if OutputPort::from_bits_retain(self.output_port).contains(OutputPort::A20) {
            levels |= A20;
        }
        if self.full {
            levels |= match self.origin {
                Origin::Keyboard if flags.contains(CommandByte::KEYBOARD_INTERRUPT) => IRQ_KEYBOARD,
                Origin::Aux if flags.contains(CommandByte::AUX_INTERRUPT) => IRQ_AUX,
                Origin::Keyboard | Origin::Aux => 0,
            };
        }
        levels
    }

    fn next_deadline_ns(&self) -> Option<u64> {
        (!self.full && self.device_waits()).then_some(self.ready_ns)
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
