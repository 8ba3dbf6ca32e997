//! What a function sees of the bus, and the bus of a function.

use alloc::sync::{Arc, Weak};

use kasane_cpu::AccessSize;
use kasane_ports::Level;
use lock_api::RawMutex;

use super::address::PciAddress;
use super::bus::PciBus;
use super::layout::MsixPlace;
use super::msi::MsixTable;
use crate::bus::Device;

/// A function's own behaviour. Its configuration space is the bus's; see
/// [`FunctionLayout`](super::FunctionLayout).
pub trait PciFunction: Send + Sync {
    /// A short stable name for traces and statistics.
    fn name(&self) -> &'static str;
    /// A read at `offset` of BAR `bar`. MSI-X tables are not seen here.
    fn read(&self, _bar: u8, _offset: u32, size: AccessSize, _now_ns: u64) -> u64 {
        size.mask()
    }
    /// A write at `offset` of BAR `bar`.
    fn write(&self, _bar: u8, _offset: u32, _size: AccessSize, _value: u64, _now_ns: u64) {}
    /// The guest has written the configuration space at `offset`.
    fn config_written(&self, _offset: u16) {}
    /// A read of the configuration space at `at`, in the range that is live (see
    /// [`FunctionLayout::live`](super::FunctionLayout::live)).
    fn live_read(&self, _at: u16, size: AccessSize) -> u64 {
        size.mask()
    }
    /// The guest has written the configuration space at `at`, in the range that is live.
    fn live_written(&self, _at: u16) {}
    /// Power-on or RST#.
    fn reset(&self) {}
}

/// How the guest wants to be interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterruptMode {
    /// By the wire.
    Intx,
    /// By MSI.
    Msi,
    /// By MSI-X.
    Msix,
}

/// What a function may ask of the bus. Call it with none of the function's locks held.
pub trait PciInterrupts: Send + Sync {
    /// How the guest wants to be interrupted now.
    fn mode(&self) -> InterruptMode;
    /// Drives the function's INTx pin. While MSI or MSI-X is on, the wire stays low, whatever
    /// the level.
    fn set_intx(&self, level: Level);
    /// Signals a vector by MSI or MSI-X, whichever is on; nothing if neither is.
    fn signal(&self, vector: u16);
    /// Whether the function may do DMA.
    fn bus_master(&self) -> bool;
    /// What the function's own configuration space holds at `at`.
    fn config_read(&self, at: u16, size: AccessSize) -> u64;
}

/// A function's way to its bus.
pub(super) struct FunctionHandle<R: RawMutex> {
    pub(super) bus: Weak<PciBus<R>>,
    pub(super) address: PciAddress,
}

impl<R: RawMutex + Send + Sync + 'static> PciInterrupts for FunctionHandle<R> {
    fn mode(&self) -> InterruptMode {
        self.bus.upgrade().map_or(InterruptMode::Intx, |bus| bus.interrupt_mode(self.address))
    }
    fn set_intx(&self, level: Level) {
        if let Some(bus) = self.bus.upgrade() {
            bus.set_intx(self.address, level);
        }
    }
    fn signal(&self, vector: u16) {
        if let Some(bus) = self.bus.upgrade() {
            bus.signal(self.address, vector);
        }
    }
    fn bus_master(&self) -> bool {
        self.bus.upgrade().is_some_and(|bus| bus.is_bus_master(self.address))
    }
    fn config_read(&self, at: u16, size: AccessSize) -> u64 {
        self.bus.upgrade().map_or(size.mask(), |bus| bus.config_stored(self.address, at, size))
    }
}

/// A BAR on an address space: the MSI-X table in it is the bus's, the rest is the function's.
pub(super) struct BarDevice<R: RawMutex> {
    pub(super) handle: FunctionHandle<R>,
    pub(super) function: Arc<dyn PciFunction>,
    pub(super) number: u8,
    /// The MSI-X place, if it is in this BAR.
    pub(super) msix: Option<MsixPlace>,
}

impl<R: RawMutex> BarDevice<R> {
    fn msix_bus(&self, offset: u32) -> Option<Arc<PciBus<R>>> {
        self.msix.filter(|place| MsixTable::covers(*place, offset))?;
        self.handle.bus.upgrade()
    }
}

impl<R: RawMutex + Send + Sync + 'static> Device for BarDevice<R> {
    fn name(&self) -> &'static str {
        self.function.name()
    }
    fn read(&self, offset: u32, size: AccessSize, now_ns: u64) -> u64 {
        match self.msix_bus(offset) {
            Some(bus) => bus.msix_read(self.handle.address, offset, size),
            None => self.function.read(self.number, offset, size, now_ns),
        }
    }
    fn write(&self, offset: u32, size: AccessSize, value: u64, now_ns: u64) {
        match self.msix_bus(offset) {
            Some(bus) => bus.msix_write(self.handle.address, offset, size, value),
            None => self.function.write(self.number, offset, size, value, now_ns),
        }
    }
}
