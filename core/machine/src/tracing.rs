//! Trace events of the machine: exits, the device accesses that they cause, interrupts and
//! deadlines, chained by an id (DESIGN §3).
//!
//! An exit and its device access carry the exit's id. A device does not know why it was called,
//! so an interrupt carries the id of the cause that came last; with several vCPUs at work that
//! may be another's.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use kasane_ports::{Clock, Msi, MsiSink, Trace, TraceEvent, TraceId, TraceKind};

/// vCPU of an event that belongs to none.
pub(crate) const NO_VCPU: u32 = u32::MAX;

/// Where the machine's events come from.
pub(crate) struct Tracer {
    sink: Arc<dyn Trace>,
    clock: Arc<dyn Clock>,
    counter: AtomicU64,
    cause: AtomicU64,
}

/// An event to be, without time and id.
#[derive(Clone, Copy)]
pub(crate) struct Happening {
    pub(crate) vcpu: u32,
    pub(crate) kind: TraceKind,
    pub(crate) subject: &'static str,
    pub(crate) a: u64,
    pub(crate) b: u64,
    pub(crate) size: u8,
}

impl Tracer {
    pub(crate) fn new(sink: Arc<dyn Trace>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let (counter, cause) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { sink, clock, counter, cause })
    }

    pub(crate) fn enabled(&self) -> bool {
        self.sink.enabled()
    }

    /// Begins a chain with `first`.
    pub(crate) fn begin(&self, first: Happening) -> TraceId {
        let id = TraceId::next(&self.counter);
        self.cause.store(id.0, Ordering::Relaxed);
        self.emit(id, first);
        id
    }

    pub(crate) fn emit(&self, id: TraceId, happening: Happening) {
        let Happening { vcpu, kind, subject, a, b, size } = happening;
        let time_ns = self.clock.now_ns();
        self.sink.emit(&TraceEvent { time_ns, id, vcpu, kind, subject, a, b, size });
    }

    /// Emits an event that the last cause set off.
    pub(crate) fn follow(&self, happening: Happening) {
        self.emit(TraceId(self.cause.load(Ordering::Relaxed)), happening);
    }
}

/// Messages on their way to the local APICs.
pub(crate) struct TracedMessages {
    pub(crate) to: Arc<dyn MsiSink>,
    pub(crate) tracer: Arc<Tracer>,
}

impl MsiSink for TracedMessages {
    fn signal(&self, msi: Msi) {
        if self.tracer.enabled() {
            self.tracer.follow(Happening {
                vcpu: NO_VCPU,
                kind: TraceKind::Interrupt,
                subject: "message",
                a: u64::from(msi.data & 0xFF),
                b: msi.address,
                size: 0,
            });
        }
        self.to.signal(msi);
    }
}
