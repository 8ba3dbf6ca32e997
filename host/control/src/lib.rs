//! The person's side of a running machine: the terminal in raw mode and back
//! ([`RawTerminal`]), where a serial port's bytes go ([`QueuedConsole`]), the keys that leave
//! ([`LeaveKey`]), the signals that end the program ([`termination`]), and the loss of the terminal
//! ([`await_typing`], [`when_terminal_goes`]).

mod console;
mod hangup;
mod keys;
mod signals;
mod terminal;

pub use console::QueuedConsole;
pub use hangup::{Typing, await_typing, when_terminal_goes};
pub use keys::{LeaveKey, Typed};
pub use signals::{TerminationSignal, die_of, survive_file_size_limit, termination};
pub use terminal::{RawTerminal, restore, restore_on_panic, stdin_is_terminal};
