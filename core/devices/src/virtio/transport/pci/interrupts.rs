//! Which vector each queue interrupts by, or INTA and the interrupt status.

use alloc::sync::Arc;
use alloc::vec::Vec;

use kasane_ports::{IrqLine, Level};
use kasane_spec_virtio::pci::{NO_VECTOR, isr};
use lock_api::{Mutex, RawMutex};

use super::super::isr::InterruptStatus;
use crate::pci::{InterruptMode, PciInterrupts};
use crate::virtio::VirtioInterrupts;

/// The function's INTA.
struct Inta(Arc<dyn PciInterrupts>);

impl IrqLine for Inta {
    fn set(&self, level: Level) {
        self.0.set_intx(level);
    }
}

/// Vectors as the driver has set them.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Vectors {
    pub(super) config: u16,
    pub(super) queues: Vec<u16>,
}

impl Vectors {
    fn none(queues: u16) -> Self {
        Self { config: NO_VECTOR, queues: alloc::vec![NO_VECTOR; usize::from(queues)] }
    }
}

/// A function's interrupts.
pub(super) struct PciVectors<R: RawMutex> {
    pci: Arc<dyn PciInterrupts>,
    count: u16,
    vectors: Mutex<R, Vectors>,
    pub(super) status: InterruptStatus<R>,
}

impl<R: RawMutex> PciVectors<R> {
    /// Interrupts of a function with one vector more than `queues`.
    pub(super) fn new(pci: Arc<dyn PciInterrupts>, queues: u16) -> Self {
        let status = InterruptStatus::new(Arc::new(Inta(pci.clone())));
        let vectors = Mutex::new(Vectors::none(queues));
        Self { pci, count: queues.saturating_add(1), vectors, status }
    }

    pub(super) fn pci(&self) -> &dyn PciInterrupts {
        &*self.pci
    }

    /// Whether the driver has switched MSI-X on.
    pub(super) fn msix(&self) -> bool {
        self.pci.mode() == InterruptMode::Msix
    }

    /// Vectors now.
    pub(super) fn vectors(&self) -> Vectors {
        self.vectors.lock().clone()
    }

    pub(super) fn config_vector(&self) -> u16 {
        self.vectors.lock().config
    }

    pub(super) fn queue_vector(&self, queue: u16) -> u16 {
        self.vectors.lock().queues.get(usize::from(queue)).copied().unwrap_or(NO_VECTOR)
    }

    /// A vector that the function has, else none (§4.1.5.1.2.1: the driver reads that back).
    fn valid(&self, vector: u16) -> u16 {
        if vector < self.count { vector } else { NO_VECTOR }
    }

    pub(super) fn set_config_vector(&self, vector: u16) {
        self.vectors.lock().config = self.valid(vector);
    }

    pub(super) fn set_queue_vector(&self, queue: u16, vector: u16) {
        let vector = self.valid(vector);
        if let Some(to) = self.vectors.lock().queues.get_mut(usize::from(queue)) {
            *to = vector;
        }
    }

    /// As after power-on.
    pub(super) fn reset(&self) {
        *self.vectors.lock() = Vectors::none(self.count.saturating_sub(1));
        self.status.clear(u8::MAX);
    }

    /// Takes over saved vectors and status; `None` if the function can't have them.
    pub(super) fn restore(&self, vectors: Vectors, status: u8) -> Option<()> {
        let all = vectors.queues.iter().chain(core::iter::once(&vectors.config));
        let mut now = self.vectors.lock();
        let fits = vectors.queues.len() == now.queues.len()
            && all.into_iter().all(|vector| self.valid(*vector) == *vector);
        if !fits {
            return None;
        }
        *now = vectors;
        drop(now);
        self.status.restore(status);
        Some(())
    }

    fn signal(&self, vector: u16) {
        if vector != NO_VECTOR {
            self.pci.signal(vector);
        }
    }
}

impl<R: RawMutex + Send + Sync> VirtioInterrupts for PciVectors<R> {
    fn queue(&self, queue: u16) {
        if self.msix() {
            self.signal(self.queue_vector(queue));
        } else {
            self.status.raise(isr::QUEUE);
        }
    }
    fn config(&self) {
        // In any case (§4.1.4.5.1); with MSI-X on, it raises no wire.
        self.status.raise(isr::CONFIG);
        if self.msix() {
            self.signal(self.config_vector());
        }
    }
}
