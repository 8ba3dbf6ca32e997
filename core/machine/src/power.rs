//! What chips ask of the whole machine: to be reset or switched off.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU8, Ordering};

use kasane_cpu::apic::ApicBus;
use kasane_devices::system::{SystemPort, SystemRequest};

/// What a chip asks of the whole machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerRequest {
    /// Soft off (ACPI S5).
    Off,
    /// Reset: port 0xCF9 or 0x92, the keyboard controller, or a triple fault.
    Reset,
}

const NONE: u8 = 0;
const OFF: u8 = 1;
const RESET: u8 = 2;

/// Holds a request until the home has served it. Every vCPU is kicked, so that each of them
/// comes out of the engine and is given the same answer.
pub(crate) struct PowerLatch {
    request: AtomicU8,
    apics: Arc<ApicBus>,
}

impl PowerLatch {
    pub(crate) fn new(apics: Arc<ApicBus>) -> Arc<Self> {
        Arc::new(Self { request: AtomicU8::new(NONE), apics })
    }

    /// Asks; the first request stands.
    pub(crate) fn ask(&self, request: PowerRequest) {
        let value = match request {
            PowerRequest::Off => OFF,
            PowerRequest::Reset => RESET,
        };
        let first =
            self.request.compare_exchange(NONE, value, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if first {
            self.apics.kick_all();
        }
    }

    pub(crate) fn pending(&self) -> Option<PowerRequest> {
        match self.request.load(Ordering::Acquire) {
            OFF => Some(PowerRequest::Off),
            RESET => Some(PowerRequest::Reset),
            _ => None,
        }
    }

    pub(crate) fn clear(&self) {
        self.request.store(NONE, Ordering::Release);
    }
}

impl SystemPort for PowerLatch {
    fn request(&self, request: SystemRequest) {
        match request {
            // Nothing is at the reset vector that could go on after the INIT of a processor
            // alone (the AT's way out of protected mode), so it is a reset of everything.
            SystemRequest::Reset(_) => self.ask(PowerRequest::Reset),
            SystemRequest::PowerOff => self.ask(PowerRequest::Off),
            // The DSDT offers no sleeping state but S5.
            SystemRequest::Sleep(_) => {}
        }
    }
}
