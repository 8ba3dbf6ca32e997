//! A device in its socket: the lock around it, and what its outputs are connected to.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kasane_memory::GuestMemory;
use lock_api::{Mutex, RawMutex};

use super::chip::VirtioChip;
use super::core_state::{Offer, QueueChange, QueueRegisters, VirtioCore};
use super::io::{Io, Outputs};
use super::saved;
use crate::saved::{RestoreError, Saved, Section};

/// How a device interrupts its driver: the transport's side. Called without a lock of the device.
pub trait VirtioInterrupts: Send + Sync {
    /// Buffers of `queue` were used (§2.3).
    fn queue(&self, queue: u16);
    /// The configuration or the status has changed.
    fn config(&self);
}

/// A device as a transport sees it.
pub trait VirtioDevice: Send + Sync {
    /// A short stable name.
    fn name(&self) -> &'static str;
    /// Device type (§5).
    fn device_type(&self) -> u16;
    /// Features that are offered.
    fn offered(&self) -> u64;
    /// Features that the driver has accepted.
    fn accepted(&self) -> u64;
    /// The driver says what it accepts.
    fn accept(&self, features: u64);
    /// Device status.
    fn status(&self) -> u8;
    /// The driver writes the status; 0 resets.
    fn set_status(&self, value: u8);
    /// How many queues there are.
    fn queue_count(&self) -> u16;
    /// What the driver sees of a queue.
    fn queue(&self, queue: u16) -> Option<QueueRegisters>;
    /// The driver changes a queue.
    fn change_queue(&self, queue: u16, change: QueueChange);
    /// The driver notifies a queue.
    fn notify(&self, queue: u16);
    /// Counts changes of the configuration.
    fn config_generation(&self) -> u8;
    /// Reads the device's configuration; what is beyond it reads as zeros.
    fn config_read(&self, offset: u32, to: &mut [u8]);
    /// The driver writes the device's configuration.
    fn config_write(&self, offset: u32, data: &[u8]);
}

/// What a device is connected to.
pub struct VirtioWiring<E> {
    /// Guest memory.
    pub memory: Arc<dyn GuestMemory>,
    /// The transport.
    pub interrupts: Arc<dyn VirtioInterrupts>,
    /// Takes effects. Called without a lock of the device.
    pub effects: Box<dyn Fn(E) + Send + Sync>,
    /// Waits until nothing is under way in the backend, before the device is saved.
    pub settle: Box<dyn Fn() + Send + Sync>,
}

impl<E> VirtioWiring<E> {
    /// Memory and interrupts, and no backend.
    #[must_use]
    pub fn new(memory: Arc<dyn GuestMemory>, interrupts: Arc<dyn VirtioInterrupts>) -> Self {
        Self { memory, interrupts, effects: Box::new(|_| {}), settle: Box::new(|| {}) }
    }
    /// Who takes effects.
    #[must_use]
    pub fn effects(mut self, effects: impl Fn(E) + Send + Sync + 'static) -> Self {
        self.effects = Box::new(effects);
        self
    }
    /// What waits until nothing is under way.
    #[must_use]
    pub fn settle(mut self, settle: impl Fn() + Send + Sync + 'static) -> Self {
        self.settle = Box::new(settle);
        self
    }
}

