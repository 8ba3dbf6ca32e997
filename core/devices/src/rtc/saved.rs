//! Saved form, version 2.

use alloc::vec::Vec;

use super::chip::Rtc;

pub(super) const VERSION: u32 = 2;

#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct RtcForm {
    index: u8,
    bytes: Vec<u8>,
    offset_s: i64,
    phase_ns: u64,
    wall_ahead_ns: i64,
    weekday_ahead: u8,
    seen_ns: u64,
}

impl RtcForm {
    pub(super) fn of(rtc: &Rtc) -> Self {
        let Rtc { index, bytes, offset_s, phase_ns, wall_ahead_ns, weekday_ahead, seen_ns } = rtc;
        Self {
            index: *index,
            bytes: bytes.to_vec(),
            offset_s: *offset_s,
            phase_ns: *phase_ns,
            wall_ahead_ns: *wall_ahead_ns,
            weekday_ahead: *weekday_ahead,
            seen_ns: *seen_ns,
        }
    }
    pub(super) fn put(self, rtc: &mut Rtc) -> Result<(), ()> {
        let Self { index, bytes, offset_s, phase_ns, wall_ahead_ns, weekday_ahead, seen_ns } = self;
        rtc.bytes = bytes.try_into().map_err(|_| ())?;
        rtc.index = index & 0x7F;
        rtc.offset_s = offset_s;
        rtc.phase_ns = phase_ns % 1_000_000_000;
        rtc.wall_ahead_ns = wall_ahead_ns;
        rtc.weekday_ahead = weekday_ahead % 7;
        rtc.seen_ns = seen_ns;
        Ok(())
    }
}
