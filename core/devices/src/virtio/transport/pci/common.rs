//! The common configuration (virtio 1.2 §4.1.4.3).

use kasane_cpu::AccessSize;
use kasane_spec_virtio::pci::common;
use lock_api::RawMutex;

use super::super::{Area, Half, half, with_half};
use super::function::VirtioPci;
use crate::virtio::QueueChange;

impl<R: RawMutex + Send + Sync> VirtioPci<R> {
    /// A read. Fields are read whole, 64-bit ones by halves (§4.1.3.1); what goes over a field's
    /// end reads as zeros there.
    pub(super) fn common_read(&self, offset: u32, size: AccessSize) -> u64 {
        let (start, value) = self.common_field(offset);
        let shift = offset.wrapping_sub(start).saturating_mul(8);
        value.checked_shr(shift).unwrap_or_default() & size.mask()
    }

    /// Where the field of `offset` starts, and its value.
    fn common_field(&self, offset: u32) -> (u32, u64) {
        let selected = *self.selectors.lock();
        let queue = self.device.queue(selected.queue);
        let place = queue.map(|queue| queue.place).unwrap_or_default();
        match offset {
            common::DEVICE_FEATURE_SELECT..common::DEVICE_FEATURE => {
                (common::DEVICE_FEATURE_SELECT, selected.device_features.into())
            }
            common::DEVICE_FEATURE..common::DRIVER_FEATURE_SELECT => {
                let value = half(self.device.offered(), selected.device_features);
                (common::DEVICE_FEATURE, value.into())
            }
            common::DRIVER_FEATURE_SELECT..common::DRIVER_FEATURE => {
                (common::DRIVER_FEATURE_SELECT, selected.driver_features.into())
            }
            common::DRIVER_FEATURE..common::CONFIG_VECTOR => {
                let value = half(self.device.accepted(), selected.driver_features);
                (common::DRIVER_FEATURE, value.into())
            }
            common::CONFIG_VECTOR..common::NUM_QUEUES => {
                (common::CONFIG_VECTOR, self.interrupts.config_vector().into())
            }
            common::NUM_QUEUES..common::STATUS => {
                (common::NUM_QUEUES, self.device.queue_count().into())
            }
            common::STATUS => (common::STATUS, self.device.status().into()),
            common::CONFIG_GENERATION => {
                (common::CONFIG_GENERATION, self.device.config_generation().into())
            }
            common::QUEUE_SELECT..common::QUEUE_SIZE => {
                (common::QUEUE_SELECT, selected.queue.into())
            }
            // 0 where there is no such queue.
            common::QUEUE_SIZE..common::QUEUE_VECTOR => (common::QUEUE_SIZE, place.size.into()),
            common::QUEUE_VECTOR..common::QUEUE_ENABLE => {
                (common::QUEUE_VECTOR, self.interrupts.queue_vector(selected.queue).into())
            }
            common::QUEUE_ENABLE..common::QUEUE_NOTIFY_OFF => {
                (common::QUEUE_ENABLE, queue.is_some_and(|queue| queue.enabled).into())
            }
            common::QUEUE_NOTIFY_OFF..common::QUEUE_DESC => {
                (common::QUEUE_NOTIFY_OFF, selected.queue.into())
            }
            common::QUEUE_DESC..common::QUEUE_DRIVER => (common::QUEUE_DESC, place.descriptors),
            common::QUEUE_DRIVER..common::QUEUE_DEVICE => (common::QUEUE_DRIVER, place.driver),
            common::QUEUE_DEVICE..common::QUEUE_NOTIFY_DATA => (common::QUEUE_DEVICE, place.device),
            // Features that are not offered.
            common::QUEUE_NOTIFY_DATA.. => (offset, 0),
        }
    }

    /// A write. Only whole fields and halves of 64-bit ones are known; others are ignored.
    pub(super) fn common_write(&self, offset: u32, size: AccessSize, value: u64) {
        match (offset, size) {
            (common::DEVICE_FEATURE_SELECT, AccessSize::Dword) => {
                self.selectors.lock().device_features = value as u32;
            }
            (common::DRIVER_FEATURE_SELECT, AccessSize::Dword) => {
                self.selectors.lock().driver_features = value as u32;
            }
            (common::DRIVER_FEATURE, AccessSize::Dword) => {
                let select = self.selectors.lock().driver_features;
                self.device.accept(with_half(self.device.accepted(), select, value as u32));
            }
            (common::CONFIG_VECTOR, AccessSize::Word) => {
                self.interrupts.set_config_vector(value as u16);
            }
            (common::STATUS, AccessSize::Byte) => self.set_status(value as u8),
            (common::QUEUE_SELECT, AccessSize::Word) => {
                self.selectors.lock().queue = value as u16;
            }
            (common::QUEUE_SIZE.., _) => self.queue_write(offset, size, value),
            _ => {}
        }
    }

    fn queue_write(&self, offset: u32, size: AccessSize, value: u64) {
        let selected = self.selectors.lock().queue;
        let Some(queue) = self.device.queue(selected) else { return };
        let mut place = queue.place;
        let area = match (offset & !4, size) {
            (common::QUEUE_DESC, AccessSize::Dword) => Some(Area::Descriptors),
            (common::QUEUE_DRIVER, AccessSize::Dword) => Some(Area::Driver),
            (common::QUEUE_DEVICE, AccessSize::Dword) => Some(Area::Device),
            _ => None,
        };
        if let Some(area) = area {
            let half = if offset & 4 == 0 { Half::Low } else { Half::High };
            half.put(area.of(&mut place), value as u32);
            return self.device.change_queue(selected, QueueChange::Place(place));
        }
        match (offset, size) {
            (common::QUEUE_SIZE, AccessSize::Word) => {
                place.size = value as u16;
                self.device.change_queue(selected, QueueChange::Place(place));
            }
            (common::QUEUE_VECTOR, AccessSize::Word) => {
                self.interrupts.set_queue_vector(selected, value as u16);
            }
            // 0 must not be written (§4.1.4.3.2).
            (common::QUEUE_ENABLE, AccessSize::Word) if value == 1 => {
                self.device.change_queue(selected, QueueChange::Enable);
            }
            _ => {}
        }
    }
}
