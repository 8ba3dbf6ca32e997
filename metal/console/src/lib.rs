//! The console of the hypervisor itself: the serial port's driver, what was said ([`Scrollback`]),
//! the line that is being typed, and the monitor's commands.
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod command;
mod line;
mod scrollback;
mod uart;

pub use command::{COMMANDS, Command, CommandError, parse};
pub use line::{LineEditor, Typed};
pub use scrollback::Scrollback;
pub use uart::{Registers, Uart};
