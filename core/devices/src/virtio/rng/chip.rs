//! The chip: chains that wait for bytes.

use alloc::vec::Vec;

use kasane_spec_virtio::device_type;

use crate::virtio::queue::{len, scatter};
use crate::virtio::{Chain, ChipDoesNotFit, Io, QueueError, VirtioChip};

/// Entries of the queue.
const QUEUE_SIZE: u16 = 8;
/// The most bytes that a chain gets.
pub(super) const BYTES_MAX: u64 = 4096;

/// What the device asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RngEffect {
    /// So many random bytes, by [`Rng::give`].
    Wanted {
        /// Bytes.
        len: usize,
    },
}

/// An entropy source.
#[derive(Clone, Debug, Default)]
pub struct Rng {
    waiting: Vec<Chain>,
}

fn wanted(chain: &Chain) -> usize {
    len(&chain.writable).min(BYTES_MAX) as usize
}

impl Rng {
    /// Gives the chains that wait the bytes that were asked for.
    pub fn give(&mut self, mut bytes: &[u8], io: &mut Io<'_, RngEffect>) {
        while let Some(chain) = self.waiting.first() {
            let Some((now, rest)) = bytes.split_at_checked(wanted(chain)) else { break };
            bytes = rest;
            let chain = self.waiting.remove(0);
            match scatter(io.memory(), &chain.writable, 0, now) {
                Ok(written) => io.push(0, chain.id, written as u32),
                Err(error) => io.fail(error.into()),
            }
        }
        io.signal(0);
    }
}

impl VirtioChip for Rng {
    type Effect = RngEffect;
    type Form = ();
    const NAME: &'static str = "virtio-rng";
    const DEVICE_TYPE: u16 = device_type::ENTROPY;
    const FORM_VERSION: u32 = 1;

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        alloc::vec![QUEUE_SIZE]
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn reset(&mut self, _effects: &mut Vec<RngEffect>) {
        self.waiting.clear();
    }

    fn notified(&mut self, queue: u16, io: &mut Io<'_, RngEffect>) {
        let mut asked = 0usize;
        while let Some(chain) = io.pop(queue) {
            // §5.4.6.1: the driver offers only what can be written.
            if !chain.readable.is_empty() || chain.writable.is_empty() {
                return io.fail(QueueError::BadRequest);
            }
            asked = asked.saturating_add(wanted(&chain));
            self.waiting.push(chain);
        }
        if asked != 0 {
            io.effect(RngEffect::Wanted { len: asked });
        }
    }

    /// Bytes come before the doorbell's exit is answered, so nothing waits while the machine is
    /// paused.
    fn save(&self) {}

    fn restore(&mut self, (): ()) -> Result<(), ChipDoesNotFit> {
        self.waiting.clear();
        Ok(())
    }
}
