//! The chip: packets out of and into the queues.

use alloc::vec::Vec;

use kasane_ports::{Given, VsockOperation, VsockPacket};
use kasane_spec_virtio::vsock::{event, feature, header, queue};
use kasane_spec_virtio::{device_type, vsock::cid};

use super::packet;
use super::saved::Form;
use crate::virtio::queue::{gather, len, scatter};
use crate::virtio::{Chain, ChipDoesNotFit, Io, QueueError, VirtioChip};

/// Entries of each queue.
const QUEUE_SIZE: u16 = 256;
/// The most data of a packet (Linux: the same).
const DATA_MAX: u32 = 64 << 10;
/// Packets that make no sense, after which others get their turn.
const DROPS_MAX: u32 = 64;

/// What the device asks of its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VsockEffect {
    /// There are packets to take, or there is room, or the driver was reset.
    Wake,
}

/// What came of a look at the transmit queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Packet(VsockPacket),
    /// Only packets that make no sense, so far.
    Dropped,
    None,
}

/// A socket device.
#[derive(Clone, Debug)]
pub struct Vsock {
    pub(super) guest_cid: u64,
    /// Counts resets.
    pub(super) epoch: u64,
    /// Queues whose driver hasn't heard of what was given back, by bits.
    pub(super) unflushed: u8,
    /// The driver has still to hear that its connections are gone.
    pub(super) owes_reset: bool,
}

impl Vsock {
    /// The device of the guest with this context id, 3 to 2^32 - 2; of another, the next that
    /// there can be.
    #[must_use]
    pub fn new(guest_cid: u64) -> Self {
        let guest_cid = guest_cid.clamp(cid::FIRST_GUEST, cid::LAST_GUEST);
        Self { guest_cid, epoch: 0, unflushed: 0, owes_reset: false }
    }