/// A change that waits for the release of its device.
type Change<C> = Box<dyn FnOnce(&mut C, &mut Io<'_, <C as VirtioChip>::Effect>) + Send>;

/// Where a backend comes in; see the module's head.
struct Gate<C: VirtioChip> {
    /// Holds that were not released.
    holds: u32,
    /// What is to be done then, in order.
    later: Vec<Change<C>>,
}

/// A device behind its lock, with its outputs connected.
pub struct VirtioSocket<R: RawMutex, C: VirtioChip> {
    section: String,
    gate: Mutex<R, Gate<C>>,
    core: Mutex<R, VirtioCore<C>>,
    wiring: VirtioWiring<C::Effect>,
}

impl<R: RawMutex, C: VirtioChip> VirtioSocket<R, C> {
    /// Puts a chip into a socket; `name` is the device's own (`vda`), stable as long as it is saved.
    #[must_use]
    pub fn new(name: &str, chip: C, offer: Offer, wiring: VirtioWiring<C::Effect>) -> Self {
        let section = alloc::format!("{}.{name}", C::NAME);
        let gate = Mutex::new(Gate { holds: 0, later: Vec::new() });
        Self { section, gate, core: Mutex::new(VirtioCore::new(chip, offer)), wiring }
    }

    /// Calls the chip for a backend, as [`with`](Self::with) does; `None` while the device is held.
    pub fn reach<T>(&self, call: impl FnOnce(&mut C, &mut Io<'_, C::Effect>) -> T) -> Option<T> {
        let gate = self.gate.lock();
        (gate.holds == 0).then(|| self.with(call))
    }

    /// Changes the chip from outside: now, or when the device is not held any more.
    pub fn change(&self, call: impl FnOnce(&mut C, &mut Io<'_, C::Effect>) + Send + 'static) {
        let mut gate = self.gate.lock();
        if gate.holds == 0 {
            self.with(call);
        } else {
            gate.later.push(Box::new(call));
        }
    }

    /// Calls the chip, then applies what came out of it. What isn't a vCPU or a completion comes
    /// by [`reach`](Self::reach).
    pub fn with<T>(&self, call: impl FnOnce(&mut C, &mut Io<'_, C::Effect>) -> T) -> T {
        self.run(|core, memory, out| core.call(memory, out, call))
    }

    /// Looks at the device without changing it.
    pub fn inspect<T>(&self, look: impl FnOnce(&VirtioCore<C>) -> T) -> T {
        look(&self.core.lock())
    }

    fn run<T>(
        &self,
        call: impl FnOnce(&mut VirtioCore<C>, &dyn GuestMemory, &mut Outputs<C::Effect>) -> T,
    ) -> T {
        let mut out = Outputs::default();
        let mut core = self.core.lock();
        let result = call(&mut core, &*self.wiring.memory, &mut out);
        drop(core);
        let Outputs { effects, signals, config_changed } = out;
        for effect in effects {
            (self.wiring.effects)(effect);
        }
        for queue in signals {
            self.wiring.interrupts.queue(queue);
        }
        if config_changed {
            self.wiring.interrupts.config();
        }
        result
    }

    /// Two halves, with the effects (which may wait) in between; see the module's head.
    fn reset(&self) {
        let mut effects = Vec::new();
        let mut core = self.core.lock();
        if core.is_resetting() {
            return;
        }
        core.begin_reset(&mut effects);
        drop(core);
        for effect in effects {
            (self.wiring.effects)(effect);
        }
        self.core.lock().finish_reset();
    }
}

impl<R: RawMutex + Send + Sync, C: VirtioChip> VirtioDevice for VirtioSocket<R, C> {
    fn name(&self) -> &'static str {
        C::NAME
    }
    fn device_type(&self) -> u16 {
        C::DEVICE_TYPE
    }
    fn offered(&self) -> u64 {
        self.core.lock().offered()
    }
    fn accepted(&self) -> u64 {
        self.core.lock().accepted()
    }
    fn accept(&self, features: u64) {
        self.core.lock().accept(features);
    }
    fn status(&self) -> u8 {
        self.core.lock().status()
    }
    fn set_status(&self, value: u8) {
        match value {
            0 => self.reset(),
            _ => self.run(|core, memory, out| core.set_status(value, memory, out)),
        }
    }
    fn queue_count(&self) -> u16 {
        self.core.lock().queue_count()
    }
    fn queue(&self, queue: u16) -> Option<QueueRegisters> {
        self.core.lock().queue(queue)
    }
    fn change_queue(&self, queue: u16, change: QueueChange) {
        self.core.lock().change_queue(queue, change);
    }
    fn notify(&self, queue: u16) {
        self.run(|core, memory, out| core.notified(queue, memory, out));
    }
    fn config_generation(&self) -> u8 {
        self.core.lock().generation()
    }
    fn config_read(&self, offset: u32, to: &mut [u8]) {
        let config = self.core.lock().chip().config();
        let rest = config.into_iter().skip(offset as usize).chain(core::iter::repeat(0));
        for (to, from) in to.iter_mut().zip(rest) {
            *to = from;
        }
    }
    fn config_write(&self, offset: u32, data: &[u8]) {
        self.with(|chip, io| chip.config_write(offset, data, io));
    }
}

impl<R: RawMutex + Send + Sync, C: VirtioChip> Saved for VirtioSocket<R, C> {
    fn section_name(&self) -> &str {
        &self.section
    }
    fn hold(&self) {
        let mut gate = self.gate.lock();
        gate.holds = gate.holds.saturating_add(1);
        if gate.holds == 1 {
            self.with(C::hold);
        }
    }
    fn release(&self) {
        let mut gate = self.gate.lock();
        gate.holds = gate.holds.saturating_sub(1);
        if gate.holds == 0 {
            core::mem::take(&mut gate.later).into_iter().for_each(|change| self.with(change));
            self.with(C::release);
        }
    }
    fn settle(&self) {
        // What is completed may ask for more: a write that is to be durable for its flush.
        loop {
            (self.wiring.settle)();
            if self.inspect(|core| core.chip().is_settled()) {
                return;
            }
        }
    }
    fn save(&self) -> Section {
        saved::save(&self.core.lock(), &self.section)
    }
    fn restore(&self, section: &Section) -> Result<(), RestoreError> {
        // What is under way belongs to the state that is left.
        self.settle();
        saved::restore(&mut self.core.lock(), &self.section, section)
    }
}
