//! The keyboard: 101 keys, scan code sets 1 and 2.

use alloc::collections::VecDeque;

use super::spec::{RELEASE, answer, translate};

/// Bytes of keys that wait; a real keyboard holds 16.
const KEYS: usize = 16;
/// Bytes of answers that wait at most: a guest that never reads can't grow the queue.
const ANSWERS: usize = 64;

/// A command's argument that the keyboard waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Argument {
    /// LEDs.
    Leds,
    /// Typematic rate.
    Rate,
    /// Scan code set.
    ScanSet,
}

/// The keyboard.
#[derive(Clone, Debug)]
pub struct Keyboard {
    pub(super) answers: VecDeque<u8>,
    pub(super) keys: VecDeque<u8>,
    pub(super) argument: Option<Argument>,
    pub(super) scanning: bool,
    pub(super) scan_set: u8,
    pub(super) leds: u8,
    pub(super) rate: u8,
    pub(super) last_sent: u8,
}

impl Default for Keyboard {
    fn default() -> Self {
        Self {
            answers: VecDeque::new(),
            keys: VecDeque::new(),
            argument: None,
            scanning: true,
            scan_set: 2,
            leds: 0,
            rate: 0x2B,
            last_sent: answer::TEST_PASSED,
        }
    }
}

impl Keyboard {
    /// The LEDs: scroll, num, caps lock in bits 0 to 2.
    #[must_use]
    pub const fn leds(&self) -> u8 {
        self.leds
    }

    /// Presses or releases a key: its whole code in scan code set 2 (0xE0 and 0xF0 marks and all).
    /// All of it or nothing is taken; with no room left the keyboard says so to the guest.
    pub fn key(&mut self, code: &[u8]) -> bool {
        if !self.scanning {
            return false;
        }
        if self.keys.len().saturating_add(code.len()) > KEYS {
            if self.keys.len() < KEYS {
                // Overrun: 0xFF in set 1, 0 in set 2.
                self.keys.push_back(if self.scan_set == 1 { 0xFF } else { 0 });
            }
            return false;
        }
        let mut released = 0;
        for byte in code {
            match (self.scan_set, *byte) {
                (1, RELEASE) => released = 0x80,
                (1, byte) => self.keys.push_back(translate(byte) | released),
                (_, byte) => self.keys.push_back(byte),
            }
        }
        true
    }

    /// The next byte on the wire.
    pub(super) fn send(&mut self) -> Option<u8> {
        let byte = self.answers.pop_front().or_else(|| self.keys.pop_front())?;
        self.last_sent = byte;
        Some(byte)
    }

    pub(super) fn has_bytes(&self) -> bool {
        !self.answers.is_empty() || !self.keys.is_empty()
    }

    fn answer(&mut self, bytes: &[u8]) {
        if self.answers.len() < ANSWERS {
            self.answers.extend(bytes);
        }
    }

    fn defaults(&mut self) {
        self.keys.clear();
        self.scan_set = 2;
        self.rate = 0x2B;
    }

    /// A byte from the controller.
    pub(super) fn receive(&mut self, byte: u8) {
        // A command byte in place of an argument starts a new command.
        if let Some(argument) = self.argument.take()
            && byte < 0x80
        {
            return self.receive_argument(argument, byte);
        }
        match byte {
            0xED => self.wait_for(Argument::Leds),
            0xEE => self.answer(&[0xEE]),
            0xF0 => self.wait_for(Argument::ScanSet),
            0xF2 => self.answer(&[answer::ACK, 0xAB, 0x83]),
            0xF3 => self.wait_for(Argument::Rate),
            0xF4 => {
                self.keys.clear();
                self.scanning = true;
                self.answer(&[answer::ACK]);
            }
            0xF5 | 0xF6 => {
                self.defaults();
                self.scanning = byte == 0xF6;
                self.answer(&[answer::ACK]);
            }
            // What the keys do is changed in set 3 only.
            0xF7..=0xFA => self.answer(&[answer::ACK]),
            0xFE => self.answer(&[self.last_sent]),
            0xFF => {
                self.defaults();
                self.scanning = true;
                self.leds = 0;
                self.answers.clear();
                self.answer(&[answer::ACK, answer::TEST_PASSED]);
            }
            _ => self.answer(&[answer::RESEND]),
        }
    }

    fn wait_for(&mut self, argument: Argument) {
        self.argument = Some(argument);
        self.answer(&[answer::ACK]);
    }

    fn receive_argument(&mut self, argument: Argument, byte: u8) {
        match (argument, byte) {
            (Argument::Leds, _) => {
                self.leds = byte & 7;
                self.answer(&[answer::ACK]);
            }
            (Argument::Rate, _) => {
                self.rate = byte;
                self.answer(&[answer::ACK]);
            }
            (Argument::ScanSet, 0) => self.answer(&[answer::ACK, self.scan_set]),
            (Argument::ScanSet, 1 | 2) => {
                self.keys.clear();
                self.scan_set = byte;
                self.answer(&[answer::ACK]);
            }
            // Set 3 isn't there.
            (Argument::ScanSet, _) => self.answer(&[answer::RESEND]),
        }
    }
}
