//! Saved form, version 2: since then a guest must listen to get input.

use alloc::collections::VecDeque;

use super::chip::Uart;
use crate::saved::saved_form;

pub(super) const VERSION: u32 = 2;

saved_form!(UartForm of Uart {
    ier: u8, fcr: u8, lcr: u8, mcr: u8, errors: u8, msr: u8, scratch: u8, divisor: u16,
    received: VecDeque<u8>, transmitter_pending: bool, timeout_pending: bool,
    timeout_ns: Option<u64>, polls: u8, settle_ns: Option<u64>, settled: bool,
});
