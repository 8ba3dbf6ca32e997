//! Frames: from the driver's transmit queues, and into its receive queues.

use alloc::vec::Vec;

use kasane_memory::{GuestMemory, MemoryError};
use kasane_ports::{FrameOffload, Given};
use kasane_spec_virtio::feature as common;
use kasane_spec_virtio::net::{feature, header};

use super::chip::{Net, NetEffect};
use super::filter::VlanFilter;
use super::flow::LOOKED_AT;
use super::header as offload_header;
use crate::virtio::queue::{gather, len, scatter};
use crate::virtio::{Chain, Io, QueueError};

/// Ethernet header.
const FRAME_MIN: u64 = 14;
/// Ethernet header and two VLAN tags.
const LINK_LEN: u64 = 22;
/// The longest frame: of an IP packet of 64 KiB.
const FRAME_MAX: u64 = LINK_LEN + 65_535;
/// Frames that make no sense, after which others get their turn.
const DROPS_MAX: u32 = 64;

/// What came of a look at the transmit queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// A frame.
    Frame(FrameOffload),
    /// Only frames that make no sense, so far.
    Dropped,
    /// There is none.
    None,
}

fn header_len(io: &Io<'_, NetEffect>) -> u64 {
    let long = io.features() & (common::VERSION_1 | feature::MRG_RXBUF) != 0;
    (if long { header::LEN } else { header::LEGACY_LEN }) as u64
}

impl Net {
    /// Takes the next frame that the driver has sent, from one pair after the other.
    pub(super) fn take(&mut self, frame: &mut Vec<u8>, io: &mut Io<'_, NetEffect>) -> Taken {
        let mut dropped = 0;
        let mut empty = 0;
        while self.is_up(io) && empty < self.pairs {
            let pair = self.next_pair.checked_rem(self.pairs).unwrap_or_default();
            self.next_pair = pair.wrapping_add(1);
            let queue = pair.wrapping_mul(2).wrapping_add(1);
            let Some(chain) = io.pop(queue) else {
                empty += 1;
                continue;
            };
            empty = 0;
            let offload = self.read(&chain, frame, io);
            io.push(queue, chain.id, 0);
            self.unflushed |= 1u32.wrapping_shl(queue.into());
            match offload {
                Ok(Some(offload)) => {
                    self.flows.sent(frame, pair);
                    return Taken::Frame(offload);
                }
                Ok(None) => {}
                Err(error) => io.fail(error),
            }
            dropped += 1;
            if dropped == DROPS_MAX {
                return Taken::Dropped;
            }
        }
        Taken::None
    }

    /// Reads a frame; `None` if it makes no sense as one.
    fn read(
        &self,
        chain: &Chain,
        frame: &mut Vec<u8>,
        io: &Io<'_, NetEffect>,
    ) -> Result<Option<FrameOffload>, QueueError> {
        if !chain.writable.is_empty() {
            return Err(QueueError::BadRequest);
        }
        let header_len = header_len(io);
        let frame_len = len(&chain.readable).saturating_sub(header_len);
        if !(FRAME_MIN..=FRAME_MAX).contains(&frame_len) {
            return Ok(None);
        }
        let mut bytes = offload_header::Bytes::default();
        gather(io.memory(), &chain.readable, 0, &mut bytes)?;
        frame.resize(frame_len as usize, 0);
        gather(io.memory(), &chain.readable, header_len, frame)?;
        let offload = offload_header::decode(&bytes, io.features(), frame);
        // What stays whole has to fit on the link.
        let long = frame_len > LINK_LEN + u64::from(self.info.mtu);
        Ok(offload.filter(|offload| offload.segmentation.is_some() || !long))
    }

