//! The 16550A UART.

mod chip;
mod glue;
mod saved;
pub mod spec;
#[cfg(test)]
mod tests;

pub use chip::{Uart, UartEffect};
pub use glue::{SerialLine, SerialPort, attach};
