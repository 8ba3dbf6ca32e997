//! Every backend against a vector of bytes: random requests, several at a time.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // helpers of the tests assert by it

mod support;

use std::path::Path;

use kasane_host_disks::{DiskFormat, DiskLimits, DiskOptions, HostCache, Waiting};
use kasane_memory::GuestMemory;
use kasane_ports::{BlockBackend, BlockOperation, GuestRange, ZeroedSpace};
use proptest::prelude::*;
use support::{Folder, Rig, qemu_check, qemu_img, range, text};

const SECTOR: usize = 512;
/// Not a whole number of clusters.
const SECTORS: usize = 700;
const SIZE: usize = SECTORS * SECTOR;
/// Each request of a batch has its own sectors and its own memory.
const BATCH: usize = 5;

#[derive(Clone, Debug)]
enum Request {
    Read,
    Write { seed: u8 },
    Discard,
    Zero(ZeroedSpace),
    Flush,
}

#[derive(Clone, Debug)]
struct Step {
    request: Request,
    first: usize,
    count: usize,
    /// Where the memory is split, and how far from a page it begins.
    split: usize,
    skew: usize,
}

fn step() -> impl Strategy<Value = Step> {
    let request = prop_oneof![
        4 => Just(Request::Read),
        4 => any::<u8>().prop_map(|seed| Request::Write { seed }),
        1 => Just(Request::Discard),
        1 => Just(Request::Zero(ZeroedSpace::Keep)),
        1 => Just(Request::Zero(ZeroedSpace::Release)),
        1 => Just(Request::Flush),
    ];
    let length = prop_oneof![1..8usize, 1..140usize];
    (request, 0..SECTORS, length, any::<usize>(), prop_oneof![Just(0usize), 1..4096usize]).prop_map(
        |(request, first, count, split, skew)| Step {
            request,
            first,
            count: count.min(SECTORS - first),
            split: split % (count.min(SECTORS - first) * SECTOR),
            skew,
        },
    )
}

/// A discarded byte may be anything.
type Model = Vec<Option<u8>>;

fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|n| seed.wrapping_add((n / 7) as u8).wrapping_mul(31)).collect()
}

fn overlap(a: &Step, b: &Step) -> bool {
    a.first < b.first + b.count && b.first < a.first + a.count
}

/// Takes steps as long as none touches what another of them touches.
fn batches(steps: Vec<Step>) -> Vec<Vec<Step>> {
    let mut batches: Vec<Vec<Step>> = Vec::new();
    for step in steps {
        match batches.last_mut() {
            Some(batch)
                if batch.len() < BATCH && !batch.iter().any(|other| overlap(other, &step)) =>
            {
                batch.push(step);
            }
            _ => batches.push(vec![step]),
        }
    }
    batches
}

fn ranges(step: &Step, slot: usize) -> Vec<GuestRange> {
    let begin = (slot * (256 << 10) + step.skew) as u64;
    let len = step.count * SECTOR;
    if step.split == 0 {
        return vec![range(begin, len)];
    }
    // The second half comes first in memory.
    let second = len - step.split;
    vec![range(begin + second as u64, step.split), range(begin, second)]
}

fn put(rig: &Rig, ranges: &[GuestRange], data: &[u8]) {
    let mut at = 0;
    for range in ranges {
        rig.ram.write(range.gpa, &data[at..at + range.len as usize]).unwrap();
        at += range.len as usize;
    }
}

fn get(rig: &Rig, ranges: &[GuestRange]) -> Vec<u8> {
    let mut data = Vec::new();
    for range in ranges {
        let mut part = vec![0; range.len as usize];
        rig.ram.read(range.gpa, &mut part).unwrap();
        data.extend(part);
    }
    data
}

fn run_batch(rig: &mut Rig, model: &mut Model, batch: &[Step]) {
    let mut requests = Vec::new();
    for (slot, step) in batch.iter().enumerate() {
        let len = (step.count * SECTOR) as u64;
        let memory = ranges(step, slot);
        let (operation, memory) = match step.request {
            Request::Read => {
                put(rig, &memory, &vec![0xEE; len as usize]);
                (BlockOperation::Read, memory)
            }
            Request::Write { seed } => {
                put(rig, &memory, &pattern(seed, len as usize));
                (BlockOperation::Write, memory)
            }
            Request::Discard => (BlockOperation::Discard { len }, Vec::new()),
            Request::Zero(space) => (BlockOperation::WriteZeroes { len, space }, Vec::new()),
            Request::Flush => (BlockOperation::Flush, Vec::new()),
        };
        requests.push((operation, (step.first * SECTOR) as u64, memory));
    }
    let tokens = rig.submit(requests);
    for (slot, (step, token)) in batch.iter().zip(tokens).enumerate() {
        assert_eq!(rig.wait(token), Ok(()), "{step:?}");
        let place = step.first * SECTOR..(step.first + step.count) * SECTOR;
        match step.request {
            Request::Read => compare(&model[place], &get(rig, &ranges(step, slot)), step),
            Request::Write { seed } => {
                let data = pattern(seed, place.len());
                model[place].iter_mut().zip(data).for_each(|(to, byte)| *to = Some(byte));
            }
            Request::Discard => model[place].fill(None),
            Request::Zero(_) => model[place].fill(Some(0)),
            Request::Flush => {}
        }
    }
}

