//! The function: its BARs, and the window in its configuration space.

use alloc::sync::Arc;

use kasane_cpu::AccessSize;
use kasane_spec_virtio::pci::capability;
use lock_api::{Mutex, RawMutex};

use super::super::{config_read, config_write};
use super::interrupts::PciVectors;
use super::layout::{
    BAR, COMMON, DEVICE, ISR, LEGACY_BAR, NOTIFY, NOTIFY_MULTIPLIER, PART_LEN, PciShape,
};
use crate::pci::{PciBus, PciError, PciFunction};
use crate::virtio::{VirtioDevice, VirtioInterrupts};

/// What the driver has selected to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Selectors {
    pub(super) device_features: u32,
    pub(super) driver_features: u32,
    pub(super) queue: u16,
}

/// A virtio device as a PCI function.
///
/// Lock order: its own locks are leaves; the device's is taken without them.
pub struct VirtioPci<R: RawMutex> {
    pub(super) section: alloc::string::String,
    pub(super) device: Arc<dyn VirtioDevice>,
    pub(super) interrupts: Arc<PciVectors<R>>,
    pub(super) selectors: Mutex<R, Selectors>,
    /// The capability of §4.1.4.9.
    window: usize,
}

/// A device on a PCI bus.
pub struct Attached<R: RawMutex, D> {
    /// The device.
    pub device: Arc<D>,
    /// Its function, which has state of its own.
    pub function: Arc<VirtioPci<R>>,
}

/// Puts a device on the bus. `make` makes it, and gets the way to interrupt.
///
/// # Errors
/// When the address is taken, or the shape does not fit a function.
pub fn attach<R, D>(
    bus: &Arc<PciBus<R>>,
    shape: &PciShape,
    make: impl FnOnce(Arc<dyn VirtioInterrupts>) -> Arc<D>,
) -> Result<Attached<R, D>, PciError>
where
    R: RawMutex + Send + Sync + 'static,
    D: VirtioDevice + 'static,
{
    let (layout, window) = shape.layout()?;
    let mut made = None;
    let function = bus.attach(shape.address, layout, |pci| {
        let interrupts = Arc::new(PciVectors::new(pci, shape.queues));
        let device = make(interrupts.clone());
        made = Some(device.clone());
        Arc::new(VirtioPci {
            section: alloc::format!("virtio-pci.{}", shape.name),
            device,
            interrupts,
            selectors: Mutex::new(Selectors::default()),
            window,
        })
    })?;
    // The bus has called `make` if it has the function.
    let device = made.ok_or(PciError::AddressTaken(shape.address))?;
    Ok(Attached { device, function })
}

impl<R: RawMutex + Send + Sync> VirtioPci<R> {
    /// The driver writes the status. A reset is one of the transport's registers too.
    pub(super) fn set_status(&self, value: u8) {
        self.device.set_status(value);
        if value == 0 {
            self.interrupts.reset();
            *self.selectors.lock() = Selectors::default();
        }
    }

    /// A doorbell. A function that may do no DMA can't look at its queues.
    pub(super) fn notify(&self, queue: u16) {
        if self.interrupts.pci().bus_master() {
            self.device.notify(queue);
        }
    }

    /// Bar, offset and size that the window in the configuration space stands for.
    fn window_target(&self) -> Option<(u8, u32, AccessSize)> {
        let field = |at: usize, size| {
            self.interrupts.pci().config_read(self.window.wrapping_add(at) as u16, size)
        };
        let size = match field(capability::LENGTH, AccessSize::Dword) {
            1 => AccessSize::Byte,
            2 => AccessSize::Word,
            4 => AccessSize::Dword,
            _ => return None,
        };
        let bar = field(capability::BAR, AccessSize::Byte) as u8;
        let offset = field(capability::OFFSET, AccessSize::Dword) as u32;
        offset.is_multiple_of(size.bytes().into()).then_some((bar, offset, size))
    }
}

impl<R: RawMutex + Send + Sync> PciFunction for VirtioPci<R> {
    fn name(&self) -> &'static str {
        self.device.name()
    }

    fn read(&self, bar: u8, offset: u32, size: AccessSize, _now_ns: u64) -> u64 {
        if bar == LEGACY_BAR {
            return self.legacy_read(offset, size);
        }
        let at = offset % PART_LEN;
        match (bar, offset.wrapping_sub(at)) {
            (BAR, COMMON) => self.common_read(at, size),
            (BAR, ISR) if at == 0 => self.interrupts.status.clear(u8::MAX).into(),
            (BAR, DEVICE) => config_read(&*self.device, at, size),
            _ => 0,
        }
    }

    fn write(&self, bar: u8, offset: u32, size: AccessSize, value: u64, _now_ns: u64) {
        if bar == LEGACY_BAR {
            return self.legacy_write(offset, size, value);
        }
        let at = offset % PART_LEN;
        match (bar, offset.wrapping_sub(at)) {
            (BAR, NOTIFY) => self.notify((at / NOTIFY_MULTIPLIER) as u16),
            (BAR, COMMON) => self.common_write(at, size, value),
            (BAR, DEVICE) => config_write(&*self.device, at, size, value),
            _ => {}
        }
    }

    fn live_read(&self, _at: u16, size: AccessSize) -> u64 {
        match self.window_target() {
            Some((bar, offset, width)) => {
                self.read(bar, offset, width, 0) & width.mask() & size.mask()
            }
            None => 0,
        }
    }

    fn live_written(&self, at: u16) {
        let data = self.window.wrapping_add(capability::PCI_DATA) as u16;
        if let Some((bar, offset, width)) = self.window_target().filter(|_| at == data) {
            let value = self.interrupts.pci().config_read(data, width);
            self.write(bar, offset, width, value, 0);
        }
    }

    fn reset(&self) {
        self.set_status(0);
    }
}
