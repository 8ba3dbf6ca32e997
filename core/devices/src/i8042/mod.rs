//! The i8042 keyboard controller with a keyboard and a PS/2 mouse.

mod chip;
mod glue;
mod keyboard;
mod mouse;
mod saved;
pub mod spec;
#[cfg(test)]
mod tests;

pub use chip::I8042;
pub use glue::{OutputPortWires, attach};
pub use keyboard::Keyboard;
pub use mouse::{Mouse, Movement};
