//! The MC146818 real-time clock and its 128 bytes of CMOS memory.

mod calendar;
mod chip;
mod cmos;
mod glue;
mod saved;
pub mod spec;
#[cfg(test)]
mod tests;

pub use chip::Rtc;
pub use cmos::{CmosConfig, Extent};
pub use glue::attach;
