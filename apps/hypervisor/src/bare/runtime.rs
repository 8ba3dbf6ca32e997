//! The scheduler on the bare machine's processors.

use alloc::sync::Arc;

use kasane_metal_cpu::{self as cpu, IrqSpinLock, vector};
use kasane_metal_sched::{Processors, Runtime, Spawner, Waker};
use spin::Once;

use super::processors::apic_id;

/// The processors.
pub(crate) struct Bare;

impl Processors for Bare {
    fn current(&self) -> u32 {
        cpu::current()
    }
    fn now_ns(&self) -> u64 {
        cpu::now_ns()
    }
    fn arm(&self, at_ns: Option<u64>) {
        cpu::arm_timer_ns(at_ns.map(|at| at.saturating_sub(cpu::now_ns())));
    }
    fn poke(&self, processor: u32) {
        cpu::send_ipi(apic_id(processor), vector::POKE);
    }
    fn wait(&self, idle: &mut dyn FnMut() -> bool) {
        cpu::wait_for_interrupt(idle);
    }
}

/// The runtime of this machine.
pub(crate) type BareRuntime = Runtime<IrqSpinLock, Bare>;

static RUNTIME: Once<Arc<BareRuntime>> = Once::new();
static MONITOR: Once<Arc<Waker>> = Once::new();

/// Makes the runtime for so many processors.
pub(crate) fn set_up(processors: u32) {
    cpu::set_handler(vector::TIMER, |_| {
        if let Some(runtime) = RUNTIME.get() {
            runtime.tick();
        }
    });
    // The interrupt itself is what a poke is for: it ends idling and leaves a guest.
    cpu::set_handler(vector::POKE, |_| {});
    cpu::set_handler(vector::STOP, |_| cpu::halt_for_ever());
    let runtime = RUNTIME.call_once(|| Arc::new(BareRuntime::new(Bare, processors))).clone();
    let spawner: Arc<dyn Spawner> = runtime;
    MONITOR.call_once(|| Waker::new(spawner));
}

/// The runtime, once it is set up.
pub(crate) fn get() -> Arc<BareRuntime> {
    RUNTIME.wait().clone()
}

/// Wakes the monitor.
pub(crate) fn monitor_waker() -> Arc<Waker> {
    MONITOR.wait().clone()
}

/// Runs tasks on this processor.
pub(crate) fn live() -> ! {
    let runtime = RUNTIME.wait();
    cpu::wait_for_interrupt(|| false); // which switches them on
    runtime.live()
}
