//! Our guest with the crate `virtio-drivers` (`guests/drivers`): drivers that nobody here wrote, and
//! that do other things than Linux' (no interrupts, small rings), against each device, over both
//! transports. Also Debian's own driver of the transport that the other tests don't use.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests may panic
#![allow(clippy::indexing_slicing)] // and fail so

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use kasane_conformance::{Dialogue, Guests, Kasane, run_parameter};

const DISK_LEN: u64 = 8 << 20;
const SECTOR: usize = 512;
/// Sectors that the guest writes at a time, and where: as in `guests/drivers/src/check/disk.rs`.
const RUN: usize = 64;
const PLACES: [usize; 3] = [0, 777, DISK_LEN as usize / SECTOR - RUN];
/// The port of the host's sockets that the guest connects to.
const PORT: u32 = 1234;

/// A folder for one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("kasane-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _left_there = fs::remove_dir_all(&self.0);
    }
}

/// A program on the host that says what it hears to the first who connects; gives how much that was.
fn echo(socket: &Path) -> JoinHandle<usize> {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut bytes, mut total) = ([0; 4096], 0);
        while let Ok(len @ 1..) = stream.read(&mut bytes) {
            stream.write_all(&bytes[..len]).unwrap();
            total += len;
        }
        total
    })
}

/// What the guest fills a sector with.
fn sector(number: usize) -> Vec<u8> {
    let word = |n: usize| (number as u32).wrapping_mul(0x9E37_79B9).wrapping_add(n as u32);
    (0..SECTOR / 4).flat_map(|n| word(n).to_le_bytes()).collect()
}

/// Runs the guest with all devices; gives what it said on its serial port.
fn run(folder: &Folder, engine: &str, transport: &str) -> String {
    let [disk, serial, definition] = ["disk.img", "serial.txt", "vm.toml"].map(|n| folder.file(n));
    File::create(&disk).unwrap().set_len(DISK_LEN).unwrap();
    let text = "[devices]\nvsock = 7\nballoon = false\n[home.hosted]\nvsock = \"vsock\"\n";
    fs::write(&definition, text).unwrap();
    let host = echo(&folder.file(&format!("vsock_{PORT}")));
    let kernel = Guests::find().image("drivers/drivers.elf").unwrap();
    let (disk, to) = (format!("{},serial=SERIAL", disk.display()), serial.display());
    let arguments = [
        ["--kernel", kernel.to_str().unwrap()],
        ["--memory", "64M"],
        ["--disk", &disk],
        ["--net", "nat"],
        ["--console", "stdio"],
        ["--serial", &format!("file:{to}")],
        ["--engine", engine],
        ["--timeout", "300"],
        ["--transport", transport],
    ];
    let arguments = [&["run", definition.to_str().unwrap()], arguments.as_flattened()].concat();

    let mut guest = Dialogue::start(&arguments).unwrap();
    let asked = guest.expect("question\n");
    let (status, said) = asked
        .and_then(|_| guest.leave_by("an answer"))
        .unwrap_or_else(|why| panic!("{why}\n{}", fs::read_to_string(&serial).unwrap()));

    let lines = fs::read_to_string(&serial).unwrap();
    assert!(status.success() && said.contains("heard an answer\n"), "{status} {said}\n{lines}");
    assert_eq!(host.join().unwrap(), 10_000, "{lines}");
    lines
}

fn check(engine: &str, transport: &str) {
    let folder = Folder::new(&format!("drivers-{engine}-{transport}"));

    let said = run(&folder, engine, transport);

    for (device, what) in [
        ("blk", "16384 sectors, serial `SERIAL`, 192 written and read back"),
        ("net", "gateway 52:55:0a:00:02:02, 40 echoes"),
        ("console", "heard `an answer`"),
        ("rng", "2 draws of 256 bytes"),
        ("vsock", "context 7, 10000 bytes there and back"),
    ] {
        let head = format!("ok {device} over {transport}: ");
        let line = said.lines().find_map(|line| line.strip_prefix(&head)).unwrap_or_default();
        assert!(line.contains(what), "{device}: {what}\n{said}");
    }
    assert!(said.ends_with("guest drivers: 5 passed, 0 failed\n"), "{said}");
    let disk = fs::read(folder.file("disk.img")).unwrap();
    let written =
        |number: usize| PLACES.iter().any(|first| (*first..first + RUN).contains(&number));
    for (number, found) in disk.chunks(SECTOR).enumerate() {
        let wanted = if written(number) { sector(number) } else { vec![0; SECTOR] };
        assert!(found == wanted, "sector {number} of the disk's file");
    }
}

#[test]
fn the_crate_drives_the_devices_over_pci_under_the_translator() {
    check("translate", "pci");
}

#[test]
fn the_crate_drives_the_devices_over_pci_under_the_interpreter() {
    check("interp", "pci");
}

#[test]
fn the_crate_drives_the_devices_over_mmio_under_the_translator() {
    check("translate", "mmio");
}

#[test]
fn the_crate_drives_the_devices_over_mmio_under_the_interpreter() {
    check("interp", "mmio");
}

