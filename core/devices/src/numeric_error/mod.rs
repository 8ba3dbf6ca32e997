//! What a PC does with the processor's FERR# pin: IRQ 13 and IGNNE# (PIIX4 datasheet §4.2.10,
//! "coprocessor error"; AT Technical Reference, "Math Coprocessor Control").

mod chip;
mod glue;
#[cfg(test)]
mod tests;

pub use chip::NumericError;
pub use glue::attach;
