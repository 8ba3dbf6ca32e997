//! Images that are wrong, in use, or change under us; and what a device hears of it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // helpers of the tests assert by it

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use kasane_host_disks::{
    DiskAccess, DiskError, DiskFormat, DiskOptions, Holder, HostCache, Trouble, Waiting,
};
use kasane_memory::GuestMemory;
use kasane_ports::{BlockBackend, BlockError, BlockOperation, GuestRange, ZeroedSpace};
use support::{Folder, MEMORY, Rig, output, qemu_check, qemu_img, range, spawn, text};

fn raw(folder: &Folder, len: usize) -> DiskOptions {
    let path = folder.path("disk.img");
    std::fs::write(&path, vec![7; len]).unwrap();
    DiskOptions::new(path)
}

fn qcow2(folder: &Folder, size: &str) -> DiskOptions {
    let path = folder.path("disk.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", text(&path), size]);
    DiskOptions::new(path)
}

fn read_only(options: &DiskOptions) -> DiskOptions {
    DiskOptions { access: DiskAccess::ReadOnly, ..options.clone() }
}

fn refusal(options: &DiskOptions) -> DiskError {
    Rig::new(options).err().unwrap()
}

#[test]
fn ranges_outside_of_the_disk_and_of_memory_are_errors() {
    let folder = Folder::new();
    let mut rig = Rig::new(&raw(&folder, 8192)).unwrap();
    let mut ask = |operation, offset, ranges: Vec<GuestRange>| rig.one(operation, offset, ranges);
    let zero = BlockOperation::WriteZeroes { len: u64::MAX - 511, space: ZeroedSpace::Keep };

    assert_eq!(ask(BlockOperation::Read, 7680, vec![range(0, 1024)]), Err(BlockError::OutOfRange));
    assert_eq!(ask(BlockOperation::Read, 1, vec![range(0, 512)]), Err(BlockError::OutOfRange));
    assert_eq!(ask(BlockOperation::Read, 0, vec![range(0, 100)]), Err(BlockError::OutOfRange));
    assert_eq!(ask(zero, 512, Vec::new()), Err(BlockError::OutOfRange));
    let far = range(MEMORY as u64 - 256, 512);
    assert_eq!(ask(BlockOperation::Read, 0, vec![far]), Err(BlockError::Memory));
    assert_eq!(ask(BlockOperation::Read, 0, Vec::new()), Ok(()));
    assert_eq!(ask(BlockOperation::Flush, u64::MAX, Vec::new()), Ok(()));
}

#[test]
fn a_read_only_disk_is_not_written_to() {
    let folder = Folder::new();
    let options = read_only(&raw(&folder, 4096));
    let mut rig = Rig::new(&options).unwrap();

    assert!(rig.disk.info().read_only);
    assert_eq!(rig.write(0, &[1; 512]), Err(BlockError::ReadOnly));
    let discard = rig.one(BlockOperation::Discard { len: 512 }, 0, Vec::new());
    assert_eq!(discard, Err(BlockError::ReadOnly));
    assert_eq!(rig.flush(), Ok(()));
    assert_eq!(rig.read(0, 512), Ok(vec![7; 512]));
}

#[test]
fn a_cut_off_sector_reads_as_zeros_and_can_be_written() {
    let folder = Folder::new();
    let options = raw(&folder, 1000);
    let mut reader = Rig::new(&read_only(&options)).unwrap();
    let tail = reader.read(512, 512).unwrap();
    drop(reader);
    let mut writer = Rig::new(&options).unwrap();
    writer.write(512, &[9; 512]).unwrap();

    assert_eq!(tail[..488], [7; 488]);
    assert_eq!(tail[488..], [0; 24]);
    assert_eq!(writer.read(512, 512), Ok(vec![9; 512]));
    assert_eq!(std::fs::metadata(&options.path).unwrap().len(), 1024);
}

#[test]
fn a_file_that_becomes_shorter_is_an_error_and_no_zeros() {
    for waiting in [Waiting::Auto, Waiting::Threads] {
        let folder = Folder::new();
        let options = DiskOptions { waiting, ..raw(&folder, 1 << 20) };
        let mut rig = Rig::new(&options).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        rig.disk.on_trouble(move |trouble| tell.send(trouble.clone()).unwrap());
        File::options().write(true).open(&options.path).unwrap().set_len(4096).unwrap();

        assert_eq!(rig.read(0, 4096), Ok(vec![7; 4096]));
        assert_eq!(rig.read(0, 8192), Err(BlockError::Io));
        assert_eq!(rig.read(0, 8192), Err(BlockError::Io));
        let why = "the image became shorter than 1048576 bytes".to_owned();
        let told: Vec<Trouble> = told.try_iter().collect();
        assert_eq!(told, [Trouble { error: BlockError::Io, why }], "once");
    }
}

