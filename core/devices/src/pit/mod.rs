//! The 8254 interval timer, with the system control port B (0x61) that gates its channel 2.

mod channel;
mod chip;
mod glue;
mod saved;
pub mod spec;
#[cfg(test)]
mod tests;

pub use chip::Pit;
pub use glue::attach;
