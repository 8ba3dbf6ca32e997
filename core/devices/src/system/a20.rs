//! The A20 gate: open when any of its sources opens it, as in the chipset (PIIX4 §4.2.7: the
//! i8042's output and port 0x92 are OR-ed).

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use kasane_ports::{A20Line, IrqLine, Level};

/// The gate.
pub struct A20Gate {
    sources: AtomicU32,
    line: Arc<dyn A20Line>,
}

impl A20Gate {
    /// A gate that drives `line`.
    #[must_use]
    pub fn new(line: Arc<dyn A20Line>) -> Arc<Self> {
        Arc::new(Self { sources: AtomicU32::new(0), line })
    }

    /// The wire of source number `source`, 0 to 31.
    #[must_use]
    pub fn wire(self: &Arc<Self>, source: u32) -> Arc<dyn IrqLine> {
        Arc::new(Source { gate: self.clone(), mask: 1 << (source & 31) })
    }

    /// Whether the gate is open.
    #[must_use]
    pub fn level(&self) -> Level {
        Level::from_asserted(self.sources.load(Ordering::SeqCst) != 0)
    }
}

struct Source {
    gate: Arc<A20Gate>,
    mask: u32,
}

impl IrqLine for Source {
    fn set(&self, level: Level) {
        let sources = &self.gate.sources;
        let before = match level {
            Level::High => sources.fetch_or(self.mask, Ordering::SeqCst),
            Level::Low => sources.fetch_and(!self.mask, Ordering::SeqCst),
        };
        let after = if level.is_high() { before | self.mask } else { before & !self.mask };
        if (before == 0) == (after == 0) {
            return;
        }
        // Two sources may change at once: whoever is last tells what is then true.
        loop {
            let level = self.gate.level();
            self.gate.line.set(level);
            if self.gate.level() == level {
                break;
            }
        }
    }
}
