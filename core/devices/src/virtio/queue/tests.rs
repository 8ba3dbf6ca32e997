//! The device's side of the rings against a driver's side that was written from the driver's
//! sections, and against drivers that mean no good.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use kasane_memory::{GuestMemory, MemoryError, Ram, RamSlot};
use kasane_ports::GuestRange;
use kasane_spec_virtio::feature;
use kasane_spec_virtio::ring::flag;
use proptest::prelude::*;

use super::{Chain, Queue, QueueError, QueuePlace, RingForm};
use crate::virtio::rig::{Piece, QueueDriver, RAM_LEN, Told};

fn ram() -> Arc<Ram> {
    Arc::new(Ram::new(vec![RamSlot::allocated(0, RAM_LEN)]))
}

fn pair(size: u16, features: u64) -> (Queue, QueueDriver) {
    let driver = QueueDriver::new(ram(), 0, size, features);
    let mut queue = Queue::new(256);
    queue.set_place(driver.place);
    queue.enable(RingForm::of(features)).unwrap();
    (queue, driver)
}

fn forms() -> impl Strategy<Value = u64> {
    let indirect = feature::INDIRECT_DESC;
    prop::sample::select(vec![
        indirect,
        indirect | feature::EVENT_IDX,
        indirect | feature::RING_PACKED,
        indirect | feature::RING_PACKED | feature::EVENT_IDX,
    ])
}

#[derive(Clone, Debug)]
enum Step {
    /// The driver makes a chain available: lengths of readable and writable pieces.
    Add(Vec<u32>, Vec<u32>, bool),
    /// The device takes up to so many.
    Pop(u8),
    /// The device takes some and puts them back.
    Peek(u8),
    /// The device gives one of those that it has back.
    Push(u8, u32),
    /// The device asks whether to interrupt; the driver looks at its used chains.
    Settle,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lengths = || prop::collection::vec(0u32..5000, 0..4);
    let add = (lengths(), lengths(), any::<bool>())
        .prop_filter("a chain has descriptors", |(r, w, _)| !r.is_empty() || !w.is_empty())
        .prop_map(|(r, w, indirect)| Step::Add(r, w, indirect));
    let one = prop_oneof![
        4 => add,
        2 => (0u8..6).prop_map(Step::Pop),
        1 => (0u8..4).prop_map(Step::Peek),
        4 => (any::<u8>(), any::<u32>()).prop_map(|(n, len)| Step::Push(n, len)),
        1 => Just(Step::Settle),
    ];
    prop::collection::vec(one, 1..120)
}

/// What a chain of these lengths has to come out as.
fn ranges(lengths: &[u32], base: u64) -> (Vec<Piece>, Vec<GuestRange>) {
    let all: Vec<GuestRange> = lengths
        .iter()
        .enumerate()
        .map(|(n, len)| GuestRange { gpa: base + 0x1_0000 * n as u64, len: *len })
        .collect();
    let pieces = all.iter().map(|range| Piece::Readable(*range)).collect();
    (pieces, all.into_iter().filter(|range| range.len != 0).collect())
}

/// A driver, its queue, and what is where between them.
struct World {
    queue: Queue,
    driver: QueueDriver,
    features: u64,
    /// Available, not taken: id and content.
    waiting: Vec<(u16, Vec<GuestRange>, Vec<GuestRange>)>,
    taken: Vec<(u16, Chain)>,
    /// Given back, not seen by the driver.
    given: Vec<(u16, u32)>,
    /// Given back since it was last asked whether to interrupt.
    unsignalled: usize,
    /// The device has seen that there is nothing.
    empty_seen: bool,
}

impl World {
    fn add(&mut self, r: &[u32], w: &[u32], indirect: bool) {
        let told = if indirect { Told::Indirectly } else { Told::InTheRing };
        let needed = if indirect { 1 } else { r.len() + w.len() };
        if self.driver.room() < needed {
            return;
        }
        let (mut pieces, readable) = ranges(r, 0x20_0000);
        let (writable_pieces, writable) = ranges(w, 0x30_0000);
        pieces.extend(writable_pieces.into_iter().map(|piece| match piece {
            Piece::Readable(range) | Piece::Writable(range) => Piece::Writable(range),
        }));
        let id = self.driver.add(&pieces, told);
        if core::mem::take(&mut self.empty_seen) {
            let added = if self.features & feature::RING_PACKED != 0 { needed } else { 1 };
            assert!(self.driver.wants_notification(added as u16), "a queue that was empty");
        }
        self.waiting.push((id, readable, writable));
    }