#[test]
fn a_full_device_is_no_space_and_says_so() {
    // Always full (full(4)); but no file, so it is reached where a file would be.
    let error = refusal(&DiskOptions::new("/dev/full"));

    assert_eq!(
        error.to_string(),
        "`/dev/full` is neither a file nor a block device, and no disk image"
    );
}

#[test]
fn what_is_no_image_is_named() {
    let folder = Folder::new();
    let missing = DiskOptions::new(folder.path("missing.img"));
    std::fs::write(folder.path("empty.img"), []).unwrap();
    std::fs::write(folder.path("not.qcow2"), [0; 4096]).unwrap();
    let fifo = folder.path("fifo");
    assert!(output(Command::new("mkfifo").arg(&fifo)).status.success());

    assert!(refusal(&missing).to_string().starts_with("can't open `"));
    assert!(refusal(&DiskOptions::new(folder.path(""))).to_string().contains("is a folder"));
    assert!(refusal(&DiskOptions::new(&fifo)).to_string().contains("neither a file nor"));
    assert!(refusal(&DiskOptions::new(folder.path("empty.img"))).to_string().contains("is empty"));
    let other = refusal(&DiskOptions::new(folder.path("not.qcow2"))).to_string();
    assert!(other.ends_with("is no qcow2 image"), "{other}");
}

#[test]
fn a_raw_disk_in_which_a_guest_wrote_a_qcow2_header_is_not_taken_for_one() {
    let folder = Folder::new();
    let image = qcow2(&folder, "1M");
    let renamed = folder.path("guest.img");
    std::fs::copy(&image.path, &renamed).unwrap();

    assert!(matches!(refusal(&DiskOptions::new(&renamed)), DiskError::LooksLikeQcow2 { .. }));
    let said = DiskOptions { format: Some(DiskFormat::Raw), ..DiskOptions::new(&renamed) };
    let rig = Rig::new(&said).unwrap();
    assert_eq!(rig.disk.info().capacity, std::fs::metadata(&renamed).unwrap().len());
}

#[test]
fn one_writer_or_many_readers() {
    let folder = Folder::new();
    for options in [raw(&folder, 4096), qcow2(&folder, "1M")] {
        let writer = Rig::new(&options).unwrap();
        let errors = [refusal(&options), refusal(&read_only(&options))];
        drop(writer);
        let readers = [Rig::new(&read_only(&options)), Rig::new(&read_only(&options))];
        let late = refusal(&options);

        assert!(readers.iter().all(Result::is_ok));
        for error in errors.into_iter().chain([late]) {
            assert!(matches!(error, DiskError::InUse { holder: Holder::Ourselves, .. }), "{error}");
        }
    }
}

/// A program of QEMU's that has an image open until its input ends.
fn qemu_io(path: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new("qemu-io");
    command.args(arguments).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = spawn(&mut command);
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"length\n").unwrap();
    let mut answer = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut answer).unwrap();
    child
}

#[test]
fn qemu_and_we_refuse_each_other_by_name() {
    let folder = Folder::new();
    for (options, format) in [(raw(&folder, 4096), "raw"), (qcow2(&folder, "1M"), "qcow2")] {
        let mut child = qemu_io(&options.path, &["-f", format]);
        let ours = refusal(&options);
        let pid = child.id();
        drop(child.stdin.take());
        child.wait().unwrap();
        let rig = Rig::new(&options).unwrap();
        let mut qemu = Command::new("qemu-io");
        let theirs = output(qemu.args(["-f", format, "-c", "write 0 512"]).arg(&options.path));
        drop(rig);

        let expected = Holder::Process { pid, program: "qemu-io".to_owned() };
        assert!(matches!(&ours, DiskError::InUse { holder, .. } if *holder == expected), "{ours}");
        let message = String::from_utf8(theirs.stderr).unwrap();
        assert!(message.contains("Is another process using the image"), "{message}");
    }
}

