//! Raw mode and back.

use std::io::{self, IsTerminal};
use std::sync::Once;

use crossterm::terminal::{disable_raw_mode, enable_raw_mode};

/// Whether a person types into standard input.
#[must_use]
pub fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// The terminal of standard input in raw mode: every key goes to the guest, `Ctrl-C` too.
/// Dropping it gives the terminal back as it was.
#[derive(Debug)]
pub struct RawTerminal(());

impl RawTerminal {
    /// Enters raw mode; from now on a panic on any thread restores the terminal first.
    ///
    /// # Errors
    /// The host's reason why the terminal can't be changed.
    pub fn enter() -> io::Result<Self> {
        restore_on_panic();
        enable_raw_mode()?;
        Ok(Self(()))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back. Does nothing when it is as it was.
pub fn restore() {
    // A terminal that went away can't be restored and needn't be.
    let _gone = disable_raw_mode();
}

/// Makes every panic restore the terminal before its message is printed.
pub fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            before(info);
        }));
    });
}
