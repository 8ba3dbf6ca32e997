//! qcow2 images from anybody: checked, opened, read and written, or refused with a message. An
//! image that is found damaged is not changed.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use arbitrary::Arbitrary;
use kasane_host_disks::tools::{self, Backing, NewImage};
use kasane_host_disks::{Disk, DiskError, DiskFormat, DiskOptions};
use kasane_memory::{Ram, RamSlot};
use kasane_ports::{
    BlockBackend, BlockCompletion, BlockCompletions, BlockOperation, BlockRequest, GuestRange,
    ZeroedSpace,
};
use libfuzzer_sys::fuzz_target;

/// What is done to a sound image before it is opened.
#[derive(Arbitrary, Debug)]
enum Damage {
    /// A word of the header.
    Header { at: u8, value: u32 },
    /// An entry of a table, which lie in the first clusters.
    Entry { cluster: u8, index: u16, value: u64 },
    /// The same, pointing to a cluster.
    Pointer { cluster: u8, index: u16, to: u8, flags: u8 },
    Bytes { at: u32, bytes: [u8; 16] },
    Cut { len: u32 },
}

#[derive(Arbitrary, Debug)]
enum Request {
    Read { sector: u16, count: u8 },
    Write { sector: u16, count: u8 },
    Discard { sector: u16, count: u16 },
    Zero { sector: u16, count: u16, keep: bool },
    Flush,
}

#[derive(Arbitrary, Debug)]
struct Input {
    overlay: bool,
    damage: Vec<Damage>,
    requests: Vec<Request>,
}

struct Ignore(AtomicU64);

impl BlockCompletions for Ignore {
    fn completed(&self, done: &[BlockCompletion]) {
        self.0.fetch_add(done.len() as u64, Ordering::Relaxed);
    }
}

const SIZE: u64 = 4 << 20;
const CLUSTER: usize = 1 << 16;

static RAM: LazyLock<Arc<Ram>> =
    LazyLock::new(|| Arc::new(Ram::new(vec![RamSlot::allocated(0, 1 << 18)])));

/// A folder with two sound images that have data.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("kasane-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let [base, top] = ["base.qcow2", "top.qcow2"].map(|name| folder.join(name));
    let new = |path: &Path, backing| NewImage {
        path: path.to_owned(),
        format: DiskFormat::Qcow2,
        size: Some(SIZE),
        backing,
    };
    tools::create(&new(&base, None)).expect("an image");
    work(&base, &[Request::Write { sector: 5, count: 200 }, Request::Flush]).expect("a disk");
    let backing = Backing { path: base, format: None };
    tools::create(&new(&top, Some(backing))).expect("an image");
    work(&top, &[Request::Write { sector: 300, count: 9 }]).expect("a disk");
    folder
});

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = image.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn damage(image: &mut Vec<u8>, damage: &Damage) {
    let entry = |cluster: u8, index: u16| {
        usize::from(cluster % 8) * CLUSTER + usize::from(index % 64) * 8
    };
    match damage {
        Damage::Header { at, value } => put(image, usize::from(*at), &value.to_be_bytes()),
        Damage::Entry { cluster, index, value } => {
            put(image, entry(*cluster, *index), &value.to_be_bytes());
        }
        Damage::Pointer { cluster, index, to, flags } => {
            let value = u64::from(*flags) << 56 | u64::from(*to % 12) << 16;
            put(image, entry(*cluster, *index), &value.to_be_bytes());
        }
        Damage::Bytes { at, bytes } => put(image, *at as usize, bytes),
        Damage::Cut { len } => image.truncate(*len as usize),
    }
}

/// Opens an image and makes the requests.
fn work(path: &Path, requests: &[Request]) -> Result<(), DiskError> {
    let disk = Disk::open(&DiskOptions::new(path), RAM.clone())?;
    let device = Arc::new(Ignore(AtomicU64::new(0)));
    let weak = Arc::downgrade(&device);
    disk.connect(weak);
    let requests: Vec<_> = requests.iter().take(32).zip(0u64..).map(request).collect();
    let count = requests.len() as u64;
    disk.submit(requests);
    disk.drain();
    assert_eq!(device.0.load(Ordering::Relaxed), count, "each request ends once");
    Ok(())
}

fn request((request, token): (&Request, u64)) -> BlockRequest {
    let memory = |count: u8| vec![GuestRange { gpa: 0, len: u32::from(count) * 512 }];
    let sectors = |count: u16| u64::from(count) * 512;
    let (operation, sector, ranges) = match *request {
        Request::Read { sector, count } => (BlockOperation::Read, sector, memory(count)),
        Request::Write { sector, count } => (BlockOperation::Write, sector, memory(count)),
        Request::Discard { sector, count } => {
            (BlockOperation::Discard { len: sectors(count) }, sector, Vec::new())
        }
        Request::Zero { sector, count, keep } => {
            let space = if keep { ZeroedSpace::Keep } else { ZeroedSpace::Release };
            (BlockOperation::WriteZeroes { len: sectors(count), space }, sector, Vec::new())
        }
        Request::Flush => (BlockOperation::Flush, 0, Vec::new()),
    };
    let offset = u64::from(sector % 8192) * 512;
    BlockRequest { token, queue: 0, operation, offset, ranges }
}

fuzz_target!(|input: Input| {
    let sound = if input.overlay { "top.qcow2" } else { "base.qcow2" };
    let mut image = std::fs::read(FOLDER.join(sound)).expect("the image");
    input.damage.iter().for_each(|one| damage(&mut image, one));
    let path = FOLDER.join("fuzzed.qcow2");
    std::fs::write(&path, &image).expect("the image");
    let report = tools::check(&path, None);
    let _described = tools::info(&path, None);
    match work(&path, &input.requests) {
        Err(error) => {
            assert!(!error.to_string().is_empty() && !error.remedy().is_empty());
            assert!(std::fs::read(&path).expect("the image") == image, "it was changed: {error}");
        }
        Ok(()) => {
            assert!(report.is_ok_and(|report| report.is_sound()), "a damaged image was opened");
            let after = tools::check(&path, None).expect("what was opened can be checked");
            assert!(after.is_sound(), "{:?}", after.messages);
        }
    }
});
