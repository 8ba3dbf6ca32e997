//! What a chip may do while it is called.

use alloc::vec::Vec;

use kasane_memory::GuestMemory;

use super::queue::{Chain, ChainId, Queue, QueueError};

/// What came out of a call, to be applied after unlocking.
#[derive(Debug)]
pub(super) struct Outputs<E> {
    pub(super) effects: Vec<E>,
    /// Queues whose drivers want to be interrupted.
    pub(super) signals: Vec<u16>,
    /// The configuration, or the status, has changed.
    pub(super) config_changed: bool,
}

impl<E> Default for Outputs<E> {
    fn default() -> Self {
        Self { effects: Vec::new(), signals: Vec::new(), config_changed: false }
    }
}

/// A chip's queues, guest memory, and its way out. When a queue turns out to make no sense, the
/// device needs a reset: from then on there are no chains, and pushes do nothing.
pub struct Io<'a, E> {
    pub(super) memory: &'a dyn GuestMemory,
    pub(super) features: u64,
    /// The driver is ready, and no reset is under way.
    pub(super) running: bool,
    pub(super) queues: &'a mut [Queue],
    pub(super) broken: &'a mut Option<QueueError>,
    pub(super) out: &'a mut Outputs<E>,
}

impl<'a, E> Io<'a, E> {
    /// Guest memory.
    #[must_use]
    pub fn memory(&self) -> &'a dyn GuestMemory {
        self.memory
    }

    /// What the driver has accepted. Without `VERSION_1` it uses the legacy interface.
    #[must_use]
    pub const fn features(&self) -> u64 {
        self.features
    }

    /// Whether all bits of `feature` were accepted.
    #[must_use]
    pub const fn has(&self, feature: u64) -> bool {
        self.features & feature == feature
    }

    /// Whether the driver is ready, the device whole and no reset under way: queues can be used.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.running && self.broken.is_none()
    }

    /// Whether a queue is on.
    #[must_use]
    pub fn is_enabled(&self, queue: u16) -> bool {
        self.queues.get(usize::from(queue)).is_some_and(Queue::is_enabled)
    }

    fn with_queue<T: Default>(
        &mut self,
        queue: u16,
        call: impl FnOnce(&mut Queue, &dyn GuestMemory, u64) -> Result<T, QueueError>,
    ) -> T {
        if !self.is_running() {
            return T::default();
        }
        let Some(queue) = self.queues.get_mut(usize::from(queue)) else { return T::default() };
        match call(queue, self.memory, self.features) {
            Ok(value) => value,
            Err(error) => {
                self.fail(error);
                T::default()
            }
        }
    }

    /// Takes the next chain of `queue`. After `None` the driver notifies of the next one.
    pub fn pop(&mut self, queue: u16) -> Option<Chain> {
        self.with_queue(queue, |queue, memory, features| queue.pop(memory, features))
    }

    /// Takes back the last `pop` of `queue`: the chain will come again. Several go back in reverse
    /// order, with no `push` in between.
    pub fn put_back(&mut self, queue: u16, id: ChainId) {
        self.with_queue(queue, |queue, _, _| {
            queue.put_back(id);
            Ok(())
        });
    }

    /// Gives a chain back, of whose writable part `written` bytes are filled from the beginning on.
    /// The driver hears of it by the next [`signal`](Self::signal).
    pub fn push(&mut self, queue: u16, id: ChainId, written: u32) {
        self.push_together(queue, &[(id, written)]);
    }

    /// Gives back several chains, all of which the driver sees at once, as it must with a frame
    /// that fills several (§5.1.6.4.1).
    pub fn push_together(&mut self, queue: u16, chains: &[(ChainId, u32)]) {
        self.with_queue(queue, |queue, memory, features| queue.push(memory, features, chains));
    }

    /// Interrupts the driver for what was pushed, if it wants that. Once for many is best.
    pub fn signal(&mut self, queue: u16) {
        let wanted =
            self.with_queue(queue, |queue, memory, features| queue.wants_signal(memory, features));
        if wanted && !self.out.signals.contains(&queue) {
            self.out.signals.push(queue);
        }
    }

    /// Asks for an effect.
    pub fn effect(&mut self, effect: E) {
        self.out.effects.push(effect);
    }

    /// The device's configuration has changed: its generation goes up, the driver is told.
    pub fn config_changed(&mut self) {
        self.out.config_changed = true;
    }

    /// Something that the driver did makes no sense: the device needs a reset (§2.1.2).
    pub fn fail(&mut self, error: QueueError) {
        self.broken.get_or_insert(error);
    }
}
