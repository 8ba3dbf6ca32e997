//! The legacy interface's registers (virtio 1.2 §4.1.4.8, §2.7.2).

use kasane_cpu::AccessSize;
use kasane_spec_virtio::pci::legacy;
use kasane_spec_virtio::ring::{DESCRIPTOR_LEN, split};
use lock_api::RawMutex;

use super::super::{config_read, config_write, half, with_half};
use super::function::VirtioPci;
use crate::virtio::{QueueChange, QueuePlace};

/// Where a legacy driver's queue is: its parts follow one another from a page on, and its size is
/// the device's.
pub(super) fn place(page: u32, size: u16) -> QueuePlace {
    let descriptors = u64::from(page) << legacy::PAGE_SHIFT;
    let size_bytes = u64::from(size);
    let driver = descriptors.wrapping_add(size_bytes * DESCRIPTOR_LEN);
    let end = driver.wrapping_add(6 + size_bytes * split::AVAIL_ENTRY_LEN);
    QueuePlace { size, descriptors, driver, device: end.next_multiple_of(split::LEGACY_ALIGN) }
}

impl<R: RawMutex + Send + Sync> VirtioPci<R> {
    /// Where the device's configuration begins: behind the vectors, if MSI-X is on.
    fn legacy_config(&self) -> u32 {
        if self.interrupts.msix() { legacy::CONFIG_WITH_MSIX } else { legacy::CONFIG }
    }

    pub(super) fn legacy_read(&self, offset: u32, size: AccessSize) -> u64 {
        if let Some(at) = offset.checked_sub(self.legacy_config()) {
            return config_read(&*self.device, at, size);
        }
        let selected = self.selectors.lock().queue;
        let queue = self.device.queue(selected);
        match offset {
            legacy::DEVICE_FEATURES => half(self.device.offered(), 0).into(),
            legacy::DRIVER_FEATURES => half(self.device.accepted(), 0).into(),
            legacy::QUEUE_ADDRESS => queue
                .filter(|queue| queue.enabled)
                .map_or(0, |queue| queue.place.descriptors >> legacy::PAGE_SHIFT),
            legacy::QUEUE_SIZE => queue.map_or(0, |queue| queue.size_max.into()),
            legacy::QUEUE_SELECT => selected.into(),
            legacy::STATUS => self.device.status().into(),
            legacy::ISR => self.interrupts.status.clear(u8::MAX).into(),
            legacy::CONFIG_VECTOR => self.interrupts.config_vector().into(),
            legacy::QUEUE_VECTOR => self.interrupts.queue_vector(selected).into(),
            _ => 0,
        }
    }

    pub(super) fn legacy_write(&self, offset: u32, size: AccessSize, value: u64) {
        if let Some(at) = offset.checked_sub(self.legacy_config()) {
            return config_write(&*self.device, at, size, value);
        }
        let selected = self.selectors.lock().queue;
        match offset {
            legacy::DRIVER_FEATURES => {
                self.device.accept(with_half(0, 0, value as u32));
            }
            legacy::QUEUE_ADDRESS => self.legacy_queue(selected, value as u32),
            legacy::QUEUE_SELECT => self.selectors.lock().queue = value as u16,
            legacy::QUEUE_NOTIFY => self.notify(value as u16),
            legacy::STATUS => self.set_status(value as u8),
            legacy::CONFIG_VECTOR => self.interrupts.set_config_vector(value as u16),
            legacy::QUEUE_VECTOR => self.interrupts.set_queue_vector(selected, value as u16),
            _ => {}
        }
    }

    fn legacy_queue(&self, selected: u16, page: u32) {
        let Some(queue) = self.device.queue(selected) else { return };
        if page == 0 {
            return self.device.change_queue(selected, QueueChange::Disable);
        }
        let place = place(page, queue.size_max);
        self.device.change_queue(selected, QueueChange::Place(place));
        self.device.change_queue(selected, QueueChange::Enable);
    }
}
