//! The pair of 8237A DMA controllers with their page registers.
//!
//! Nothing on the board does ISA DMA yet, so this is their register file: what software writes
//! reads back as the chip has it, and no transfer ever happens. Port 0x80, where firmware shows
//! its POST codes and Linux waits, is one of the page registers.

mod chip;
mod glue;
mod saved;
#[cfg(test)]
mod tests;

pub use chip::Dma;
pub use glue::attach;
