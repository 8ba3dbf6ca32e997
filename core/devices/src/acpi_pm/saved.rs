//! Saved form, version 1.

use super::chip::AcpiPm;
use crate::saved::saved_form;

pub(super) const VERSION: u32 = 1;

saved_form!(Form of AcpiPm {
    status: u16, enable: u16, control: u16, gpe_status: u16, gpe_enable: u16, smi: [u8; 2],
    other: [u8; 32], seen_tick: u64,
} not { width });
