//! Saved form, version 1.

use super::channel::{Channel, NextCount};
use super::chip::Pit;
use super::spec::{Bytes, Mode, Radix};
use crate::saved::saved_form;

pub(super) const VERSION: u32 = 1;

saved_form!(ChannelForm of Channel {
    mode: Mode, radix: Radix, bytes: Bytes, gate: bool, register: u16, running: u16,
    loaded_at: Option<u64>, frozen: Option<u64>, next: Option<NextCount>,
    low_written: Option<u8>, read_high: bool, latched_count: Option<u16>,
    latched_status: Option<u8>,
});

#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct PitForm {
    channels: [ChannelForm; 3],
    control_b: u8,
    seen_tick: u64,
}

impl PitForm {
    pub(super) fn of(pit: &Pit) -> Self {
        let Pit { channels, control_b, seen_tick } = pit;
        let channels = channels.each_ref().map(ChannelForm::of);
        Self { channels, control_b: *control_b, seen_tick: *seen_tick }
    }
    pub(super) fn put(self, pit: &mut Pit) {
        let Self { channels, control_b, seen_tick } = self;
        for (form, channel) in channels.into_iter().zip(&mut pit.channels) {
            form.put(channel);
        }
        pit.control_b = control_b;
        pit.seen_tick = seen_tick;
    }
}
