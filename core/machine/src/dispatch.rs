//! From an exit to the device that answers it, and back.

use kasane_cpu::{AccessSize, Entry, Exit};
use kasane_devices::{AddressSpace, Reply};
use kasane_ports::{TraceId, TraceKind};
use lock_api::RawMutex;

use crate::config::CrashPolicy;
use crate::machine::Machine;
use crate::msr;
use crate::power::PowerRequest;
use crate::tracing::Happening;

/// What a home does after an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Enter the guest again.
    Enter(Entry),
    /// Wait until something kicks the vCPU or its own deadline comes, then resume.
    Wait,
    /// The guest has switched the machine off.
    PowerOff,
    /// Somebody has asked for a reset: stop all vCPUs, [`Machine::reset`], load again.
    Reset,
    /// The processor has shut down by a triple fault, and the machine stops.
    Crashed {
        /// Which.
        vcpu: u32,
    },
    /// A debugger's breakpoint, watchpoint or single step.
    Debug {
        /// RIP of the next instruction.
        rip: u64,
        /// Why, with DR6's bits.
        dr6: u32,
    },
}

impl From<PowerRequest> for Action {
    fn from(request: PowerRequest) -> Self {
        match request {
            PowerRequest::Off => Self::PowerOff,
            PowerRequest::Reset => Self::Reset,
        }
    }
}

/// "No such hypercall", as KVM's interface has it (-1000).
const NO_SUCH_HYPERCALL: u64 = 1000u64.wrapping_neg();

/// An access on its way to a device.
struct Request<'a, R: RawMutex> {
    space: &'a AddressSpace<R>,
    vcpu: u32,
    address: u64,
    size: AccessSize,
    id: Option<TraceId>,
}

impl<R: RawMutex + Send + Sync + 'static> Machine<R> {
    /// Serves an exit of vCPU `vcpu`.
    pub fn handle(&self, vcpu: u32, exit: &Exit) -> Action {
        self.counters.exit(exit);
        if let Some(request) = self.power.pending() {
            return request.into();
        }
        let id = self.tracer.enabled().then(|| self.trace_exit(vcpu, exit));
        let on = |space, address, size| Request { space, vcpu, address, size, id };
        let (ports, memory) = (&*self.board.ports, &*self.board.memory);
        let entry = match *exit {
            Exit::PortRead { port, size } => {
                Entry::Value(self.device_read(&on(ports, port.into(), size)))
            }
            Exit::PortWrite { port, size, value } => {
                self.device_write(&on(ports, port.into(), size), value.into())
            }
            Exit::PortWriteString { port, size, count, data } => {
                self.write_string(&on(ports, port.into(), size), count, &data)
            }
            Exit::MmioRead { gpa, size } => Entry::Value(self.device_read(&on(memory, gpa, size))),
            Exit::MmioWrite { gpa, size, value } => {
                self.device_write(&on(memory, gpa, size), value)
            }
            Exit::MsrRead { index } => msr::read(index, &self.config.cpu_model),
            Exit::MsrWrite { index, value } => msr::write(index, value, &self.config.cpu_model),
            Exit::Hypercall => Entry::Value(NO_SUCH_HYPERCALL),
            Exit::Halt => return Action::Wait,
            Exit::InterruptWindow => self.external_interrupt(vcpu, id),
            Exit::Eoi { vector } => {
                self.board.interrupts.end_of_interrupt(vector);
                Entry::Resume
            }
            Exit::TripleFault => return self.triple_fault(vcpu),
            Exit::Debug { rip, dr6 } => return Action::Debug { rip, dr6 },
            // SMM is reported as set up: an SMI has nothing to do.
            Exit::Smi | Exit::BudgetUsed | Exit::Kicked => Entry::Resume,
        };
        // The access may have been the one that asks.
        self.power.pending().map_or(Action::Enter(entry), Action::from)
    }

    fn external_interrupt(&self, vcpu: u32, id: Option<TraceId>) -> Entry {
        let Some(vector) = self.board.interrupts.acknowledge() else {
            return Entry::Resume;
        };
        if let Some(id) = id {
            let kind = TraceKind::Interrupt;
            let a = vector.into();
            self.tracer.emit(id, Happening { vcpu, kind, subject: "pic", a, b: 1, size: 0 });
        }
        Entry::ExternalInterrupt { vector }
    }

    fn triple_fault(&self, vcpu: u32) -> Action {
        match self.config.on_crash {
            CrashPolicy::Stop => Action::Crashed { vcpu },
            CrashPolicy::Reset => {
                self.power.ask(PowerRequest::Reset);
                Action::Reset
            }
        }
    }

    fn device_read(&self, request: &Request<'_, R>) -> u64 {
        let Request { space, address, size, .. } = *request;
        let reply = space.read(address, size, self.clock.now_ns());
        self.note(request, TraceKind::DeviceRead, reply, reply.value);
        reply.value
    }

    fn device_write(&self, request: &Request<'_, R>, value: u64) -> Entry {
        let Request { space, address, size, .. } = *request;
        let reply = space.write(address, size, value, self.clock.now_ns());
        self.note(request, TraceKind::DeviceWrite, reply, value);
        Entry::Resume
    }

    fn write_string(&self, request: &Request<'_, R>, count: u8, data: &[u8; 32]) -> Entry {
        let items = data.chunks(usize::from(request.size.bytes())).take(count.into());
        for item in items {
            let mut value = [0; 8];
            for (to, from) in value.iter_mut().zip(item) {
                *to = *from;
            }
            self.device_write(request, u64::from_le_bytes(value));
        }
        Entry::Resume
    }

    /// Counts and traces a device's access.
    fn note(&self, request: &Request<'_, R>, kind: TraceKind, reply: Reply, value: u64) {
        self.counters.access(reply.device);
        if let Some(id) = request.id {
            let happening = Happening {
                vcpu: request.vcpu,
                kind,
                subject: reply.device.unwrap_or("nobody"),
                a: request.address,
                b: value,
                size: request.size.bytes(),
            };
            self.tracer.emit(id, happening);
        }
    }

    fn trace_exit(&self, vcpu: u32, exit: &Exit) -> TraceId {
        let (a, b, size) = match *exit {
            Exit::PortRead { port, size } => (port.into(), 0, size.bytes()),
            Exit::PortWrite { port, size, value } => (port.into(), value.into(), size.bytes()),
            Exit::PortWriteString { port, size, count, .. } => {
                (port.into(), count.into(), size.bytes())
            }
            Exit::MmioRead { gpa, size } => (gpa, 0, size.bytes()),
            Exit::MmioWrite { gpa, size, value } => (gpa, value, size.bytes()),
            Exit::MsrRead { index } => (index.into(), 0, 0),
            Exit::MsrWrite { index, value } => (index.into(), value, 0),
            Exit::Eoi { vector } => (vector.into(), 0, 0),
            Exit::Debug { rip, dr6 } => (rip, dr6.into(), 0),
            Exit::Hypercall
            | Exit::Halt
            | Exit::InterruptWindow
            | Exit::TripleFault
            | Exit::Smi
            | Exit::BudgetUsed
            | Exit::Kicked => (0, 0, 0),
        };
        let kind = TraceKind::Exit;
        self.tracer.begin(Happening { vcpu, kind, subject: exit.name(), a, b, size })
    }
}
