//! The chip: what the driver sees of the card, and what it has set.

use alloc::vec::Vec;

use kasane_ports::{NetGuestOffloads, NetInfo};
use kasane_spec_virtio::net::{config, feature, status};
use kasane_spec_virtio::{device_type, feature as common};

use super::filter::Filter;
use super::flow::Flows;
use super::saved::Form;
use crate::virtio::{ChipDoesNotFit, Io, VirtioChip};

/// The most queue pairs of a card.
pub const PAIRS_MAX: u16 = 8;
/// Entries of receive and transmit queues.
const QUEUE_SIZE: u16 = 256;
/// Entries of the control queue.
const CONTROL_SIZE: u16 = 64;
/// Offloads of frames for the driver: the features that CTRL_GUEST_OFFLOADS switches.
pub(super) const GUEST_OFFLOADS: u64 =
    feature::GUEST_CSUM | feature::GUEST_TSO4 | feature::GUEST_TSO6 | feature::GUEST_ECN;

/// An Ethernet address.
pub type MacAddress = [u8; 6];

/// What a card is to its driver, besides what its backend says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetShape {
    /// Its address.
    pub mac: MacAddress,
    /// Queue pairs, 1 to [`PAIRS_MAX`]; not more than processors, as a rule. The backend may have
    /// use for fewer.
    pub queue_pairs: u16,
}

/// Whether a cable is plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Link {
    /// Plugged in.
    Up,
    /// Pulled out.
    Down,
}

/// What the device asks of its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetEffect {
    /// There are frames to take, or there is room.
    Wake,
}

/// A network card.
#[derive(Clone, Debug)]
pub struct Net {
    pub(super) info: NetInfo,
    /// From the definition.
    pub(super) shape: NetShape,
    /// As the driver has set it.
    pub(super) mac: MacAddress,
    pub(super) link: Link,
    /// The driver should announce itself.
    pub(super) announce: bool,
    /// Pairs in use.
    pub(super) pairs: u16,
    pub(super) filter: Filter,
    /// Features of `GUEST_OFFLOADS` that are on.
    pub(super) offloads: u64,
    pub(super) flows: Flows,
    /// The pair that is looked at next for a frame.
    pub(super) next_pair: u16,
    /// Queues whose driver hasn't heard of what was given back, by bits.
    pub(super) unflushed: u32,
}

impl Net {
    /// The card for a backend's network.
    #[must_use]
    pub fn new(info: NetInfo, shape: NetShape) -> Self {
        let useful = info.queue_pairs.clamp(1, PAIRS_MAX);
        let queue_pairs = shape.queue_pairs.clamp(1, useful);
        Self {
            info,
            shape: NetShape { queue_pairs, ..shape },
            mac: shape.mac,
            link: Link::Up,
            announce: false,
            pairs: 1,
            filter: Filter::default(),
            offloads: 0,
            flows: Flows::default(),
            next_pair: 0,
            unflushed: 0,
        }
    }

    /// What the driver takes now.
    #[must_use]
    pub fn guest_offloads(&self) -> NetGuestOffloads {
        let has = |bit| self.offloads & bit != 0;
        NetGuestOffloads {
            partial_checksum: has(feature::GUEST_CSUM),
            tcp4: has(feature::GUEST_TSO4),
            tcp6: has(feature::GUEST_TSO6),
        }
    }

    /// Whether frames go through.
    pub(super) fn is_up(&self, io: &Io<'_, NetEffect>) -> bool {
        io.is_running() && self.link == Link::Up
    }

    /// Plugs the cable in, or pulls it out.
    pub(super) fn set_link(&mut self, link: Link, io: &mut Io<'_, NetEffect>) {
        if self.link != link {
            self.link = link;
            io.config_changed();
            io.effect(NetEffect::Wake);
        }
    }

    /// Asks the driver to announce its address, as after a move to another host (§5.1.6.5.4).
    pub(super) fn ask_to_announce(&mut self, io: &mut Io<'_, NetEffect>) {
        if io.has(feature::GUEST_ANNOUNCE) {
            self.announce = true;
            io.config_changed();
        }
    }

    /// The control queue (§5.1.2): behind all pairs, or behind the first for a driver that knows
    /// of no others.
    fn control_queue(&self, io: &Io<'_, NetEffect>) -> Option<u16> {
        let pairs = if io.has(feature::MQ) { self.shape.queue_pairs } else { 1 };
        io.has(feature::CTRL_VQ).then_some(pairs.wrapping_mul(2))
    }

    fn back_to_power_on(&mut self) {
        *self = Self { link: self.link, ..Self::new(self.info, self.shape) };
    }
}

