//! Registers of two 8237A (Intel datasheet 231466-005, pages 7 to 11) and the page registers
//! (PIIX4 §4.2.1).

use core::convert::Infallible;

use super::saved;
use crate::saved::{RestoreError, Section};
use crate::socket::{Access, Chip, Effects};

/// Offset of the second controller in the chip's space (its registers one byte apart).
pub(super) const SECOND: u32 = 0x10;
/// Offset of the page registers.
pub(super) const PAGES: u32 = 0x20;

/// One 8237A.
#[derive(Clone, Debug, Default)]
pub(crate) struct Controller {
    /// Base address and count of each channel, by turns.
    pub(super) base: [u16; 8],
    /// Current address and count.
    pub(super) current: [u16; 8],
    pub(super) mode: [u8; 4],
    pub(super) command: u8,
    pub(super) mask: u8,
    pub(super) request: u8,
    /// The high byte comes next.
    pub(super) high_next: bool,
}

impl Controller {
    fn after_reset() -> Self {
        Self { mask: 0x0F, ..Self::default() }
    }

    fn read(&mut self, register: u32) -> u8 {
        match register {
            0..8 => {
                let word = self.current.get(register as usize).copied().unwrap_or(0);
                let [low, high] = word.to_le_bytes();
                self.high_next = !self.high_next;
                if self.high_next { low } else { high }
            }
            // Status: no terminal count, and the requests in the high half.
            8 => self.request << 4,
            // The mask register (PIIX4; undefined in the original).
            15 => self.mask | 0xF0,
            // The temporary register and the rest.
            _ => 0,
        }
    }

    fn write(&mut self, register: u32, value: u8) {
        let channel_bit = 1u8 << (value & 3);
        match register {
            0..8 => {
                let at = register as usize;
                let Some(base) = self.base.get_mut(at) else { return };
                let [low, high] = base.to_le_bytes();
                let bytes = if self.high_next { [low, value] } else { [value, high] };
                *base = u16::from_le_bytes(bytes);
                if let Some(current) = self.current.get_mut(at) {
                    *current = *base;
                }
                self.high_next = !self.high_next;
            }
            8 => self.command = value,
            9 if value & 4 != 0 => self.request |= channel_bit,
            9 => self.request &= !channel_bit,
            10 if value & 4 != 0 => self.mask |= channel_bit,
            10 => self.mask &= !channel_bit,
            11 => {
                if let Some(mode) = self.mode.get_mut(usize::from(value & 3)) {
                    *mode = value;
                }
            }
            12 => self.high_next = false,
            13 => {
                *self = Self {
                    mode: self.mode,
                    base: self.base,
                    current: self.current,
                    ..Self::after_reset()
                }
            }
            14 => self.mask = 0,
            15 => self.mask = value & 0x0F,
            _ => {}
        }
    }
}

/// Both controllers and the page registers.
#[derive(Clone, Debug)]
pub struct Dma {
    pub(super) controllers: [Controller; 2],
    pub(super) pages: [u8; 16],
}

impl Default for Dma {
    fn default() -> Self {
        Self { controllers: [Controller::after_reset(), Controller::after_reset()], pages: [0; 16] }
    }
}

impl Chip for Dma {
    type Effect = Infallible;
    const NAME: &'static str = "dma";

    fn read(&mut self, access: Access, _effects: &mut Effects<Infallible>) -> u64 {
        let [first, second] = &mut self.controllers;
        u64::from(match access.offset {
            offset @ 0..SECOND => first.read(offset),
            offset @ SECOND..PAGES => second.read(offset.wrapping_sub(SECOND)),
            offset @ PAGES.. => {
                let at = offset.wrapping_sub(PAGES) as usize;
                self.pages.get(at).copied().unwrap_or(0xFF)
            }
        })
    }

    fn write(&mut self, access: Access, value: u64, _effects: &mut Effects<Infallible>) {
        let value = value as u8;
        let [first, second] = &mut self.controllers;
        match access.offset {
            offset @ 0..SECOND => first.write(offset, value),
            offset @ SECOND..PAGES => second.write(offset.wrapping_sub(SECOND), value),
            offset @ PAGES.. => {
                if let Some(page) = self.pages.get_mut(offset.wrapping_sub(PAGES) as usize) {
                    *page = value;
                }
            }
        }
    }

    fn save(&self, name: &str) -> Section {
        Section::encode(name, saved::VERSION, &saved::Form::of(self))
    }

    fn restore(&mut self, name: &str, section: &Section) -> Result<(), RestoreError> {
        section.decode::<saved::Form>(name, saved::VERSION)?.put(self);
        Ok(())
    }
}
