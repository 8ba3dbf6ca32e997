//! The split ring against `virtio-queue`: its mock driver fills a ring, and both devices, each on
//! its own copy of memory, take and give back the same.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // tests may panic

use kasane_devices::virtio::queue::{Chain, Queue, QueuePlace, RingForm};
use kasane_memory::{GuestMemory, Ram, RamSlot};
use kasane_spec_virtio::feature;
use proptest::prelude::*;
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use virtio_queue::mock::MockSplitQueue;
use virtio_queue::{Queue as TheirQueue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const SIZE: u16 = 16;
const RAM_LEN: usize = 1 << 20;
/// Where the used ring is.
const USED: u64 = 0x2000;
/// Behind the rings.
const TABLES: u64 = 0x8000;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A chain: lengths of readable and writable pieces, and whether it has a table of its own.
type ChainPlan = (Vec<u32>, Vec<u32>, bool);

fn chains() -> impl Strategy<Value = Vec<ChainPlan>> {
    let lengths = || prop::collection::vec(1u32..100_000, 0..3);
    let chain = (lengths(), lengths(), any::<bool>())
        .prop_filter("a chain has descriptors", |(r, w, _)| !r.is_empty() || !w.is_empty());
    prop::collection::vec(chain, 1..5)
}

fn descriptors(plan: &ChainPlan) -> Vec<(u64, u32, u16)> {
    let (readable, writable, _) = plan;
    let readable = readable.iter().map(|len| (*len, 0));
    let all = readable.chain(writable.iter().map(|len| (*len, WRITE)));
    all.enumerate().map(|(n, (len, flags))| (0x4_0000 + 0x1000 * n as u64, len, flags)).collect()
}

/// A chain by theirs, its first descriptor and all of them, and by ours.
type Taken = (u16, Vec<(u64, u32, bool)>, Chain);

/// Both devices, their memory, and the driver's ring.
struct Pair<'a> {
    mmap: &'a GuestMemoryMmap,
    mock: MockSplitQueue<'a, GuestMemoryMmap>,
    ram: Ram,
    theirs: TheirQueue,
    ours: Queue,
    place: QueuePlace,
    features: u64,
    /// Descriptors that the driver has used up since it has all of them.
    used_up: u16,
    /// Chains that were made available, and that were given back.
    available: u16,
    used: u16,
    tables: u64,
}

impl<'a> Pair<'a> {
    fn new(mmap: &'a GuestMemoryMmap, features: u64) -> Self {
        let mock = MockSplitQueue::new(mmap, SIZE);
        let place = QueuePlace {
            size: SIZE,
            descriptors: mock.desc_table_addr().0,
            driver: mock.avail_addr().0,
            // The mock's own used ring begins inside its available ring.
            device: USED,
        };
        let mut theirs: TheirQueue = mock.create_queue().unwrap();
        theirs.try_set_used_ring_address(GuestAddress(USED)).unwrap();
        theirs.set_event_idx(features & feature::EVENT_IDX != 0);
        let mut ours = Queue::new(SIZE);
        ours.set_place(place);
        ours.enable(RingForm::Split).unwrap();
        let ram = Ram::new(vec![RamSlot::allocated(0, RAM_LEN)]);
        Self {
            mmap,
            mock,
            ram,
            theirs,
            ours,
            place,
            features,
            used_up: 0,
            available: 0,
            used: 0,
            tables: TABLES,
        }
    }

    /// The mock driver, to which everything was given back, makes chains available, as long as its
    /// table has room.
    fn offer(&mut self, plans: &[ChainPlan]) {
        self.used_up = 0;
        self.tables = TABLES;
        for plan in plans {
            let mut chain = descriptors(plan);
            if plan.2 {
                let table = self.tables;
                self.tables += 16 * chain.len() as u64;
                for (n, (address, len, flags)) in chain.iter().enumerate() {
                    let next = if n + 1 < chain.len() { NEXT } else { 0 };
                    let raw = Descriptor::new(*address, *len, flags | next, n as u16 + 1);
                    let at = GuestAddress(table + 16 * n as u64);
                    self.mmap.write_obj(RawDescriptor::from(raw), at).unwrap();
                }
                chain = vec![(table, 16 * chain.len() as u32, INDIRECT)];
            }
            if self.used_up + chain.len() as u16 > SIZE {
                return;
            }
            let raw: Vec<RawDescriptor> = chain
                .iter()
                .enumerate()
                .map(|(n, (address, len, flags))| {
                    let last = n + 1 == chain.len();
                    let next = if last { 0 } else { self.used_up + n as u16 + 1 };
                    let flags = flags | if last { 0 } else { NEXT };
                    Descriptor::new(*address, *len, flags, next).into()
                })
                .collect();
            self.mock.add_desc_chains(&raw, self.used_up).unwrap();
            self.used_up += chain.len() as u16;
            self.wrap();
        }
    }