impl VirtioChip for Net {
    type Effect = NetEffect;
    type Form = Form;
    const NAME: &'static str = "virtio-net";
    const DEVICE_TYPE: u16 = device_type::NET;
    const FORM_VERSION: u32 = 1;

    fn features(&self) -> u64 {
        let offloads = self.info.offloads;
        let mut features = feature::MTU
            | feature::MAC
            | feature::MRG_RXBUF
            | feature::STATUS
            | feature::CTRL_VQ
            | feature::CTRL_RX
            | feature::CTRL_VLAN
            | feature::CTRL_RX_EXTRA
            | feature::GUEST_ANNOUNCE
            | feature::CTRL_MAC_ADDR;
        let takes_tcp = offloads.takes_partial_checksum && offloads.takes_tcp_segmentation;
        let gives_tcp = offloads.gives_partial_checksum && offloads.gives_tcp_segmentation;
        for (offered, bits) in [
            (self.shape.queue_pairs > 1, feature::MQ),
            (offloads.takes_partial_checksum, feature::CSUM),
            (takes_tcp, feature::HOST_TSO4 | feature::HOST_TSO6 | feature::HOST_ECN),
            (offloads.gives_partial_checksum, feature::GUEST_CSUM | feature::CTRL_GUEST_OFFLOADS),
            (gives_tcp, feature::GUEST_TSO4 | feature::GUEST_TSO6 | feature::GUEST_ECN),
        ] {
            if offered {
                features |= bits;
            }
        }
        features
    }

    /// §5.1.3.1.
    fn accepts(&self, features: u64) -> bool {
        let tso_in = feature::GUEST_TSO4 | feature::GUEST_TSO6;
        let tso_out = feature::HOST_TSO4 | feature::HOST_TSO6;
        let controlled = feature::CTRL_RX
            | feature::CTRL_VLAN
            | feature::CTRL_RX_EXTRA
            | feature::GUEST_ANNOUNCE
            | feature::MQ
            | feature::CTRL_MAC_ADDR
            | feature::CTRL_GUEST_OFFLOADS;
        [
            (tso_in, feature::GUEST_CSUM),
            (feature::GUEST_ECN, tso_in),
            (tso_out, feature::CSUM),
            (feature::HOST_ECN, tso_out),
            (controlled, feature::CTRL_VQ),
        ]
        .into_iter()
        .all(|(these, need)| features & these == 0 || features & need != 0)
    }

    fn queue_sizes(&self) -> Vec<u16> {
        let mut sizes = alloc::vec![QUEUE_SIZE; usize::from(self.shape.queue_pairs) * 2];
        sizes.push(CONTROL_SIZE);
        sizes
    }

    fn config(&self) -> Vec<u8> {
        let up = if self.link == Link::Up { status::LINK_UP } else { 0 };
        let announce = if self.announce { status::ANNOUNCE } else { 0 };
        let mut bytes = Vec::with_capacity(config::LEN);
        bytes.extend(self.mac);
        bytes.extend((up | announce).to_le_bytes());
        bytes.extend(self.shape.queue_pairs.to_le_bytes());
        bytes.extend(self.info.mtu.to_le_bytes());
        bytes
    }

    /// Only a legacy driver writes, its address (§5.1.4.3).
    fn config_write(&mut self, offset: u32, data: &[u8], io: &mut Io<'_, NetEffect>) {
        if !io.has(common::VERSION_1) && !io.has(feature::CTRL_MAC_ADDR) {
            for (to, from) in self.mac.iter_mut().skip(offset as usize).zip(data) {
                *to = *from;
            }
        }
    }

    fn activate(&mut self, io: &mut Io<'_, NetEffect>) {
        self.offloads = io.features() & GUEST_OFFLOADS;
        io.effect(NetEffect::Wake);
    }

    fn reset(&mut self, _effects: &mut Vec<NetEffect>) {
        self.back_to_power_on();
    }

    fn notified(&mut self, queue: u16, io: &mut Io<'_, NetEffect>) {
        if self.control_queue(io) == Some(queue) {
            self.serve_control(queue, io);
        } else {
            io.effect(NetEffect::Wake);
        }
    }

    fn hold(&mut self, io: &mut Io<'_, NetEffect>) {
        self.flush(io);
    }

    fn release(&mut self, io: &mut Io<'_, NetEffect>) {
        io.effect(NetEffect::Wake);
    }

    fn save(&self) -> Form {
        Form::of(self)
    }

    fn restore(&mut self, form: Form) -> Result<(), ChipDoesNotFit> {
        if !form.fits(self) {
            return Err(ChipDoesNotFit);
        }
        form.put(self);
        Ok(())
    }
}