fn compare(model: &[Option<u8>], found: &[u8], what: &dyn std::fmt::Debug) {
    let wrong = model.iter().zip(found).position(|(m, f)| m.is_some_and(|m| m != *f));
    assert_eq!(wrong, None, "first wrong byte, {what:?}");
}

/// Runs the steps on an image, opens it again, and reads it all.
fn check(options: &DiskOptions, mut model: Model, steps: Vec<Step>) {
    let mut rig = Rig::new(options).unwrap();
    assert_eq!(rig.disk.info().capacity, SIZE as u64);
    for batch in batches(steps) {
        run_batch(&mut rig, &mut model, &batch);
    }
    rig.flush().unwrap();
    drop(rig);
    let mut rig = Rig::new(options).unwrap();
    compare(&model, &rig.read(0, SIZE).unwrap(), &"in the end");
}

fn empty_raw(path: &Path) {
    std::fs::File::create(path).unwrap().set_len(SIZE as u64).unwrap();
}

fn raw(steps: Vec<Step>, change: impl FnOnce(&mut DiskOptions)) {
    let folder = Folder::new();
    let path = folder.path("disk.img");
    empty_raw(&path);
    let mut options = DiskOptions::new(path);
    change(&mut options);
    check(&options, vec![Some(0); SIZE], steps);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        // A request may hang on a bug; there is nothing to learn from a thousand of them.
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn raw_by_the_ring(steps in prop::collection::vec(step(), 1..60)) {
        raw(steps, |_| {});
    }

    #[test]
    fn raw_by_threads(steps in prop::collection::vec(step(), 1..60)) {
        raw(steps, |options| options.waiting = Waiting::Threads);
    }

    #[test]
    fn raw_without_a_cache(steps in prop::collection::vec(step(), 1..40)) {
        raw(steps, |options| options.cache = HostCache::Direct);
    }

    #[test]
    fn raw_without_a_cache_by_threads(steps in prop::collection::vec(step(), 1..40)) {
        raw(steps, |options| {
            options.cache = HostCache::Direct;
            options.waiting = Waiting::Threads;
        });
    }

    #[test]
    fn raw_with_limits(steps in prop::collection::vec(step(), 1..30)) {
        raw(steps, |options| {
            options.limits = DiskLimits {
                bytes_per_second: std::num::NonZeroU64::new(100 << 20),
                operations_per_second: std::num::NonZeroU64::new(20_000),
            };
        });
    }

    #[test]
    fn qcow2(
        steps in prop::collection::vec(step(), 1..60),
        cluster in prop::sample::select(vec!["512", "4096", "65536"]),
        version in prop::sample::select(vec!["0.10", "1.1"]),
    ) {
        let folder = Folder::new();
        let path = folder.path("disk.qcow2");
        let size = SIZE.to_string();
        let settings = format!("cluster_size={cluster},compat={version}");
        qemu_img(&["create", "-q", "-f", "qcow2", "-o", &settings, text(&path), &size]);
        check(&DiskOptions::new(&path), vec![Some(0); SIZE], steps);
        qemu_check(&path);
    }

    #[test]
    fn qcow2_over_raw_over_compressed(
        steps in prop::collection::vec(step(), 1..60),
        cluster in prop::sample::select(vec!["512", "65536"]),
    ) {
        let folder = Folder::new();
        let [raw, middle, top] = ["base.raw", "middle.qcow2", "top.qcow2"].map(|n| folder.path(n));
        let base = pattern(3, SIZE - 40 * SECTOR);
        std::fs::write(&raw, &base).unwrap();
        qemu_img(&["convert", "-q", "-c", "-f", "raw", "-O", "qcow2", text(&raw), text(&middle)]);
        let settings = format!("cluster_size={cluster},backing_fmt=qcow2");
        let size = SIZE.to_string();
        qemu_img(&["create", "-q", "-f", "qcow2", "-b", "middle.qcow2", "-o", &settings,
            text(&top), &size]);
        let before = std::fs::read(&middle).unwrap();
        let mut model: Model = base.into_iter().map(Some).collect();
        model.resize(SIZE, Some(0));

        let options = DiskOptions { format: Some(DiskFormat::Qcow2), ..DiskOptions::new(&top) };
        check(&options, model, steps);

        qemu_check(&top);
        prop_assert!(before == std::fs::read(&middle).unwrap());
    }
}
