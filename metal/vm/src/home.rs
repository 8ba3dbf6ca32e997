//! What the bare machine lends to virtual ones.

use alloc::boxed::Box;
use alloc::sync::Arc;

use kasane_cpu::cpuid::FeatureSet;
use kasane_interp::MakeAccelerator;
use kasane_memory::RamBacking;
use kasane_metal_memory::NoMemory;
use kasane_metal_sched::Spawner;
use kasane_passthrough::CodeRunner;
use kasane_ports::{Clock, Entropy, HeavyBarrier, Kick};

/// Makes guest RAM of so many bytes.
pub type MakeRam = fn(u64) -> Result<Box<dyn RamBacking>, NoMemory>;

/// What makes guest instructions run.
#[derive(Clone)]
pub enum Engine {
    /// The interpreter alone.
    Interp,
    /// The interpreter for what exits, something of the processor's for the rest.
    Assisted {
        /// The definition's word for it.
        name: &'static str,
        /// Makes it for the vCPUs of a machine with this memory.
        accelerators: fn(&Arc<kasane_memory::Ram>) -> MakeAccelerator,
        /// What of a processor it can't give here.
        hidden: FeatureSet,
    },
}

impl Engine {
    /// What of a processor it can't give here.
    #[must_use]
    pub const fn hidden(&self) -> FeatureSet {
        match self {
            Self::Interp => FeatureSet::EMPTY,
            Self::Assisted { hidden, .. } => *hidden,
        }
    }
    /// The word for it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Interp => "interp",
            Self::Assisted { name, .. } => name,
        }
    }
}

/// What the bare machine lends.
#[derive(Clone)]
pub struct Home {
    /// Where tasks go.
    pub spawner: Arc<dyn Spawner>,
    /// The scheduler's time in nanoseconds.
    pub now_ns: fn() -> u64,
    /// A clock that begins at 0 now and goes as fast as the scheduler's time.
    pub clock: fn() -> Arc<dyn Clock>,
    /// Ticks of guests' time-stamp counters in a second.
    pub tsc_hz: u64,
    /// Random bytes.
    pub entropy: Arc<dyn Entropy>,
    /// The barrier over all processors.
    pub barrier: Arc<dyn HeavyBarrier>,
    /// Guests' RAM.
    pub ram: MakeRam,
    /// Runs vector instructions, and says what the processor has.
    pub runner: Arc<dyn CodeRunner>,
    /// The best engine that works.
    pub best: Engine,
    /// Told when a machine has ended, when it said something that nobody reads yet, and when its
    /// serial port takes input again.
    pub news: Arc<dyn Kick>,
    /// Where the console goes that is joined.
    pub screen: Arc<dyn kasane_ports::Console>,
}
