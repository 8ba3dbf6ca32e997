//! Saved form, version 1. Frames are never under way in the chip; what the network is comes from
//! the backend, and flows find their queues again.

use super::chip::{GUEST_OFFLOADS, Link, MacAddress, Net};
use super::filter::Filter;

/// The state of a card.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Form {
    mac: MacAddress,
    link: Link,
    announce: bool,
    pairs: u16,
    filter: Filter,
    offloads: u64,
    unflushed: u32,
}

impl Form {
    pub(super) fn of(net: &Net) -> Self {
        let Net {
            info: _,
            shape: _,
            mac,
            link,
            announce,
            pairs,
            filter,
            offloads,
            flows: _,
            next_pair: _,
            unflushed,
        } = net;
        Self {
            mac: *mac,
            link: *link,
            announce: *announce,
            pairs: *pairs,
            filter: filter.clone(),
            offloads: *offloads,
            unflushed: *unflushed,
        }
    }

    /// Whether `net` can have this state.
    pub(super) fn fits(&self, net: &Net) -> bool {
        (1..=net.shape.queue_pairs).contains(&self.pairs)
            && self.filter.fits()
            && self.offloads & !GUEST_OFFLOADS == 0
    }

    pub(super) fn put(self, net: &mut Net) {
        let Self { mac, link, announce, pairs, filter, offloads, unflushed } = self;
        net.mac = mac;
        net.link = link;
        net.announce = announce;
        net.pairs = pairs;
        net.filter = filter;
        net.offloads = offloads;
        net.unflushed = unflushed;
        net.flows = super::flow::Flows::default();
        net.next_pair = 0;
    }
}