#[test]
fn a_reader_of_qemus_shares_a_backing_file_with_us() {
    let folder = Folder::new();
    let base = qcow2(&folder, "1M");
    let top = folder.path("top.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "disk.qcow2", text(&top)]);
    let mut child = qemu_io(&base.path, &["-r", "-f", "qcow2"]);

    let rig = Rig::new(&DiskOptions::new(&top));
    let writer = refusal(&base);
    drop(child.stdin.take());
    child.wait().unwrap();

    assert!(rig.is_ok());
    assert!(matches!(writer, DiskError::InUse { .. }));
}

/// The image is refused for this reason, and not a byte of it changed.
fn is_damaged(options: &DiskOptions, why: &str) {
    let before = std::fs::read(&options.path).unwrap();
    let error = refusal(options).to_string();
    assert!(error.contains(why), "{error}");
    assert!(before == std::fs::read(&options.path).unwrap());
}

fn with(options: &DiskOptions, at: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(&options.path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

#[test]
fn damaged_headers_are_refused_and_nothing_is_written() {
    let cases: [(u64, &[u8], &str); 12] = [
        (4, &9u32.to_be_bytes(), "is qcow2 of version 9"),
        (20, &40u32.to_be_bytes(), "clusters of 2^40 bytes"),
        (24, &(1u64 << 60).to_be_bytes(), "needs 2147483648"),
        (32, &1u32.to_be_bytes(), "is encrypted"),
        (36, &u32::MAX.to_be_bytes(), "33554432 are the most"),
        (40, &0x1234u64.to_be_bytes(), "its L1 table is at 0x1234"),
        (48, &(!0xFFFFu64).to_be_bytes(), "its table of reference counts is at"),
        (56, &0u32.to_be_bytes(), "no table of reference counts"),
        (60, &u32::MAX.to_be_bytes(), "4294967295 snapshots"),
        (72, &2u64.to_be_bytes(), "found it corrupt"),
        (72, &(1u64 << 40).to_be_bytes(), "needs the unknown features 0x10000000000"),
        (96, &7u32.to_be_bytes(), "reference counts of 2^7 bits"),
    ];
    for (at, bytes, why) in cases {
        let folder = Folder::new();
        let options = qcow2(&folder, "1M");
        with(&options, at, bytes);
        is_damaged(&options, why);
    }
}

#[test]
fn damaged_tables_are_refused_and_nothing_is_written() {
    let folder = Folder::new();
    let options = qcow2(&folder, "1M");
    let mut rig = Rig::new(&options).unwrap();
    rig.write(0, &[5; 65536]).unwrap();
    rig.write(1 << 17, &[6; 65536]).unwrap();
    drop(rig);
    let sound = std::fs::read(&options.path).unwrap();
    let long =
        |at: u64| u64::from_be_bytes(sound[at as usize..at as usize + 8].try_into().unwrap());
    let l1 = long(40);
    let l2 = long(l1) & 0x00FF_FFFF_FFFF_FE00;
    let refcount_block = long(long(48));
    let first = long(l2);
    let damage: [(u64, &[u8], &str); 5] = [
        (l1, &(1u64 << 62).to_be_bytes(), "entry 0 of the L1 table"),
        (l2, &(first | 0x200).to_be_bytes(), "entry 0 of the L2 table 0"),
        (l2, &(first + (1 << 40)).to_be_bytes(), "entry 0 of the L2 table 0"),
        // Two parts of the disk in one place.
        (l2 + 16, &first.to_be_bytes(), "is used 2 times, and counted as 1"),
        (refcount_block, &[0; 64], "is used 1 times, and counted as 0"),
    ];
    for (at, bytes, why) in damage {
        std::fs::write(&options.path, &sound).unwrap();
        with(&options, at, bytes);
        is_damaged(&options, why);
    }
    std::fs::write(&options.path, &sound[..sound.len() - 65536]).unwrap();
    is_damaged(&options, "of the L2 table 0");
}

#[test]
fn an_image_that_was_not_closed_is_refused() {
    let folder = Folder::new();
    let options = qcow2(&folder, "1M");
    with(&options, 72, &1u64.to_be_bytes());

    is_damaged(&options, "it was not closed");
    is_damaged(&read_only(&options), "it was not closed");
}

#[test]
fn backing_files_that_lead_in_a_circle_or_nowhere_are_refused() {
    let folder = Folder::new();
    let [a, b] = ["a.qcow2", "b.qcow2"].map(|name| folder.path(name));
    let create = |path: &Path, below: &str| {
        qemu_img(&[
            "create",
            "-q",
            "-u",
            "-f",
            "qcow2",
            "-F",
            "qcow2",
            "-b",
            below,
            text(path),
            "1M",
        ]);
    };
    create(&a, "b.qcow2");
    create(&b, "a.qcow2");
    let circle = refusal(&DiskOptions::new(&a)).to_string();
    create(&b, "gone.qcow2");
    let nowhere = refusal(&DiskOptions::new(&a)).to_string();
    create(&b, "json:{}");
    let other = refusal(&DiskOptions::new(&a)).to_string();

    assert!(circle.ends_with("lead back to itself"), "{circle}");
    assert!(nowhere.contains("gone.qcow2"), "{nowhere}");
    assert!(other.contains("has the backing file `json:{}`"), "{other}");
}

#[test]
fn snapshots_of_qemus_are_kept() {
    let folder = Folder::new();
    let options = qcow2(&folder, "1M");
    let mut rig = Rig::new(&options).unwrap();
    rig.write(0, &[1; 65536]).unwrap();
    drop(rig);
    qemu_img(&["snapshot", "-c", "before", text(&options.path)]);
    let mut rig = Rig::new(&options).unwrap();
    rig.write(0, &[2; 65536]).unwrap();
    rig.one(BlockOperation::Discard { len: 65536 }, 1 << 17, Vec::new()).unwrap();
    drop(rig);
    qemu_check(&options.path);
    qemu_img(&["snapshot", "-a", "before", text(&options.path)]);

    let mut rig = Rig::new(&options).unwrap();
    assert_eq!(rig.read(0, 65536), Ok(vec![1; 65536]));
}

#[test]
fn discarded_space_is_given_back() {
    use std::os::unix::fs::MetadataExt;
    let folder = Folder::new();
    for options in [raw(&folder, 4 << 20), qcow2(&folder, "4M")] {
        let mut rig = Rig::new(&options).unwrap();
        rig.write(0, &vec![9; 2 << 20]).unwrap();
        rig.write(2 << 20, &vec![9; 2 << 20]).unwrap();
        rig.flush().unwrap();
        let before = std::fs::metadata(&options.path).unwrap().blocks();
        rig.one(BlockOperation::Discard { len: 2 << 20 }, 0, Vec::new()).unwrap();
        rig.one(
            BlockOperation::WriteZeroes { len: 1 << 20, space: ZeroedSpace::Release },
            2 << 20,
            Vec::new(),
        )
        .unwrap();
        rig.flush().unwrap();
        let after = std::fs::metadata(&options.path).unwrap().blocks();

        assert!(after + (3 << 11) - 256 <= before, "{before} blocks before, {after} after");
        assert_eq!(rig.read(3 << 20, 512), Ok(vec![9; 512]));
        assert_eq!(rig.read(2 << 20, 512), Ok(vec![0; 512]));
    }
}

/// The cluster that is freed is given out again for the end of the range.
#[test]
fn space_that_is_given_back_is_nobody_elses() {
    let folder = Folder::new();
    std::fs::write(folder.path("base.img"), vec![3; 1 << 20]).unwrap();
    let top = folder.path("top.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base.img", text(&top)]);
    let mut rig = Rig::new(&DiskOptions::new(&top)).unwrap();
    rig.write(20 * 512, &[1; 109 * 512]).unwrap();
    let zero = BlockOperation::WriteZeroes { len: 136 * 512, space: ZeroedSpace::Release };

    rig.one(zero, 121 * 512, Vec::new()).unwrap();

    assert_eq!(rig.read(256 * 512, 512), Ok(vec![0; 512]));
    assert_eq!(rig.read(257 * 512, 65536), Ok(vec![3; 65536]));
}

#[test]
fn a_read_into_code_is_seen_by_the_code_map() {
    let folder = Folder::new();
    let cached = raw(&folder, 1 << 20);
    for cache in [HostCache::PageCache, HostCache::Direct] {
        let mut rig = Rig::new(&DiskOptions { cache, ..cached.clone() }).unwrap();
        let list = rig.ram.slots();
        let (slot, offset) = list.find(0x8000).unwrap();
        let page = slot.page(offset).unwrap();
        let mark = page.mark_code(0, 63);
        page.take_dirty(3);

        rig.one(BlockOperation::Read, 0, vec![range(0x8000, 4096)]).unwrap();

        assert_eq!(rig.ram.load_u16(0x8000), Ok(0x0707));
        assert_ne!(page.version(), mark.version);
        assert!(page.take_dirty(3));
    }
}

/// Who polls and who waits for completions take each of them once, together.
#[test]
fn requests_of_many_threads_all_end_once() {
    let folder = Folder::new();
    let uncached = DiskOptions { cache: HostCache::Direct, ..raw(&folder, 4 << 20) };
    for options in [raw(&folder, 4 << 20), uncached, qcow2(&folder, "4M")] {
        let rig = &Rig::new(&options).unwrap();
        let working = &AtomicU32::new(4);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                scope.spawn(move || {
                    for number in 0..200u64 {
                        let offset = thread * (1 << 20) + number * 4096;
                        let memory = vec![range(thread * (1 << 19), 4096)];
                        let token = thread << 32 | number << 8;
                        rig.submit_as(token, BlockOperation::Write, offset, memory.clone());
                        rig.submit_as(token + 1, BlockOperation::Flush, 0, Vec::new());
                        rig.submit_as(token + 2, BlockOperation::Read, offset, memory);
                        (0..3).for_each(|part| assert_eq!(rig.wait(token + part), Ok(())));
                    }
                    working.fetch_sub(1, Ordering::Relaxed);
                });
            }
            for _ in 0..2 {
                scope.spawn(|| {
                    while working.load(Ordering::Relaxed) > 0 {
                        rig.disk.poll();
                        std::thread::yield_now();
                    }
                });
            }
        });
        rig.disk.drain();
    }
}
