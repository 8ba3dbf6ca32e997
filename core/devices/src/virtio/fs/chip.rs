//! The chip: requests that are under way.

use alloc::vec::Vec;

use kasane_ports::ShareRequest;
use kasane_spec_virtio::device_type;
use kasane_spec_virtio::fs::config;

use crate::virtio::queue::len;
use crate::virtio::{ChainId, ChipDoesNotFit, Io, QueueError, VirtioChip};

/// The longest name of a file system, in bytes.
pub const TAG_LEN: usize = config::TAG_LEN;
/// Entries of each queue: with an indirect table a request takes one.
const QUEUE_SIZE: u16 = 256;
/// Queues: one for messages that may not wait, one for all others.
const QUEUES: usize = 2;

/// What the device asks of the server.
#[derive(Debug, PartialEq, Eq)]
pub enum FsEffect {
    /// These requests.
    Submit(Vec<ShareRequest>),
    /// Wait until nothing is under way, and forget what the guest had open.
    Reset,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    token: u64,
    queue: u16,
    id: ChainId,
    /// Bytes of the room for the answer.
    room: u64,
}

/// A file system.
#[derive(Clone, Debug)]
pub struct Fs {
    tag: [u8; TAG_LEN],
    pending: Vec<Pending>,
    /// The next request's token.
    next: u64,
}

impl Fs {
    /// The file system that the guest mounts by `tag`: UTF-8, of which the first [`TAG_LEN`] bytes
    /// are told.
    #[must_use]
    pub fn new(tag: &str) -> Self {
        let mut bytes = [0; TAG_LEN];
        let tag = tag.get(..tag.floor_char_boundary(TAG_LEN)).unwrap_or_default();
        for (to, from) in bytes.iter_mut().zip(tag.bytes()) {
            *to = from;
        }
        Self { tag: bytes, pending: Vec::new(), next: 0 }
    }

    /// Requests that are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.pending.len()
    }

    /// A request is done.
    pub(super) fn completed(&mut self, token: u64, written: u32, io: &mut Io<'_, FsEffect>) {
        let Some(at) = self.pending.iter().position(|pending| pending.token == token) else {
            // It was forgotten by a reset.
            return;
        };
        let Pending { queue, id, room, .. } = self.pending.swap_remove(at);
        io.push(queue, id, u64::from(written).min(room) as u32);
        io.signal(queue);
    }
}

impl VirtioChip for Fs {
    type Effect = FsEffect;
    type Form = ();
    const NAME: &'static str = "virtio-fs";
    const DEVICE_TYPE: u16 = device_type::FILE_SYSTEM;
    const FORM_VERSION: u32 = 1;

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        alloc::vec![QUEUE_SIZE; QUEUES]
    }

    fn config(&self) -> Vec<u8> {
        let requests = (QUEUES - 1) as u32;
        self.tag.into_iter().chain(requests.to_le_bytes()).collect()
    }

    fn reset(&mut self, effects: &mut Vec<FsEffect>) {
        self.pending.clear();
        effects.push(FsEffect::Reset);
    }

    fn notified(&mut self, queue: u16, io: &mut Io<'_, FsEffect>) {
        let mut batch = Vec::new();
        while let Some(chain) = io.pop(queue) {
            if chain.readable.is_empty() {
                io.fail(QueueError::BadRequest);
                break;
            }
            let token = self.next;
            self.next = self.next.wrapping_add(1);
            let room = len(&chain.writable);
            self.pending.push(Pending { token, queue, id: chain.id, room });
            batch.push(ShareRequest { token, message: chain.readable, answer: chain.writable });
        }
        if !batch.is_empty() {
            io.effect(FsEffect::Submit(batch));
        }
    }

    fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }

    /// What the guest has open is the server's, and doesn't outlive its process.
    fn save(&self) {}

    fn restore(&mut self, (): ()) -> Result<(), ChipDoesNotFit> {
        self.pending.clear();
        Ok(())
    }
}
