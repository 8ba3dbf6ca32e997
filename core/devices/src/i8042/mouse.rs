//! The mouse: three buttons, and a wheel and five buttons for those who ask in the way of the
//! IntelliMouse (sample rates 200, 100, 80; then 200, 200, 80).

use alloc::collections::VecDeque;

use super::spec::answer;

/// Bytes that wait at most.
const ANSWERS: usize = 64;
/// Movement packets wait as movement, not as bytes: at most one is on its way.
const COUNTER_MAX: i32 = 255;

/// A command's argument that the mouse waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Argument {
    /// Resolution.
    Resolution,
    /// Sample rate.
    Rate,
}

/// When the mouse reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Reporting {
    /// When it moves.
    Stream,
    /// When asked.
    Remote,
}

/// A movement since the last one, and the buttons now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Movement {
    /// To the right.
    pub right: i32,
    /// Up.
    pub up: i32,
    /// The wheel, towards the user.
    pub wheel: i32,
    /// Left, right, middle, fourth, fifth button in bits 0 to 4.
    pub buttons: u8,
}

/// The mouse.
#[derive(Clone, Debug)]
pub struct Mouse {
    pub(super) answers: VecDeque<u8>,
    pub(super) argument: Option<Argument>,
    pub(super) reporting: Reporting,
    pub(super) enabled: bool,
    pub(super) wrap: bool,
    pub(super) scaling: bool,
    pub(super) resolution: u8,
    pub(super) rate: u8,
    /// The last three sample rates, the newest in the low byte.
    pub(super) knock: u32,
    pub(super) id: u8,
    pub(super) right: i32,
    pub(super) up: i32,
    pub(super) wheel: i32,
    pub(super) buttons: u8,
    /// Something to report that wasn't.
    pub(super) moved: bool,
    pub(super) last_sent: u8,
}

impl Default for Mouse {
    fn default() -> Self {
        Self {
            answers: VecDeque::new(),
            argument: None,
            reporting: Reporting::Stream,
            enabled: false,
            wrap: false,
            scaling: false,
            resolution: 2,
            rate: 100,
            knock: 0,
            id: 0,
            right: 0,
            up: 0,
            wheel: 0,
            buttons: 0,
            moved: false,
            last_sent: 0,
        }
    }
}

impl Mouse {
    /// Moves the mouse.
    pub fn move_by(&mut self, movement: Movement) {
        if !self.enabled && self.reporting == Reporting::Stream {
            self.buttons = movement.buttons & 0x1F;
            return;
        }
        self.right = self.right.saturating_add(movement.right);
        self.up = self.up.saturating_add(movement.up);
        self.wheel = self.wheel.saturating_add(movement.wheel);
        self.buttons = movement.buttons & 0x1F;
        self.moved = true;
    }

    fn streams(&self) -> bool {
        self.moved && self.enabled && self.reporting == Reporting::Stream
    }

    pub(super) fn has_bytes(&self) -> bool {
        !self.answers.is_empty() || self.streams()
    }

    /// The next byte on the wire.
    pub(super) fn send(&mut self) -> Option<u8> {
        if self.answers.is_empty() && self.streams() {
            self.packet();
        }
        let byte = self.answers.pop_front()?;
        self.last_sent = byte;
        Some(byte)
    }

    /// Queues one report; what doesn't fit into it stays for the next.
    fn packet(&mut self) {
        let right = self.right.clamp(-COUNTER_MAX, COUNTER_MAX);
        let up = self.up.clamp(-COUNTER_MAX, COUNTER_MAX);
        self.right = self.right.saturating_sub(right);
        self.up = self.up.saturating_sub(up);
        let signs = u8::from(right < 0) << 4 | u8::from(up < 0) << 5;
        self.answer(&[8 | self.buttons & 7 | signs, right as u8, up as u8]);
        let wheel = self.wheel.clamp(-8, 7);
        match self.id {
            3 => self.answer(&[wheel as u8]),
            4 => self.answer(&[wheel as u8 & 15 | (self.buttons & 0x18) << 1]),
            _ => {}
        }
        self.wheel = if self.id == 0 { 0 } else { self.wheel.saturating_sub(wheel) };
        self.moved = self.right != 0 || self.up != 0 || self.wheel != 0;
    }

    fn answer(&mut self, bytes: &[u8]) {
        if self.answers.len() < ANSWERS {
            self.answers.extend(bytes);
        }
    }

    fn forget_movement(&mut self) {
        (self.right, self.up, self.wheel, self.moved) = (0, 0, 0, false);
    }

    fn defaults(&mut self) {
        self.reporting = Reporting::Stream;
        self.enabled = false;
        self.scaling = false;
        self.resolution = 2;
        self.rate = 100;
        self.forget_movement();
    }

    /// A byte from the controller.
    pub(super) fn receive(&mut self, byte: u8) {
        if self.wrap && !matches!(byte, 0xEC | 0xFF) {
            return self.answer(&[byte]);
        }
        if let Some(argument) = self.argument.take() {
            return self.receive_argument(argument, byte);
        }
        match byte {
            0xE6 | 0xE7 => {
                self.scaling = byte == 0xE7;
                self.answer(&[answer::ACK]);
            }
            0xE8 => self.wait_for(Argument::Resolution),
            0xE9 => self.status(),
            0xEA | 0xF0 => {
                self.reporting = if byte == 0xEA { Reporting::Stream } else { Reporting::Remote };
                self.forget_movement();
                self.answer(&[answer::ACK]);
            }
            0xEB => {
                self.answer(&[answer::ACK]);
                self.packet();
            }
            0xEC | 0xEE => {
                self.wrap = byte == 0xEE;
                self.answer(&[answer::ACK]);
            }
            0xF2 => self.answer(&[answer::ACK, self.id]),
            0xF3 => self.wait_for(Argument::Rate),
            0xF4 | 0xF5 => {
                self.enabled = byte == 0xF4;
                self.forget_movement();
                self.answer(&[answer::ACK]);
            }
            0xF6 => {
                self.defaults();
                self.answer(&[answer::ACK]);
            }
            0xFE => self.answer(&[self.last_sent]),
            0xFF => {
                self.defaults();
                self.wrap = false;
                self.id = 0;
                self.knock = 0;
                self.answers.clear();
                self.answer(&[answer::ACK, answer::TEST_PASSED, 0]);
            }
            _ => self.answer(&[answer::RESEND]),
        }
    }

    fn status(&mut self) {
        let swapped = (self.buttons & 1) << 2 | (self.buttons & 2) >> 1 | (self.buttons & 4) >> 1;
        // Left is bit 2, middle bit 1, right bit 0.
        let status = u8::from(self.reporting == Reporting::Remote) << 6
            | u8::from(self.enabled) << 5
            | u8::from(self.scaling) << 4
            | swapped;
        self.answer(&[answer::ACK, status, self.resolution, self.rate]);
    }

    fn wait_for(&mut self, argument: Argument) {
        self.argument = Some(argument);
        self.answer(&[answer::ACK]);
    }

    fn receive_argument(&mut self, argument: Argument, byte: u8) {
        match argument {
            Argument::Resolution => self.resolution = byte & 3,
            Argument::Rate => {
                self.rate = byte;
                self.knock = (self.knock << 8 | u32::from(byte)) & 0xFF_FFFF;
                self.id = match self.knock {
                    0xC8_6450 => 3,
                    0xC8_C850 if self.id == 3 => 4,
                    _ => self.id,
                };
            }
        }
        self.answer(&[answer::ACK]);
    }
}
