//! The end of a machine: who decides it, and who still runs.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use kasane_cpu::apic::ApicBus;
use kasane_ports::Kick;
use spin::Mutex;

/// How a machine's life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest powered off.
    PoweredOff,
    /// The guest asked for a reset.
    Reset,
    /// A processor shut down by a triple fault.
    Crashed {
        /// Which.
        vcpu: u32,
        /// Where it was.
        rip: u64,
    },
    /// The monitor ended it.
    Stopped,
    /// The engine is wrong.
    Fault(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoweredOff => f.write_str("powered off"),
            Self::Reset => f.write_str("reset"),
            Self::Crashed { vcpu, rip } => {
                write!(f, "crashed: processor {vcpu} shut down by a triple fault at {rip:#x}")
            }
            Self::Stopped => f.write_str("stopped"),
            Self::Fault(message) => write!(f, "the engine failed: {message}"),
        }
    }
}

/// Shared by a machine's tasks.
pub(crate) struct Control {
    ended: AtomicBool,
    end: Mutex<Option<End>>,
    /// Tasks that are not gone.
    alive: AtomicU32,
    apics: Arc<ApicBus>,
    timer: Arc<dyn Kick>,
    news: Arc<dyn Kick>,
}

impl Control {
    pub(crate) fn new(apics: Arc<ApicBus>, timer: Arc<dyn Kick>, news: Arc<dyn Kick>) -> Self {
        let alive = AtomicU32::new(apics.cpus().saturating_add(1));
        Self { ended: AtomicBool::new(false), end: Mutex::new(None), alive, apics, timer, news }
    }

    /// Ends the machine; the first end stands.
    pub(crate) fn end(&self, end: End) {
        self.end.lock().get_or_insert(end);
        self.ended.store(true, Ordering::Release);
        self.apics.kick_all();
        self.timer.kick();
    }

    pub(crate) fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// One of the tasks is gone.
    pub(crate) fn gone(&self) {
        self.alive.fetch_sub(1, Ordering::AcqRel);
        self.news.kick();
    }

    /// How it ended, once no task is left.
    pub(crate) fn finished(&self) -> Option<End> {
        let none_left = self.ended() && self.alive.load(Ordering::Acquire) == 0;
        none_left.then(|| self.end.lock().clone()).flatten()
    }
}