    fn pop(&mut self) -> Option<Chain> {
        self.queue.pop(&*self.driver.ram, self.features).unwrap()
    }

    fn take(&mut self) {
        let chain = self.pop();
        if self.waiting.is_empty() {
            assert_eq!(chain, None);
            self.empty_seen = true;
            return;
        }
        let (id, readable, writable) = self.waiting.remove(0);
        let chain = chain.expect("one is available");
        assert_eq!((&chain.readable, &chain.writable), (&readable, &writable));
        self.taken.push((id, chain));
    }

    fn peek(&mut self, count: u8) {
        let count = usize::from(count).min(self.waiting.len());
        let chains: Vec<_> = (0..count).filter_map(|_| self.pop()).collect();
        chains.iter().rev().for_each(|chain| self.queue.put_back(chain.id));
    }

    fn push(&mut self, which: u8, written: u32) {
        if self.taken.is_empty() {
            return;
        }
        let (id, chain) = self.taken.remove(usize::from(which) % self.taken.len());
        self.queue.push(&*self.driver.ram, self.features, &[(chain.id, written)]).unwrap();
        self.given.push((id, written));
        self.unsignalled += 1;
    }

    /// The driver, that has seen everything, wants to be told of the next.
    fn settle(&mut self) {
        let wants = self.queue.wants_signal(&*self.driver.ram, self.features).unwrap();
        assert_eq!(wants, self.unsignalled != 0, "it was asked for the next one");
        self.unsignalled = 0;
        for given in core::mem::take(&mut self.given) {
            assert_eq!(self.driver.used(), Some(given));
        }
        assert_eq!(self.driver.used(), None);
        self.driver.ask_for_next();
    }
}

proptest! {
    #[test]
    fn what_the_driver_offers_comes_and_what_is_given_back_arrives(
        features in forms(),
        size in prop::sample::select(vec![4u16, 8, 32]),
        steps in steps(),
    ) {
        let (queue, driver) = pair(size, features);
        let mut world = World {
            queue,
            driver,
            features,
            waiting: Vec::new(),
            taken: Vec::new(),
            given: Vec::new(),
            unsignalled: 0,
            empty_seen: false,
        };
        for step in &steps {
            match step {
                Step::Add(r, w, indirect) => world.add(r, w, *indirect),
                Step::Pop(count) => (0..*count).for_each(|_| world.take()),
                Step::Peek(count) => world.peek(*count),
                Step::Push(which, written) => world.push(*which, *written),
                Step::Settle => world.settle(),
            }
        }
        world.settle();
    }

    #[test]
    fn with_event_indices_the_driver_is_told_when_its_event_is_passed(
        packed in prop::sample::select(vec![0, feature::RING_PACKED]),
        rounds in prop::collection::vec((1usize..8, 0u16..8), 1..30),
    ) {
        let features = packed | feature::EVENT_IDX;
        let (mut queue, mut driver) = pair(8, features);
        let piece = Piece::Writable(GuestRange { gpa: 0x20_0000, len: 1 });
        for (count, beyond) in rounds {
            driver.ask_beyond(beyond);
            for _ in 0..count {
                driver.add(&[piece], Told::InTheRing);
                let chain = queue.pop(&*driver.ram, features).unwrap().unwrap();
                queue.push(&*driver.ram, features, &[(chain.id, 1)]).unwrap();
            }
            let wants = queue.wants_signal(&*driver.ram, features).unwrap();
            prop_assert_eq!(wants, count > usize::from(beyond));
            prop_assert!(!queue.wants_signal(&*driver.ram, features).unwrap(), "once is enough");
            while driver.used().is_some() {}
        }
    }

    #[test]
    fn whatever_is_in_memory_a_queue_ends_and_holds_no_more_than_it_has(
        features in forms(),
        size in prop::sample::select(vec![1u16, 2, 16]),
        noise in prop::collection::vec((0u64..0x400, any::<u16>()), 0..200),
        flags in prop::collection::vec(prop::sample::select(vec![
            0u16, flag::NEXT, flag::WRITE, flag::INDIRECT, flag::AVAIL, flag::AVAIL | flag::NEXT,
            flag::AVAIL | flag::INDIRECT, flag::USED,
        ]), 16),
        index in any::<u16>(),
    ) {
        let (mut queue, driver) = pair(size, features);
        let ram = driver.ram.clone();
        for (at, value) in noise {
            ram.store_u16(driver.place.descriptors + at * 2, value).unwrap();
            ram.store_u16(driver.place.driver + at * 2, value % (2 * size)).unwrap();
        }
        for (n, flags) in flags.iter().enumerate() {
            let at = if features & feature::RING_PACKED != 0 { 14 } else { 12 };
            ram.store_u16(driver.place.descriptors + 16 * n as u64 + at, *flags).unwrap();
        }
        ram.store_u16(driver.place.driver + 2, index % (2 * size)).unwrap();
        let mut taken = 0;
        while let Ok(Some(chain)) = queue.pop(&*ram, features) {
            prop_assert!(chain.readable.len() + chain.writable.len() <= 1024);
            taken += 1;
            prop_assert!(taken <= size && queue.in_flight() <= size);
        }
    }
}