    /// The mock driver doesn't know that a ring begins again at its end: it has put the newest entry
    /// behind it.
    fn wrap(&mut self) {
        let entry = |index: u16| GuestAddress(self.place.driver + 4 + 2 * u64::from(index));
        let head: u16 = self.mmap.read_obj(entry(self.available)).unwrap();
        self.mmap.write_obj(head, entry(self.available % SIZE)).unwrap();
        self.available += 1;
    }

    /// The driver wants to be told of the next chain that is used, or of one so many behind it.
    fn want_event(&self, beyond: u16) {
        let at = self.place.driver + 4 + 2 * u64::from(SIZE);
        self.mmap.write_obj(self.used + beyond, GuestAddress(at)).unwrap();
    }

    /// What the driver wrote goes to our memory too; what the devices wrote stays.
    fn copy_from_driver(&self) {
        let mut bytes = vec![0; self.place.device as usize];
        self.mmap.read_slice(&mut bytes, GuestAddress(0)).unwrap();
        self.ram.write(0, &bytes).unwrap();
        let mut tables = vec![0; 0x8000];
        self.mmap.read_slice(&mut tables, GuestAddress(TABLES)).unwrap();
        self.ram.write(TABLES, &tables).unwrap();
    }

    /// What the devices wrote.
    fn used_rings(&self) -> (Vec<u8>, Vec<u8>) {
        let len = 6 + 8 * usize::from(SIZE);
        let (mut theirs, mut ours) = (vec![0; len], vec![0; len]);
        self.mmap.read_slice(&mut theirs, GuestAddress(self.place.device)).unwrap();
        self.ram.read(self.place.device, &mut ours).unwrap();
        (theirs, ours)
    }

    /// Takes all chains: descriptors by theirs, chains by ours.
    fn take(&mut self) -> Vec<Taken> {
        let mut taken = Vec::new();
        self.theirs.disable_notification(self.mmap).unwrap();
        while let Some(chain) = self.theirs.pop_descriptor_chain(self.mmap) {
            let ours = self.ours.pop(&self.ram, self.features).unwrap().expect("theirs has one");
            let head = chain.head_index();
            let all = chain.map(|d| (d.addr().0, d.len(), d.is_write_only())).collect();
            taken.push((head, all, ours));
        }
        assert_eq!(self.ours.pop(&self.ram, self.features), Ok(None));
        assert!(!self.theirs.enable_notification(self.mmap).unwrap());
        taken
    }
}

proptest! {
    #[test]
    fn both_devices_see_and_do_the_same(
        event_idx in prop::sample::select(vec![0, feature::EVENT_IDX]),
        rounds in prop::collection::vec((chains(), 0u16..6), 1..40),
        lens in prop::collection::vec(any::<u32>(), 16),
    ) {
        let mmap: GuestMemoryMmap =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM_LEN)]).unwrap();
        let mut pair = Pair::new(&mmap, event_idx | feature::INDIRECT_DESC);
        let mut lens = lens.into_iter().cycle();
        for (plans, event) in rounds {
            pair.offer(&plans);
            pair.want_event(event);
            pair.copy_from_driver();
            let mut taken = pair.take();
            for (_, theirs, ours) in &taken {
                let ours_readable = ours.readable.iter().map(|range| (range.gpa, range.len, false));
                let ours_writable = ours.writable.iter().map(|range| (range.gpa, range.len, true));
                let ours: Vec<_> = ours_readable.chain(ours_writable).collect();
                prop_assert_eq!(theirs, &ours);
            }
            taken.reverse();
            let any = !taken.is_empty();
            pair.used += taken.len() as u16;
            for (head, _, chain) in taken {
                let len = lens.next().unwrap();
                pair.theirs.add_used(pair.mmap, head, len).unwrap();
                pair.ours.push(&pair.ram, pair.features, &[(chain.id, len)]).unwrap();
            }
            let (theirs, ours) = pair.used_rings();
            prop_assert_eq!(theirs, ours);
            // Theirs always interrupts without event indices, also for nothing.
            let wanted = pair.theirs.needs_notification(pair.mmap).unwrap() && any;
            prop_assert_eq!(pair.ours.wants_signal(&pair.ram, pair.features), Ok(wanted));
        }
    }
}
