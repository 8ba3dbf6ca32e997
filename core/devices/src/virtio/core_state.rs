//! What all devices have in common: the status, the features and the queues (virtio 1.2 §2, §3).

use alloc::vec::Vec;

use kasane_memory::GuestMemory;
use kasane_spec_virtio::{feature, status};

use super::chip::VirtioChip;
use super::io::{Io, Outputs};
use super::queue::{Queue, QueueError, QueuePlace, RingForm};

/// Which drivers a device is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interface {
    /// Those that know virtio 1.
    #[default]
    Modern,
    /// Those of before too (§1.3.1).
    Transitional,
}

/// What a device offers besides the features of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Which drivers it is for.
    pub interface: Interface,
    /// Whether the driver may choose packed rings.
    pub best_form: RingForm,
}

impl Default for Offer {
    fn default() -> Self {
        Self { interface: Interface::Modern, best_form: RingForm::Split }
    }
}

impl Offer {
    const fn features(self) -> u64 {
        let mut features = feature::VERSION_1 | feature::INDIRECT_DESC | feature::EVENT_IDX;
        if matches!(self.best_form, RingForm::Packed) {
            features |= feature::RING_PACKED;
        }
        if matches!(self.interface, Interface::Transitional) {
            features |= feature::LEGACY_ANY_LAYOUT;
        }
        features
    }
}

/// What a driver sees of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueRegisters {
    /// The most entries.
    pub size_max: u16,
    /// Where it is.
    pub place: QueuePlace,
    /// Whether it is on.
    pub enabled: bool,
}

/// What a driver may do to a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueChange {
    /// Says where it will be.
    Place(QueuePlace),
    /// Switches it on.
    Enable,
    /// Legacy and MMIO: switches it off.
    Disable,
}

/// A device without its lock.
pub struct VirtioCore<C: VirtioChip> {
    pub(super) chip: C,
    offered: u64,
    interface: Interface,
    pub(super) status: u8,
    pub(super) accepted: u64,
    pub(super) generation: u8,
    pub(super) queues: Vec<Queue>,
    /// Why the device needs a reset.
    pub(super) broken: Option<QueueError>,
    /// Between the two halves of a reset.
    resetting: bool,
}

impl<C: VirtioChip> VirtioCore<C> {
    /// A device after power-on.
    #[must_use]
    pub fn new(chip: C, offer: Offer) -> Self {
        Self {
            offered: (chip.features() & feature::DEVICE_TYPE) | offer.features(),
            interface: offer.interface,
            queues: chip.queue_sizes().into_iter().map(Queue::new).collect(),
            chip,
            status: 0,
            accepted: 0,
            generation: 0,
            broken: None,
            resetting: false,
        }
    }

    /// What is offered.
    #[must_use]
    pub const fn offered(&self) -> u64 {
        self.offered
    }

    /// What the driver has accepted so far.
    #[must_use]
    pub const fn accepted(&self) -> u64 {
        self.accepted
    }

    /// The driver says what it accepts: until that is agreed on (§3.1.1), or a queue is on, whose
    /// form follows from it.
    pub fn accept(&mut self, features: u64) {
        let agreed = self.status & (status::FEATURES_OK | status::DRIVER_OK) != 0;
        if !agreed && !self.resetting && !self.queues.iter().any(Queue::is_enabled) {
            self.accepted = features;
        }
    }

    /// The status as the driver reads it.
    #[must_use]
    pub fn status(&self) -> u8 {
        let broken = if self.broken.is_some() { status::NEEDS_RESET } else { 0 };
        self.status | broken
    }

    /// Why the device needs a reset, if it does.
    #[must_use]
    pub const fn broken(&self) -> Option<QueueError> {
        self.broken
    }

    /// Counts changes of the configuration (§2.5.1).
    #[must_use]
    pub const fn generation(&self) -> u8 {
        self.generation
    }

    /// The chip.
    #[must_use]
    pub const fn chip(&self) -> &C {
        &self.chip
    }

    const fn is_running(&self) -> bool {
        self.status & status::DRIVER_OK != 0 && !self.resetting
    }

    /// Whether a driver may choose `features`; `needed` must be among them.
    pub(super) fn agrees(&self, features: u64, needed: u64) -> bool {
        features & !self.offered == 0
            && features & needed == needed
            && self.chip.accepts(features & feature::DEVICE_TYPE)
    }

