//! The balloon by its driver's sequences (virtio 1.2 §5.5.6).

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use kasane_ports::{GuestRange, PageReclaim};
use kasane_spec_virtio::balloon::feature;
use kasane_spec_virtio::status;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::chip::Balloon;
use super::glue::{BalloonConnections, connect};
use crate::saved::Saved;
use crate::virtio::rig::{Interrupts, Piece, RAM_LEN, Rig};
use crate::virtio::{Offer, VirtioDevice};

/// What the host got, and whether the driver had heard of it already.
#[derive(Default)]
struct Host {
    got: Mutex<Vec<(u64, u64)>>,
    interrupts: Mutex<Option<Arc<Interrupts>>>,
    early: Mutex<u32>,
}

impl PageReclaim for Host {
    fn discard(&self, gpa: u64, len: u64) {
        self.got.lock().push((gpa, len));
        let heard = |interrupts: &Arc<Interrupts>| !interrupts.queues.lock().is_empty();
        *self.early.lock() += u32::from(self.interrupts.lock().as_ref().is_some_and(heard));
    }
}

const ALL: u64 = feature::STATS_VQ | feature::DEFLATE_ON_OOM | feature::REPORTING;

fn started(features: u64) -> (Rig<Balloon>, Arc<Host>) {
    let host = Arc::new(Host::default());
    let mut rig = Rig::new(Balloon::default());
    *host.interrupts.lock() = Some(rig.interrupts.clone());
    let connections = BalloonConnections {
        memory: rig.ram.clone(),
        interrupts: rig.interrupts.clone(),
        reclaim: host.clone(),
    };
    let offer = Offer { best_form: crate::virtio::queue::RingForm::Packed, ..Offer::default() };
    rig.device = connect("test", offer, connections);
    rig.start(64, features);
    (rig, host)
}

fn numbers(pages: &[u32]) -> Vec<u8> {
    pages.iter().flat_map(|page| page.to_le_bytes()).collect()
}

#[test]
fn pages_are_with_the_host_before_the_driver_has_its_chain_back() {
    let (mut rig, host) = started(ALL);
    let list = rig.readable(&numbers(&[9, 7, 8, 20, 7]));
    let id = rig.send(0, &[list]);
    assert_eq!(*host.got.lock(), [(0x7000, 0x3000), (0x14000, 0x1000)]);
    assert_eq!((rig.used(0), rig.interrupted()), (Some((id, 0)), vec![0]));
    assert_eq!(*host.early.lock(), 0);
    let list = rig.readable(&numbers(&[9]));
    rig.send(1, &[list]);
    assert!(rig.used(1).is_some(), "deflating costs nothing");
    assert_eq!(host.got.lock().len(), 2);
}

#[test]
fn what_is_not_ram_is_left_alone() {
    let (mut rig, host) = started(ALL);
    let end = (RAM_LEN >> 12) as u32;
    let list = rig.readable(&numbers(&[end - 1, end, end + 1, u32::MAX, 0xF_FFFF]));
    rig.send(0, &[list]);
    assert_eq!(*host.got.lock(), [(RAM_LEN as u64 - 0x1000, 0x1000)]);
    host.got.lock().clear();
    let reported = [(0x20_0001, 0x2FFF), (RAM_LEN as u64 - 0x800, 0x10_0000), (1 << 60, 4096)];
    let pieces = reported.map(|(gpa, len)| Piece::Writable(GuestRange { gpa, len }));
    rig.send(4, &pieces);
    assert_eq!(*host.got.lock(), [(0x20_1000, 0x2000)]);
    assert!(rig.used(4).is_some());
}

#[test]
fn reports_come_by_the_queue_that_the_driver_counts_to() {
    for (features, queue) in [(ALL, 3), (ALL, 4), (feature::REPORTING, 2), (feature::REPORTING, 4)]
    {
        let (mut rig, host) = started(features);
        rig.send(queue, &[Piece::Writable(GuestRange { gpa: 0x20_0000, len: 0x1000 })]);
        assert_eq!(*host.got.lock(), [(0x20_0000, 0x1000)], "queue {queue}");
    }
}

