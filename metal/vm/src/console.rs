//! A machine's serial port, as the monitor shows it.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use kasane_metal_console::Scrollback;
use kasane_ports::Console;
use spin::Mutex;

/// What is kept of what a machine said.
const KEPT_BYTES: usize = 64 << 10;

/// Whether somebody looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// Somebody does: what is said goes there.
    Joined,
    /// Nobody does; it is kept.
    Left,
}

/// The console of a machine.
pub struct VmConsole {
    kept: Mutex<Scrollback>,
    joined: AtomicBool,
    screen: Arc<dyn Console>,
}

impl VmConsole {
    pub(crate) fn new(screen: Arc<dyn Console>) -> Self {
        let kept = Mutex::new(Scrollback::new(KEPT_BYTES));
        Self { kept, joined: AtomicBool::new(false), screen }
    }

    /// Joins or leaves; who joins gets what was said so far.
    pub fn set_screen(&self, screen: Screen) {
        let kept = self.kept.lock();
        let joined = screen == Screen::Joined;
        if !self.joined.swap(joined, Ordering::AcqRel) && joined {
            self.screen.output(&kept.text());
        }
    }

    /// All that is kept.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        self.kept.lock().text()
    }
}

impl Console for VmConsole {
    fn output(&self, bytes: &[u8]) {
        let mut kept = self.kept.lock();
        kept.push(bytes);
        if self.joined.load(Ordering::Acquire) {
            self.screen.output(bytes);
        }
    }
}
