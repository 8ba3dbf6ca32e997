//! What the threads of a virtual machine need of a host: guest time ([`HostClock`]), waiting
//! without polling ([`Parker`]), the barrier on all vCPU threads ([`Barrier`]), random
//! bytes ([`HostEntropy`]) and the mutex that the core's devices are built with ([`RawMutex`]).

mod barrier;
mod clock;
mod entropy;
mod parker;

pub use barrier::{Barrier, BarrierKind};
pub use clock::HostClock;
pub use entropy::HostEntropy;
pub use parker::{Parker, Wake};

/// The raw mutex of this home: it parks a thread that waits.
pub type RawMutex = parking_lot::RawMutex;