    /// The driver sets bits of the status; it can't clear any but by a reset (§2.1.1). What it may
    /// not say yet is left out, as with features that don't agree (§3.1.1 item 6).
    pub(super) fn set_status(
        &mut self,
        value: u8,
        memory: &dyn GuestMemory,
        out: &mut Outputs<C::Effect>,
    ) {
        if self.resetting {
            return;
        }
        let asked = value & !self.status;
        let simple = status::ACKNOWLEDGE | status::DRIVER | status::FAILED;
        self.status |= asked & simple;
        if asked & status::FEATURES_OK != 0 && self.agrees(self.accepted, feature::VERSION_1) {
            self.status |= status::FEATURES_OK;
        }
        if asked & status::DRIVER_OK != 0 && self.may_run() {
            self.status |= status::DRIVER_OK;
            self.call(memory, out, |chip, io| chip.activate(io));
            for queue in 0..self.queues.len() as u16 {
                self.notified(queue, memory, out);
            }
        }
    }

    /// A legacy driver has nothing to say between its features and `DRIVER_OK` (§3.1.2).
    fn may_run(&self) -> bool {
        let legacy = self.interface == Interface::Transitional
            && self.accepted & feature::VERSION_1 == 0
            && self.agrees(self.accepted, 0);
        self.status & status::FEATURES_OK != 0 || legacy
    }

    /// The first half of a reset: everything is forgotten, but the status still reads as before.
    pub(super) fn begin_reset(&mut self, effects: &mut Vec<C::Effect>) {
        self.resetting = true;
        self.chip.reset(effects);
        self.queues.iter_mut().for_each(Queue::reset);
    }

    /// The second half: the driver may start again.
    pub(super) fn finish_reset(&mut self) {
        self.resetting = false;
        self.status = 0;
        self.accepted = 0;
        self.broken = None;
    }

    /// Whether the second half of a reset is still to come.
    pub(super) const fn is_resetting(&self) -> bool {
        self.resetting
    }

    /// Whether the device can have been saved with this status and these features.
    pub(super) fn can_have(&self, saved: u8, accepted: u64) -> bool {
        let agreed = saved & (status::FEATURES_OK | status::DRIVER_OK) != 0;
        !agreed || self.agrees(accepted, 0)
    }

    /// Takes over a saved state that it can have.
    pub(super) fn take_over(&mut self, saved: u8, accepted: u64, queues: Vec<Queue>) {
        self.status = saved & !status::NEEDS_RESET;
        self.accepted = accepted;
        self.broken = (saved & status::NEEDS_RESET != 0).then_some(QueueError::BadRequest);
        self.queues = queues;
        self.resetting = false;
    }

    /// How many queues there are.
    #[must_use]
    pub fn queue_count(&self) -> u16 {
        self.queues.len() as u16
    }

    /// What the driver sees of a queue.
    #[must_use]
    pub fn queue(&self, queue: u16) -> Option<QueueRegisters> {
        self.queues.get(usize::from(queue)).map(|queue| QueueRegisters {
            size_max: queue.size_max(),
            place: queue.place(),
            enabled: queue.is_enabled(),
        })
    }

    /// The driver changes a queue.
    pub(super) fn change_queue(&mut self, queue: u16, change: QueueChange) {
        if self.resetting {
            return;
        }
        let form = RingForm::of(self.accepted);
        let Some(queue) = self.queues.get_mut(usize::from(queue)) else { return };
        match change {
            QueueChange::Place(place) => queue.set_place(place),
            QueueChange::Enable => {
                if let Err(error) = queue.enable(form) {
                    self.broken.get_or_insert(error);
                }
            }
            QueueChange::Disable => queue.reset(),
        }
    }

    /// Calls the chip.
    pub(super) fn call<T>(
        &mut self,
        memory: &dyn GuestMemory,
        out: &mut Outputs<C::Effect>,
        call: impl FnOnce(&mut C, &mut Io<'_, C::Effect>) -> T,
    ) -> T {
        let whole = self.broken.is_none();
        let running = self.is_running();
        let mut io = Io {
            memory,
            features: self.accepted,
            running,
            queues: &mut self.queues,
            broken: &mut self.broken,
            out,
        };
        let result = call(&mut self.chip, &mut io);
        if whole && self.broken.is_some() {
            // §2.1.2: the driver of a running device is told.
            out.config_changed = true;
        }
        if out.config_changed {
            self.generation = self.generation.wrapping_add(1);
        }
        out.config_changed &= running;
        result
    }

    /// The driver has notified a queue.
    pub(super) fn notified(
        &mut self,
        queue: u16,
        memory: &dyn GuestMemory,
        out: &mut Outputs<C::Effect>,
    ) {
        let on = self.queues.get(usize::from(queue)).is_some_and(Queue::is_enabled);
        if on && self.is_running() && self.broken.is_none() {
            self.call(memory, out, |chip, io| chip.notified(queue, io));
        }
    }
}