#[test]
fn a_chain_of_before_a_reset_goes_nowhere() {
    for features in [0, feature::RING_PACKED] {
        let (mut queue, mut driver) = pair(8, features);
        let piece = Piece::Writable(GuestRange { gpa: 0x20_0000, len: 1 });
        driver.add(&[piece, piece, piece], Told::InTheRing);
        let chain = queue.pop(&*driver.ram, features).unwrap().unwrap();
        let before = queue.clone();
        queue.reset();
        queue.set_place(QueuePlace { size: 2, ..driver.place });
        queue.enable(RingForm::of(features)).unwrap();
        let fresh = queue.clone();
        queue.put_back(chain.id);
        queue.push(&*driver.ram, features, &[(chain.id, 1)]).unwrap();
        assert_eq!((driver.used(), queue), (None, fresh));
        assert_eq!(before.in_flight(), if features == 0 { 1 } else { 3 });
    }
}

#[test]
fn a_driver_that_wants_no_interrupts_gets_none() {
    for features in [0, feature::RING_PACKED] {
        let (mut queue, mut driver) = pair(8, features);
        driver.ask_for_none();
        driver.add(&[Piece::Readable(GuestRange { gpa: 0, len: 1 })], Told::InTheRing);
        let chain = queue.pop(&*driver.ram, features).unwrap().unwrap();
        assert!(!driver.wants_notification(1), "the device is at it");
        queue.push(&*driver.ram, features, &[(chain.id, 0)]).unwrap();
        assert!(!queue.wants_signal(&*driver.ram, features).unwrap());
    }
}

fn raw(driver: &QueueDriver, index: u16, address: u64, len: u32, low: u16, high: u16) {
    let at = driver.place.descriptors + 16 * u64::from(index);
    driver.ram.store_u64(at, address).unwrap();
    driver.ram.store_u32(at + 8, len).unwrap();
    driver.ram.store_u16(at + 12, low).unwrap();
    driver.ram.store_u16(at + 14, high).unwrap();
}

/// A split ring with one chain at descriptor 0.
fn split_with(descriptors: &[(u64, u32, u16, u16)]) -> Result<Option<Chain>, QueueError> {
    let features = feature::INDIRECT_DESC;
    let (mut queue, driver) = pair(8, features);
    for (n, (address, len, flags, next)) in descriptors.iter().enumerate() {
        raw(&driver, n as u16, *address, *len, *flags, *next);
    }
    driver.ram.store_u16(driver.place.driver + 2, 1).unwrap();
    queue.pop(&*driver.ram, features)
}

