//! Trace events of the machine: exits, the device accesses that they cause, interrupts and
//! deadlines, chained by an id (DESIGN §3).
//!
//! An exit and its device access carry the exit's id. A device does not know why it was called,
//! so an interrupt carries the id of the cause that came last on the same thread: each vCPU's
//! thread serves its own exits, and one more thread the deadlines.
//!
//! Local APICs act without exits. Their interprocessor interrupts and timers begin chains of
//! their own.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use kasane_cpu::apic::{ApicObserver, DeliveryMode, Destination, Message};
use kasane_ports::{Clock, Msi, MsiSink, Trace, TraceEvent, TraceId, TraceKind};

/// vCPU of an event that belongs to none.
pub(crate) const NO_VCPU: u32 = u32::MAX;

/// Threads that are told apart. A home's numbers may be higher; then some share a place.
const LANES: usize = 64;

/// Where the machine's events come from.
pub(crate) struct Tracer {
    sink: Arc<dyn Trace>,
    clock: Arc<dyn Clock>,
    counter: AtomicU64,
    /// The last cause, by thread.
    causes: [AtomicU64; LANES],
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
        let causes = core::array::from_fn(|_| AtomicU64::new(0));
        Arc::new(Self { sink, clock, counter: AtomicU64::new(0), causes })
    }

    pub(crate) fn enabled(&self) -> bool {
        self.sink.enabled()
    }

    /// Begins a chain with `first`.
    pub(crate) fn begin(&self, first: Happening) -> TraceId {
        let id = TraceId::next(&self.counter);
        if let Some(cause) = self.cause() {
            cause.store(id.0, Ordering::Relaxed);
        }
        self.emit(id, first);
        id
    }

    pub(crate) fn emit(&self, id: TraceId, happening: Happening) {
        let Happening { vcpu, kind, subject, a, b, size } = happening;
        let time_ns = self.clock.now_ns();
        self.sink.emit(&TraceEvent { time_ns, id, vcpu, kind, subject, a, b, size });
    }

    /// Emits an event that this thread's last cause set off.
    pub(crate) fn follow(&self, happening: Happening) {
        let id = self.cause().map_or(0, |cause| cause.load(Ordering::Relaxed));
        self.emit(TraceId(id), happening);
    }

    fn cause(&self) -> Option<&AtomicU64> {
        self.causes.get(self.sink.lane() % LANES)
    }
}

/// The destination as one number: what was written, and above it how it is meant.
fn destination(destination: Destination) -> u64 {
    match destination {
        Destination::Physical(id) => u64::from(id),
        Destination::Logical(address) => 1 << 32 | u64::from(address),
        Destination::Itself(id) => 2 << 32 | u64::from(id),
        Destination::All => 3 << 32,
        Destination::AllBut(id) => 4 << 32 | u64::from(id),
    }
}

impl ApicObserver for Tracer {
    /// `a` is the vector, `b` the destination.
    fn sent(&self, from: u32, message: &Message) {
        if !self.enabled() {
            return;
        }
        let subject = match message.mode {
            DeliveryMode::Fixed => "ipi",
            DeliveryMode::LowestPriority => "ipi-lowest-priority",
            DeliveryMode::Smi => "ipi-smi",
            DeliveryMode::Nmi => "ipi-nmi",
            DeliveryMode::Init => "ipi-init",
            DeliveryMode::StartUp => "ipi-start-up",
            DeliveryMode::ExtInt => "ipi-extint",
        };
        let (a, b) = (message.vector.into(), destination(message.destination));
        let kind = TraceKind::Interrupt;
        self.begin(Happening { vcpu: from, kind, subject, a, b, size: 0 });
    }

    fn timer(&self, index: u32, vector: u8, deadline_ns: u64) {
        if !self.enabled() {
            return;
        }
        let (vcpu, subject) = (index, "apic-timer");
        let (kind, b) = (TraceKind::Deadline, self.clock.now_ns());
        let id = self.begin(Happening { vcpu, kind, subject, a: deadline_ns, b, size: 0 });
        let (kind, a) = (TraceKind::Interrupt, vector.into());
        self.emit(id, Happening { vcpu, kind, subject, a, b: 1, size: 0 });
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
