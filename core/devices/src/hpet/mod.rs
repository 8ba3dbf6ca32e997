//! The high precision event timer: a 64-bit counter of 10 ns ticks and three comparators.

mod chip;
mod glue;
mod saved;
pub mod spec;
#[cfg(test)]
mod tests;
mod timer;

pub use chip::{Delivery, Hpet, HpetEffect};
pub use glue::{Outputs, attach};