#[test]
fn chains_that_make_no_sense_are_refused() {
    const NEXT: u16 = flag::NEXT;
    let table = 0x20_0000;
    let cases = [
        (vec![(0, 1, NEXT, 1), (0, 1, NEXT, 0)], QueueError::ChainTooLong),
        (vec![(0, 1, NEXT, 8)], QueueError::NoDescriptor { index: 8, len: 8 }),
        (vec![(0, 1, NEXT | flag::WRITE, 1), (0, 1, 0, 0)], QueueError::ReadableAfterWritable),
        (vec![(u64::MAX, 1, 0, 0)], QueueError::AddressOverflow { address: u64::MAX }),
        (vec![(0, u32::MAX, NEXT, 1), (0, 2, 0, 0)], QueueError::TooManyBytes),
        (vec![(table, 15, flag::INDIRECT, 0)], QueueError::IndirectTable { len: 15 }),
        (vec![(table, 0, flag::INDIRECT, 0)], QueueError::IndirectTable { len: 0 }),
        (vec![(table, 16, flag::INDIRECT | NEXT, 1)], QueueError::IndirectHere),
    ];
    for (descriptors, error) in cases {
        assert_eq!(split_with(&descriptors), Err(error), "{descriptors:?}");
    }
}

#[test]
fn a_table_in_a_table_is_refused() {
    let features = feature::INDIRECT_DESC;
    let (mut queue, driver) = pair(8, features);
    let table = driver.place.descriptors + 16;
    raw(&driver, 0, table, 32, flag::INDIRECT, 0);
    raw(&driver, 1, table, 32, flag::INDIRECT, 0);
    driver.ram.store_u16(driver.place.driver + 2, 1).unwrap();
    assert_eq!(queue.pop(&*driver.ram, features), Err(QueueError::IndirectHere));
}

#[test]
fn a_table_that_was_not_agreed_on_is_refused() {
    let (mut queue, driver) = pair(8, 0);
    raw(&driver, 0, 0x20_0000, 16, flag::INDIRECT, 0);
    driver.ram.store_u16(driver.place.driver + 2, 1).unwrap();
    assert_eq!(queue.pop(&*driver.ram, 0), Err(QueueError::IndirectHere));
}

#[test]
fn an_index_that_jumps_is_refused() {
    let (mut queue, driver) = pair(8, 0);
    driver.ram.store_u16(driver.place.driver + 2, 9).unwrap();
    let error = QueueError::IndexAhead { by: 9, size: 8 };
    assert_eq!(queue.pop(&*driver.ram, 0), Err(error));
}

#[test]
fn what_was_not_given_back_can_not_be_made_available_again() {
    let (mut queue, driver) = pair(2, 0);
    raw(&driver, 0, 0, 1, 0, 0);
    driver.ram.store_u16(driver.place.driver + 2, 2).unwrap();
    assert!(queue.pop(&*driver.ram, 0).unwrap().is_some());
    assert!(queue.pop(&*driver.ram, 0).unwrap().is_some());
    driver.ram.store_u16(driver.place.driver + 2, 3).unwrap();
    assert_eq!(queue.pop(&*driver.ram, 0), Err(QueueError::AvailableTwice));
}

#[test]
fn a_ring_outside_of_memory_is_an_error() {
    let place = QueuePlace { size: 8, descriptors: 0, driver: 1 << 40, device: 0x100 };
    let mut queue = Queue::new(8);
    queue.set_place(place);
    queue.enable(RingForm::Split).unwrap();
    let gpa = (1 << 40) + 2;
    let error = QueueError::Memory(MemoryError::Unmapped { gpa, len: 2 });
    assert_eq!(queue.pop(&*ram(), 0), Err(error));
}

#[test]
fn places_that_no_queue_can_have_are_refused() {
    let good = QueuePlace { size: 8, descriptors: 0x1000, driver: 0x2002, device: 0x3004 };
    let bad = [
        QueuePlace { size: 0, ..good },
        QueuePlace { size: 6, ..good },
        QueuePlace { size: 16, ..good },
        QueuePlace { descriptors: 0x1008, ..good },
        QueuePlace { driver: 0x2001, ..good },
        QueuePlace { device: 0x3002, ..good },
        QueuePlace { device: u64::MAX - 3, ..good },
    ];
    for place in bad {
        let mut queue = Queue::new(8);
        queue.set_place(place);
        let error = QueueError::BadPlace { size: place.size };
        assert_eq!(queue.enable(RingForm::Split), Err(error), "{place:?}");
    }
    let mut queue = Queue::new(8);
    queue.set_place(good);
    assert_eq!(queue.enable(RingForm::Split), Ok(()));
    let mut packed = Queue::new(8);
    packed.set_place(QueuePlace { size: 6, driver: 0x2000, ..good });
    assert_eq!(packed.enable(RingForm::Packed), Ok(()), "any size will do");
}