    /// Gives the driver a frame.
    pub(super) fn give(
        &mut self,
        parts: &[&[u8]],
        offload: FrameOffload,
        io: &mut Io<'_, NetEffect>,
    ) -> Given {
        if !self.is_up(io) {
            return Given::Refused;
        }
        let frame_len = parts.iter().fold(0u64, |sum, part| sum.saturating_add(part.len() as u64));
        let Some(header) = offload_header::encode(&offload, self.offloads) else {
            return Given::Refused;
        };
        let mut start = [0; LOOKED_AT];
        let mut looked_at = 0;
        for (to, from) in start.iter_mut().zip(parts.iter().copied().flatten()) {
            *to = *from;
            looked_at += 1;
        }
        let start = start.get(..looked_at).unwrap_or_default();
        let vlans = if io.has(feature::CTRL_VLAN) { VlanFilter::On } else { VlanFilter::Off };
        if frame_len > FRAME_MAX || !self.filter.passes(start, &self.mac, vlans) {
            return Given::Refused;
        }
        let queue = self.flows.pair(start, self.pairs).wrapping_mul(2);
        let given = self.put(queue, (&header, parts, frame_len), io);
        if given == Given::Taken {
            self.unflushed |= 1u32.wrapping_shl(queue.into());
        }
        given
    }

    fn put(
        &self,
        queue: u16,
        frame: (&offload_header::Bytes, &[&[u8]], u64),
        io: &mut Io<'_, NetEffect>,
    ) -> Given {
        let (header, parts, frame_len) = frame;
        let header_len = header_len(io);
        let needed = header_len.saturating_add(frame_len);
        let chains = match buffers(queue, needed, io) {
            Ok(chains) => chains,
            Err(given) => return given,
        };
        if let Err(error) = fill(io.memory(), &chains, header_len, (header, parts)) {
            io.fail(error.into());
            return Given::Refused;
        }
        let mut left = needed;
        let mut used = Vec::with_capacity(chains.len());
        for chain in &chains {
            let written = len(&chain.writable).min(left);
            left = left.saturating_sub(written);
            used.push((chain.id, written as u32));
        }
        io.push_together(queue, &used);
        if io.is_running() { Given::Taken } else { Given::Refused }
    }

    /// Interrupts for what was taken and given since this was last called.
    pub(super) fn flush(&mut self, io: &mut Io<'_, NetEffect>) {
        let unflushed = core::mem::take(&mut self.unflushed);
        for queue in (0..32).filter(|queue| unflushed.wrapping_shr(*queue) & 1 != 0) {
            io.signal(queue as u16);
        }
    }
}

/// Buffers of `needed` bytes together: one, or with mergeable buffers as many as it takes. When
/// there are too few, they go back for the next try.
fn buffers(queue: u16, needed: u64, io: &mut Io<'_, NetEffect>) -> Result<Vec<Chain>, Given> {
    let mergeable = io.has(feature::MRG_RXBUF);
    let mut chains: Vec<Chain> = Vec::new();
    let mut room = 0u64;
    let mut given = Given::NoRoom;
    while let Some(chain) = io.pop(queue) {
        if !chain.readable.is_empty() || chain.writable.is_empty() {
            io.fail(QueueError::BadRequest);
            return Err(Given::Refused);
        }
        room = room.saturating_add(len(&chain.writable));
        chains.push(chain);
        if room >= needed {
            return Ok(chains);
        }
        if !mergeable {
            given = Given::Refused;
            break;
        }
    }
    if !io.is_running() {
        return Err(Given::Refused);
    }
    for chain in chains.iter().rev() {
        io.put_back(queue, chain.id);
    }
    Err(given)
}

/// Writes header and frame one after the other into the buffers, which have the room.
fn fill(
    memory: &dyn GuestMemory,
    chains: &[Chain],
    header_len: u64,
    frame: (&offload_header::Bytes, &[&[u8]]),
) -> Result<(), MemoryError> {
    let (fields, parts) = frame;
    let mut header = [0; header::LEN];
    let count = (chains.len() as u16).to_le_bytes();
    for (to, from) in header.iter_mut().zip(fields.iter().chain(&count)) {
        *to = *from;
    }
    let header = header.get(..header_len as usize).unwrap_or_default();
    let mut chains = chains.iter();
    let (mut chain, mut at) = (chains.next(), 0u64);
    for mut part in core::iter::once(header).chain(parts.iter().copied()) {
        while let (Some(now), false) = (chain, part.is_empty()) {
            let written = scatter(memory, &now.writable, at, part)?;
            at = at.saturating_add(written as u64);
            part = part.get(written..).unwrap_or_default();
            if !part.is_empty() {
                (chain, at) = (chains.next(), 0);
            }
        }
    }
    Ok(())
}
