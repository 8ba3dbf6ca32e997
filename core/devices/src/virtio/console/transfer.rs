//! Bytes: out of transmit queues and into receive queues.

use alloc::vec::Vec;

use super::chip::{ConsoleEffect, VirtioConsole, receive_queue};
use crate::virtio::queue::{gather, len, scatter};
use crate::virtio::{Chain, Io, QueueError};

/// The most bytes that are taken at a time.
const CHUNK: u64 = 32 << 10;

/// Where a port is with its output.
#[derive(Clone, Debug, Default)]
pub(super) struct Sending {
    /// Someone takes it and will look for more: two doorbells at once must not mix it up.
    busy: bool,
    /// A chain that is taken in part, and how far.
    chain: Option<(Chain, u64)>,
}

impl VirtioConsole {
    /// The driver has made output available.
    pub(super) fn has_output(&mut self, port: usize, io: &mut Io<'_, ConsoleEffect>) {
        if let Some(to) = self.ports.get_mut(port)
            && !to.sending.busy
        {
            to.sending.busy = true;
            io.effect(ConsoleEffect::Output { port });
        }
    }

    /// Takes the next piece of a port's output; `None` if that was all.
    pub(super) fn take_output(
        &mut self,
        port: usize,
        io: &mut Io<'_, ConsoleEffect>,
    ) -> Option<Vec<u8>> {
        let queue = receive_queue(port).wrapping_add(1);
        let sending = &mut self.ports.get_mut(port)?.sending;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < CHUNK {
            let waiting = sending.chain.take().or_else(|| io.pop(queue).map(|chain| (chain, 0)));
            let Some((chain, from)) = waiting else {
                sending.busy = !bytes.is_empty();
                io.signal(queue);
                break;
            };
            if !chain.writable.is_empty() {
                io.fail(QueueError::BadRequest);
                continue;
            }
            let total = len(&chain.readable);
            let start = bytes.len();
            let now = total.saturating_sub(from).min(CHUNK.saturating_sub(start as u64));
            bytes.resize(start.saturating_add(now as usize), 0);
            let to = bytes.get_mut(start..).unwrap_or_default();
            if let Err(error) = gather(io.memory(), &chain.readable, from, to) {
                bytes.truncate(start);
                io.fail(error.into());
                continue;
            }
            let until = from.saturating_add(now);
            if until < total {
                sending.chain = Some((chain, until));
            } else {
                io.push(queue, chain.id, 0);
            }
        }
        (!bytes.is_empty()).then_some(bytes)
    }

    /// The driver may have room for input.
    pub(super) fn has_room(&mut self, port: usize, io: &mut Io<'_, ConsoleEffect>) {
        let open = self.is_open(port);
        if let Some(to) = self.ports.get_mut(port)
            && open
            && core::mem::take(&mut to.starved)
        {
            io.effect(ConsoleEffect::Room { port });
        }
    }

    /// Gives the driver input for a port: how many bytes it had room for.
    pub(super) fn receive(
        &mut self,
        port: usize,
        bytes: &[u8],
        io: &mut Io<'_, ConsoleEffect>,
    ) -> usize {
        let queue = receive_queue(port);
        let mut taken = 0usize;
        while self.is_open(port) {
            let rest = bytes.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            let Some(chain) = io.pop(queue) else { break };
            match scatter(io.memory(), &chain.writable, 0, rest) {
                // §5.3.6.1: the driver offers only what can be written.
                Ok(0) => io.fail(QueueError::BadRequest),
                Ok(written) => {
                    io.push(queue, chain.id, written as u32);
                    taken = taken.saturating_add(written);
                }
                Err(error) => io.fail(error.into()),
            }
        }
        io.signal(queue);
        if let Some(port) = self.ports.get_mut(port) {
            port.starved |= taken < bytes.len();
        }
        taken
    }
}