#[test]
fn chains_that_make_no_sense_need_a_reset() {
    let many = [GuestRange { gpa: 0, len: 1 << 20 }; 1].map(Piece::Readable);
    let cases: [(u16, u64, Vec<Piece>); 4] = [
        (0, ALL, many.to_vec()),
        (0, ALL, vec![Piece::Writable(GuestRange { gpa: 0x20_0000, len: 4096 })]),
        (4, ALL, vec![Piece::Readable(GuestRange { gpa: 0x20_0000, len: 4096 })]),
        (4, 0, vec![Piece::Writable(GuestRange { gpa: 0x20_0000, len: 4096 })]),
    ];
    for (queue, features, pieces) in cases {
        let (mut rig, host) = started(features);
        rig.send(queue, &pieces);
        assert_ne!(rig.device.status() & status::NEEDS_RESET, 0, "{queue} {pieces:?}");
        assert!(host.got.lock().is_empty());
    }
}

#[test]
fn the_target_is_told_and_what_was_given_is_heard() {
    let (rig, _) = started(ALL);
    rig.device.set_wanted_bytes(1 << 20);
    rig.device.set_wanted_bytes(1 << 20);
    assert_eq!(*rig.interrupts.configs.lock(), 1);
    rig.device.config_write(4, &[3, 0, 0, 0]);
    rig.device.config_write(5, &[1]);
    rig.device.config_write(0, &[0xFF; 4]);
    rig.device.config_write(u32::MAX, &[0xFF; 4]);
    let mut config = [0; 8];
    rig.device.config_read(0, &mut config);
    assert_eq!(config, [0, 1, 0, 0, 3, 1, 0, 0]);
    assert_eq!(rig.device.inspect(|core| core.chip().actual_bytes()), 0x103 << 12);
    rig.device.set_wanted_bytes(u64::MAX);
    assert_eq!(rig.device.inspect(|core| core.chip().wanted_bytes()), RAM_LEN as u64);
    rig.device.set_status(0);
    let both = rig.device.inspect(|core| (core.chip().actual_bytes(), core.chip().wanted_bytes()));
    assert_eq!(both, (0, RAM_LEN as u64), "the wish outlives the driver");
}

#[test]
fn statistics_come_when_they_are_asked_for() {
    let (mut rig, _) = started(ALL);
    let one = |tag: u16, value: u64| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat();
    let first = [one(4, 1000), one(99, 1), one(5, 5000), vec![1, 2, 3]].concat();
    let buffer = rig.readable(&first);
    rig.send(2, &[buffer]);
    assert_eq!(rig.used(2), None, "it is kept until the next question");
    let section = rig.device.save();
    rig.device.restore(&section).unwrap();
    let statistics = rig.device.inspect(|core| core.chip().statistics());
    assert_eq!(
        (statistics.free, statistics.total, statistics.caches),
        (Some(1000), Some(5000), None)
    );
    rig.device.ask_for_statistics();
    assert!(rig.used(2).is_some());
    assert_eq!(rig.interrupted(), [2]);
    rig.device.ask_for_statistics();
    assert_eq!(rig.used(2), None);
}

proptest! {
    #[test]
    fn the_host_gets_ram_only_and_each_page_that_was_named(
        pages in prop::collection::vec(0u32..2 * (RAM_LEN >> 12) as u32, 1..200),
    ) {
        let (mut rig, host) = started(ALL);
        let list = rig.readable(&numbers(&pages));
        rig.send(0, &[list]);
        let mut got: Vec<u32> = host.got.lock().iter()
            .flat_map(|(gpa, len)| (*gpa >> 12) as u32..((*gpa + *len) >> 12) as u32)
            .collect();
        got.sort_unstable();
        let mut expected: Vec<u32> =
            pages.into_iter().filter(|page| *page < (RAM_LEN >> 12) as u32).collect();
        expected.sort_unstable();
        expected.dedup();
        prop_assert_eq!(got, expected);
    }
}
