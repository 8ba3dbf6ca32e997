//! The registers.

use alloc::string::String;
use alloc::sync::Arc;

use kasane_cpu::AccessSize;
use kasane_ports::IrqLine;
use kasane_spec_virtio::mmio::{
    CONFIG, CONFIG_GENERATION, DEVICE_FEATURES, DEVICE_FEATURES_SEL, DEVICE_ID, DRIVER_FEATURES,
    DRIVER_FEATURES_SEL, INTERRUPT_ACK, INTERRUPT_STATUS, MAGIC, MAGIC_VALUE, QUEUE_DESC_HIGH,
    QUEUE_DESC_LOW, QUEUE_DEVICE_HIGH, QUEUE_DEVICE_LOW, QUEUE_DRIVER_HIGH, QUEUE_DRIVER_LOW,
    QUEUE_NOTIFY, QUEUE_NUM, QUEUE_NUM_MAX, QUEUE_READY, QUEUE_SEL, SHM_BASE_HIGH, SHM_LEN_LOW,
    STATUS, VENDOR_ID, VERSION, VERSION_VALUE,
};
use kasane_spec_virtio::pci::isr;
use lock_api::{Mutex, RawMutex};

use super::super::isr::InterruptStatus;
use super::super::{Area, Half, config_read, config_write, half, with_half};
use crate::bus::Device;
use crate::virtio::{QueueChange, VirtioDevice, VirtioInterrupts};

/// What `VENDOR_ID` reads: "KASN".
const VENDOR: u32 = 0x4E53_414B;

/// What the driver has selected to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Selectors {
    device_features: u32,
    driver_features: u32,
    queue: u32,
}

/// The interrupt status as the device sees it.
pub(super) struct Wire<R: RawMutex>(pub(super) InterruptStatus<R>);

impl<R: RawMutex + Send + Sync> VirtioInterrupts for Wire<R> {
    fn queue(&self, _queue: u16) {
        self.0.raise(isr::QUEUE);
    }
    fn config(&self) {
        self.0.raise(isr::CONFIG);
    }
}

/// A virtio device as registers in memory, [`LEN`](kasane_spec_virtio::mmio::LEN) bytes.
pub struct VirtioMmio<R: RawMutex> {
    pub(super) section: String,
    device: Arc<dyn VirtioDevice>,
    pub(super) interrupts: Arc<Wire<R>>,
    pub(super) selectors: Mutex<R, Selectors>,
}

impl<R: RawMutex + Send + Sync + 'static> VirtioMmio<R> {
    /// Registers of a device called `name`, whose interrupts go to `wire`. `make` makes the device.
    pub fn new<D: VirtioDevice + 'static>(
        name: &str,
        wire: Arc<dyn IrqLine>,
        make: impl FnOnce(Arc<dyn VirtioInterrupts>) -> Arc<D>,
    ) -> (Arc<Self>, Arc<D>) {
        let interrupts = Arc::new(Wire(InterruptStatus::new(wire)));
        let device = make(interrupts.clone());
        let registers = Arc::new(Self {
            section: alloc::format!("virtio-mmio.{name}"),
            device: device.clone(),
            interrupts,
            selectors: Mutex::new(Selectors::default()),
        });
        (registers, device)
    }

    /// Power-on.
    pub fn reset(&self) {
        self.set_status(0);
    }

    fn set_status(&self, value: u8) {
        self.device.set_status(value);
        if value == 0 {
            self.interrupts.0.clear(u8::MAX);
            *self.selectors.lock() = Selectors::default();
        }
    }

    /// The selected queue, if its number can be one.
    fn selected(&self) -> Option<u16> {
        u16::try_from(self.selectors.lock().queue).ok()
    }

    fn register(&self, offset: u32) -> u32 {
        let selected = *self.selectors.lock();
        let queue = self.selected().and_then(|number| self.device.queue(number));
        match offset {
            MAGIC => MAGIC_VALUE,
            VERSION => VERSION_VALUE,
            DEVICE_ID => self.device.device_type().into(),
            VENDOR_ID => VENDOR,
            DEVICE_FEATURES => half(self.device.offered(), selected.device_features),
            QUEUE_NUM_MAX => queue.map_or(0, |queue| queue.size_max.into()),
            QUEUE_READY => queue.is_some_and(|queue| queue.enabled).into(),
            INTERRUPT_STATUS => self.interrupts.0.bits().into(),
            STATUS => self.device.status().into(),
            // No shared memory: its length is all-ones (§4.2.2.1).
            SHM_LEN_LOW..=SHM_BASE_HIGH => u32::MAX,
            CONFIG_GENERATION => self.device.config_generation().into(),
            _ => 0,
        }
    }

    fn set_register(&self, offset: u32, value: u32) {
        match offset {
            DEVICE_FEATURES_SEL => self.selectors.lock().device_features = value,
            DRIVER_FEATURES_SEL => self.selectors.lock().driver_features = value,
            DRIVER_FEATURES => {
                let select = self.selectors.lock().driver_features;
                self.device.accept(with_half(self.device.accepted(), select, value));
            }
            QUEUE_SEL => self.selectors.lock().queue = value,
            QUEUE_NOTIFY => {
                if let Ok(queue) = u16::try_from(value) {
                    self.device.notify(queue);
                }
            }
            INTERRUPT_ACK => {
                self.interrupts.0.clear(value as u8);
            }
            STATUS => self.set_status(value as u8),
            _ => self.set_queue_register(offset, value),
        }
    }

    fn set_queue_register(&self, offset: u32, value: u32) {
        let Some(number) = self.selected() else { return };
        let Some(queue) = self.device.queue(number) else { return };
        let mut place = queue.place;
        match offset {
            QUEUE_NUM => place.size = u16::try_from(value).unwrap_or(u16::MAX),
            QUEUE_READY => {
                let change =
                    if value & 1 == 0 { QueueChange::Disable } else { QueueChange::Enable };
                return self.device.change_queue(number, change);
            }
            QUEUE_DESC_LOW => Half::Low.put(Area::Descriptors.of(&mut place), value),
            QUEUE_DESC_HIGH => Half::High.put(Area::Descriptors.of(&mut place), value),
            QUEUE_DRIVER_LOW => Half::Low.put(Area::Driver.of(&mut place), value),
            QUEUE_DRIVER_HIGH => Half::High.put(Area::Driver.of(&mut place), value),
            QUEUE_DEVICE_LOW => Half::Low.put(Area::Device.of(&mut place), value),
            QUEUE_DEVICE_HIGH => Half::High.put(Area::Device.of(&mut place), value),
            _ => return,
        }
        self.device.change_queue(number, QueueChange::Place(place));
    }
}

impl<R: RawMutex + Send + Sync + 'static> Device for VirtioMmio<R> {
    fn name(&self) -> &'static str {
        self.device.name()
    }
    fn read(&self, offset: u32, size: AccessSize, _now_ns: u64) -> u64 {
        match offset.checked_sub(CONFIG) {
            Some(at) => config_read(&*self.device, at, size),
            // Registers are doublewords, aligned (§4.2.2.2).
            None if size == AccessSize::Dword => self.register(offset).into(),
            None => 0,
        }
    }
    fn write(&self, offset: u32, size: AccessSize, value: u64, _now_ns: u64) {
        match offset.checked_sub(CONFIG) {
            Some(at) => config_write(&*self.device, at, size, value),
            None if size == AccessSize::Dword => self.set_register(offset, value as u32),
            None => {}
        }
    }
}
