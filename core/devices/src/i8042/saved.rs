//! Saved form, version 1.

use alloc::collections::VecDeque;

use super::chip::{I8042, Origin};
use super::keyboard::{self, Keyboard};
use super::mouse::{self, Mouse, Reporting};
use crate::saved::saved_form;

pub(super) const VERSION: u32 = 1;

saved_form!(KeyboardForm of Keyboard {
    answers: VecDeque<u8>, keys: VecDeque<u8>, argument: Option<keyboard::Argument>,
    scanning: bool, scan_set: u8, leds: u8, rate: u8, last_sent: u8,
});

saved_form!(MouseForm of Mouse {
    answers: VecDeque<u8>, argument: Option<mouse::Argument>, reporting: Reporting,
    enabled: bool, wrap: bool, scaling: bool, resolution: u8, rate: u8, knock: u32, id: u8,
    right: i32, up: i32, wheel: i32, buttons: u8, moved: bool, last_sent: u8,
});

saved_form!(ControllerForm of I8042 {
    ram: [u8; 32], output_port: u8, buffer: u8, origin: Origin, full: bool,
    answers: VecDeque<(u8, Origin)>, pending: Option<u8>, last_was_command: bool,
    released: bool, ready_ns: u64, seen_ns: u64,
} not { keyboard, mouse });

#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Form {
    controller: ControllerForm,
    keyboard: KeyboardForm,
    mouse: MouseForm,
}

impl Form {
    pub(super) fn of(chip: &I8042) -> Self {
        Self {
            controller: ControllerForm::of(chip),
            keyboard: KeyboardForm::of(&chip.keyboard),
            mouse: MouseForm::of(&chip.mouse),
        }
    }
    pub(super) fn put(self, chip: &mut I8042) {
        let Self { controller, keyboard, mouse } = self;
        controller.put(chip);
        keyboard.put(&mut chip.keyboard);
        mouse.put(&mut chip.mouse);
    }
}
