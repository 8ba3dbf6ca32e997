//! Trace events: the live path of an exit or an I/O (DESIGN §3).

use core::sync::atomic::{AtomicU64, Ordering};

/// Chains the events that one cause set off. 0 means "no cause known".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceId(pub u64);

impl TraceId {
    /// A new id from a counter that the machine owns.
    #[must_use]
    pub fn next(counter: &AtomicU64) -> Self {
        Self(counter.fetch_add(1, Ordering::Relaxed).wrapping_add(1))
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceKind {
    /// A vCPU stopped: `detail` is the exit's reason by name.
    Exit,
    /// A device register was read.
    DeviceRead,
    /// A device register was written.
    DeviceWrite,
    /// An interrupt was raised (`a` = line or vector, `b` = level).
    Interrupt,
    /// A deadline passed (`a` = deadline in nanoseconds).
    Deadline,
    /// A request went to a backend or came back.
    Backend,
}

/// One event. Copy, without pointers to guest data, so that it can cross rings and processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceEvent {
    /// Guest nanoseconds.
    pub time_ns: u64,
    /// This event's chain.
    pub id: TraceId,
    /// vCPU index, or `u32::MAX` for none.
    pub vcpu: u32,
    /// What happened.
    pub kind: TraceKind,
    /// Device name or exit reason.
    pub subject: &'static str,
    /// First detail: an address, a port, a line.
    pub a: u64,
    /// Second detail: a value.
    pub b: u64,
    /// Size of the access in bytes; 0 where there is none.
    pub size: u8,
}

/// Where trace events go. Off by default and then nearly free.
pub trait Trace: Send + Sync {
    /// Whether events are wanted; asked before an event is built.
    fn enabled(&self) -> bool;
    /// Takes one event.
    fn emit(&self, event: &TraceEvent);
    /// A small number of the calling thread, so that what one thread sets off isn't taken for
    /// another's. Homes without threads have one.
    fn lane(&self) -> usize {
        0
    }
}

/// A trace that wants nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullTrace;

impl Trace for NullTrace {
    fn enabled(&self) -> bool {
        false
    }
    fn emit(&self, _event: &TraceEvent) {}
}