    /// Counts resets of the device.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    fn touch(&mut self, queue: u16) {
        self.unflushed |= 1u8.wrapping_shl(queue.into());
    }

    /// Takes the next packet of the driver.
    pub(super) fn take(&mut self, data: &mut Vec<u8>, io: &mut Io<'_, VsockEffect>) -> Taken {
        for _ in 0..DROPS_MAX {
            let Some(chain) = io.pop(queue::TX) else { return Taken::None };
            let read = self.read(&chain, data, io);
            io.push(queue::TX, chain.id, 0);
            self.touch(queue::TX);
            match read {
                Ok(Some(packet)) => return Taken::Packet(packet),
                Ok(None) => {}
                Err(error) => io.fail(error),
            }
        }
        Taken::Dropped
    }

    /// Reads a packet; `None` if it makes no sense or is in another's name.
    fn read(
        &self,
        chain: &Chain,
        data: &mut Vec<u8>,
        io: &Io<'_, VsockEffect>,
    ) -> Result<Option<VsockPacket>, QueueError> {
        if !chain.writable.is_empty() {
            return Err(QueueError::BadRequest);
        }
        let mut bytes = [0; header::LEN];
        let whole = gather(io.memory(), &chain.readable, 0, &mut bytes)? == header::LEN;
        let read = packet::decode(&bytes);
        let there = len(&chain.readable).saturating_sub(header::LEN as u64);
        let fits = read.data_len <= DATA_MAX && u64::from(read.data_len) <= there;
        if !whole || !fits || read.from_cid != self.guest_cid {
            return Ok(None);
        }
        data.clear();
        // Only these have data (§5.10.6.4).
        if read.packet.operation == VsockOperation::Data {
            data.resize(read.data_len as usize, 0);
            gather(io.memory(), &chain.readable, header::LEN as u64, data)?;
        }
        Ok(Some(read.packet))
    }

    /// Gives the driver a packet, with as much data as its buffer takes.
    pub(super) fn give(
        &mut self,
        packet: &VsockPacket,
        data: &[u8],
        io: &mut Io<'_, VsockEffect>,
    ) -> (Given, usize) {
        if !io.is_running() {
            return (Given::Refused, 0);
        }
        self.send_event(io);
        let Some(chain) = io.pop(queue::RX) else { return (Given::NoRoom, 0) };
        let room = len(&chain.writable).saturating_sub(header::LEN as u64);
        let taken = data.len().min(room.min(DATA_MAX.into()) as usize);
        let lacks = len(&chain.writable) < header::LEN as u64 || (taken == 0 && !data.is_empty());
        if lacks || !chain.readable.is_empty() {
            io.fail(QueueError::BadRequest);
            return (Given::Refused, 0);
        }
        let bytes = packet::encode(packet, self.guest_cid, taken as u32);
        let data = data.get(..taken).unwrap_or_default();
        let done = scatter(io.memory(), &chain.writable, 0, &bytes)
            .and_then(|at| scatter(io.memory(), &chain.writable, at as u64, data));
        if let Err(error) = done {
            io.fail(error.into());
            return (Given::Refused, 0);
        }
        io.push(queue::RX, chain.id, (header::LEN + taken) as u32);
        self.touch(queue::RX);
        (Given::Taken, taken)
    }

    /// Tells the driver that its connections are gone, if it has still to hear so (§5.10.6.7).
    fn send_event(&mut self, io: &mut Io<'_, VsockEffect>) {
        if !self.owes_reset {
            return;
        }
        let Some(chain) = io.pop(queue::EVENT) else { return };
        match scatter(io.memory(), &chain.writable, 0, &event::TRANSPORT_RESET.to_le_bytes()) {
            Ok(4) => {
                self.owes_reset = false;
                io.push(queue::EVENT, chain.id, 4);
                io.signal(queue::EVENT);
            }
            Ok(_) => io.fail(QueueError::BadRequest),
            Err(error) => io.fail(error.into()),
        }
    }

    /// Interrupts for what was taken and given since this was last called.
    pub(super) fn flush(&mut self, io: &mut Io<'_, VsockEffect>) {
        self.send_event(io);
        let unflushed = core::mem::take(&mut self.unflushed);
        for queue in [queue::RX, queue::TX] {
            if unflushed.wrapping_shr(queue.into()) & 1 != 0 {
                io.signal(queue);
            }
        }
    }
}

impl VirtioChip for Vsock {
    type Effect = VsockEffect;
    type Form = Form;
    const NAME: &'static str = "virtio-vsock";
    const DEVICE_TYPE: u16 = device_type::SOCKET;
    const FORM_VERSION: u32 = 1;

    fn features(&self) -> u64 {
        feature::STREAM
    }

    fn queue_sizes(&self) -> Vec<u16> {
        alloc::vec![QUEUE_SIZE; 3]
    }

    fn config(&self) -> Vec<u8> {
        self.guest_cid.to_le_bytes().to_vec()
    }

    fn activate(&mut self, io: &mut Io<'_, VsockEffect>) {
        io.effect(VsockEffect::Wake);
    }

    fn reset(&mut self, effects: &mut Vec<VsockEffect>) {
        self.epoch = self.epoch.wrapping_add(1);
        self.unflushed = 0;
        self.owes_reset = false;
        effects.push(VsockEffect::Wake);
    }

    fn notified(&mut self, queue: u16, io: &mut Io<'_, VsockEffect>) {
        if queue == queue::EVENT {
            self.send_event(io);
        } else {
            io.effect(VsockEffect::Wake);
        }
    }

    fn hold(&mut self, io: &mut Io<'_, VsockEffect>) {
        self.flush(io);
    }

    fn release(&mut self, io: &mut Io<'_, VsockEffect>) {
        io.effect(VsockEffect::Wake);
    }

    fn save(&self) -> Form {
        Form::of(self)
    }

    fn restore(&mut self, form: Form) -> Result<(), ChipDoesNotFit> {
        form.put(self)
    }
}