/// A guest that is saved while it uses its disk, and goes on in another process. It can't come to its
/// end in the first one: nobody answers its question there.
fn saved_and_restored(transport: &str, exits: u32) {
    let folder = Folder::new(&format!("drivers-saved-{transport}-{exits}"));
    let [disk, serial, state] = ["disk.img", "serial.txt", "state"].map(|name| folder.file(name));
    File::create(&disk).unwrap().set_len(DISK_LEN).unwrap();
    let kernel = Guests::find().image("drivers/drivers.elf").unwrap();
    let arguments = [
        ["--kernel", kernel.to_str().unwrap()],
        ["--memory", "64M"],
        ["--disk", disk.to_str().unwrap()],
        ["--net", "none"],
        ["--console", "stdio"],
        ["--serial", &format!("file:{}", serial.display())],
        ["--timeout", "300"],
        ["--transport", transport],
    ];
    let arguments = [&["run"], arguments.as_flattened()].concat();
    let (state, exits) = (state.to_str().unwrap(), exits.to_string());

    let save = ["--save-after", &exits, "--save-to", state];
    let first = Kasane::find().unwrap().run(&[&arguments[..], &save].concat()).unwrap();
    let guest = Dialogue::start(&[&arguments[..], &["--restore", state]].concat()).unwrap();
    let (status, said) = guest.leave_by("an answer").unwrap();

    let lines = fs::read_to_string(&serial).unwrap();
    let shown = || format!("after {exits} exits\n{}\n{said}\n{lines}", first.messages);
    assert!(first.messages.contains("saved"), "{}", shown());
    assert!(status.success() && said.contains("heard an answer\n"), "{}", shown());
    assert!(lines.ends_with("guest drivers: 3 passed, 0 failed\n"), "{}", shown());
}

/// The bus is set up by some 260 exits.
#[test]
fn a_guest_is_saved_amid_its_disks_requests_over_pci() {
    (260..400).step_by(20).for_each(|exits| saved_and_restored("pci", exits));
}

#[test]
fn a_guest_is_saved_amid_its_disks_requests_over_mmio() {
    (20..160).step_by(20).for_each(|exits| saved_and_restored("mmio", exits));
}

/// What Debian does with nine disks and a network: more devices than there are interrupts.
const SCRIPT: &str = "\
ls /sys/bus/platform/drivers/virtio-mmio | grep -c LNRO0005
grep -c IO-APIC.*virtio /proc/interrupts
for n in a b c d e f g h i; do
  yes $n-disk | head -c 1048576 >/$n
  dd if=/$n of=/dev/vd$n bs=64k seek=4 conv=fsync 2>/dev/null
  echo 3 >/proc/sys/vm/drop_caches
  dd if=/dev/vd$n bs=64k skip=4 count=16 2>/dev/null | cmp - /$n && echo vd$n is as it was written
done
head -c 64 /dev/hwrng | wc -c
ip link set eth0 up && udhcpc -i eth0 -n -q -s /bin/true 2>&1
";

#[test]
fn debians_driver_reaches_devices_over_mmio() {
    let folder = Folder::new("debian-mmio");
    let disks: Vec<PathBuf> = ('a'..='i').map(|n| folder.file(&format!("vd{n}"))).collect();
    let guests = Guests::find();
    let images = ["cloud/vmlinuz", "initramfs-virtio.gz"].map(|name| guests.image(name).unwrap());
    let append = format!("console=ttyS0 panic=-1 {}", run_parameter(SCRIPT));
    let mut arguments = vec!["run", "--transport", "mmio", "--cpus", "2", "--memory", "256M"];
    arguments.extend(["--no-reboot", "--timeout", "300", "--net", "nat", "--append", &append]);
    arguments.extend(["--kernel", images[0].to_str().unwrap()]);
    arguments.extend(["--initrd", images[1].to_str().unwrap()]);
    for disk in &disks {
        File::create(disk).unwrap().set_len(2 << 20).unwrap();
        arguments.extend(["--disk", disk.to_str().unwrap()]);
    }

    let run = Kasane::find().unwrap().run(&arguments).unwrap();

    let console = run.console.replace('\r', "");
    let shown = || format!("{console}\n--- messages\n{}", run.messages);
    let (_, said) =
        console.split_once("kasane-guest: ready\n").unwrap_or_else(|| panic!("{}", shown()));
    let lines: Vec<&str> = said.lines().collect();
    // Nine disks, a network card, random numbers, a balloon; on eight interrupts.
    assert_eq!(lines[..2], ["12", "8"], "{}", shown());
    for (disk, name) in disks.iter().zip('a'..='i') {
        let written = fs::read(disk).unwrap();
        let line = format!("vd{name} is as it was written");
        assert!(lines.contains(&line.as_str()), "{line}\n{}", shown());
        let text = format!("{name}-disk\n").repeat(16 * 65536 / 7 + 1);
        assert!(written[4 << 16..20 << 16] == text.as_bytes()[..16 << 16], "vd{name}");
    }
    assert!(lines.contains(&"64") && said.contains("lease of 10.0.2.15 obtained"), "{}", shown());
    assert_eq!(run.code, 0, "{}", shown());
}
