//! The control queue (virtio 1.2 §5.1.6.5).

use alloc::vec::Vec;

use kasane_spec_virtio::net::control as command;

use super::chip::{GUEST_OFFLOADS, MacAddress, Net, NetEffect};
use super::filter::{TABLE_MAX, Table, VlanPasses};
use crate::virtio::queue::{gather, len, scatter};
use crate::virtio::{Io, QueueError};

/// Bytes of a command that are looked at. Two tables of more addresses than a driver can have.
const COMMAND_MAX: u64 = 64 << 10;

/// Takes a table off the front of `data`. More addresses than fit are counted only.
fn take_table(data: &mut &[u8]) -> Option<Table> {
    let (entries, rest) = data.split_first_chunk::<4>()?;
    let entries = u32::from_le_bytes(*entries) as usize;
    let (addresses, rest) = rest.split_at_checked(entries.checked_mul(6)?)?;
    *data = rest;
    let overflow = entries > TABLE_MAX;
    let addresses: Vec<MacAddress> =
        if overflow { Vec::new() } else { addresses.as_chunks().0.to_vec() };
    Some(Table { addresses, overflow })
}

impl Net {
    /// Serves all commands that wait.
    pub(super) fn serve_control(&mut self, queue: u16, io: &mut Io<'_, NetEffect>) {
        while let Some(chain) = io.pop(queue) {
            let mut bytes = alloc::vec![0; len(&chain.readable).min(COMMAND_MAX) as usize];
            if let Err(error) = gather(io.memory(), &chain.readable, 0, &mut bytes) {
                return io.fail(error.into());
            }
            if chain.writable.is_empty() {
                return io.fail(QueueError::BadRequest);
            }
            let done = match bytes.split_first_chunk::<2>() {
                Some(([class, name], data)) => self.command((*class, *name), data, io),
                None => None,
            };
            let answer = if done.is_some() { command::OK } else { command::ERR };
            match scatter(io.memory(), &chain.writable, 0, &[answer]) {
                Ok(_) => io.push(queue, chain.id, 1),
                Err(error) => return io.fail(error.into()),
            }
        }
        io.signal(queue);
    }

    /// One command; `None` if it can't be done.
    fn command(&mut self, name: (u8, u8), data: &[u8], io: &mut Io<'_, NetEffect>) -> Option<()> {
        match name {
            (command::RX, mode) => self.set_mode(mode, *data.first()? != 0),
            (command::MAC, command::MAC_TABLE_SET) => {
                let mut data = data;
                let (unicast, multicast) = (take_table(&mut data)?, take_table(&mut data)?);
                (self.filter.unicast, self.filter.multicast) = (unicast, multicast);
                Some(())
            }
            (command::MAC, command::MAC_ADDR_SET) => {
                self.mac = *data.first_chunk()?;
                Some(())
            }
            (command::VLAN, command::VLAN_ADD) => self.set_vlan(data, VlanPasses::Yes),
            (command::VLAN, command::VLAN_DEL) => self.set_vlan(data, VlanPasses::No),
            (command::ANNOUNCE, command::ANNOUNCE_ACK) => {
                self.announce = false;
                Some(())
            }
            (command::MQ, command::MQ_VQ_PAIRS_SET) => {
                let pairs = u16::from_le_bytes(*data.first_chunk()?);
                if !(1..=self.shape.queue_pairs).contains(&pairs) {
                    return None;
                }
                self.pairs = pairs;
                io.effect(NetEffect::Wake);
                Some(())
            }
            (command::GUEST_OFFLOADS, command::GUEST_OFFLOADS_SET) => {
                let wanted = u64::from_le_bytes(*data.first_chunk()?);
                if wanted & !(io.features() & GUEST_OFFLOADS) != 0 {
                    return None;
                }
                self.offloads = wanted;
                Some(())
            }
            _ => None,
        }
    }

    fn set_vlan(&mut self, data: &[u8], passes: VlanPasses) -> Option<()> {
        let vlan = u16::from_le_bytes(*data.first_chunk()?);
        self.filter.set_vlan(vlan, passes).then_some(())
    }

    fn set_mode(&mut self, mode: u8, on: bool) -> Option<()> {
        let modes = &mut self.filter.modes;
        let which = match mode {
            command::RX_PROMISC => &mut modes.promiscuous,
            command::RX_ALLMULTI => &mut modes.all_multicast,
            command::RX_ALLUNI => &mut modes.all_unicast,
            command::RX_NOMULTI => &mut modes.no_multicast,
            command::RX_NOUNI => &mut modes.no_unicast,
            command::RX_NOBCAST => &mut modes.no_broadcast,
            _ => return None,
        };
        *which = on;
        Some(())
    }
}
