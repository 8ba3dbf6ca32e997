//! A whole Debian with systemd on virtio devices: it boots to login with nothing failed, reaches
//! the network and is reached, and data comes through whole. `cargo xtask guests debian-root` makes
//! the disk; each test works on a copy. What needs the world outside (a name, a package) is tried
//! where the host itself reaches it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests may panic

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kasane_conformance::{DebianDisk, Dialogue};

const GIBIBYTE: &str = "1073741824";

/// A scratch file, removed at the end.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _left_behind = fs::remove_file(&self.0);
    }
}

fn disk(name: &str) -> DebianDisk {
    DebianDisk::copy(name).unwrap_or_else(|error| panic!("{error}"))
}

fn boot(disk: &DebianDisk, flags: &[[&str; 2]]) -> Dialogue {
    disk.boot(flags).unwrap_or_else(|error| panic!("{error}"))
}

fn succeed(guest: &mut Dialogue, command: &str) -> String {
    guest.succeed(command).unwrap_or_else(|error| panic!("{error}"))
}

fn power_off(guest: Dialogue) {
    let (status, said) = guest.leave_by("dmesg -n 7; poweroff").unwrap();
    assert!(status.success(), "{status}\n{said}");
    for complaint in ["BUG:", "WARNING:", "Call Trace", "Oops", "Kernel panic", "I/O error"] {
        assert!(!said.contains(complaint), "{complaint}:\n{said}");
    }
}

/// The drivers that have a device: `net` for `/sys/bus/virtio/drivers/virtio_net/virtio2`.
const BOUND: &str = "cd /sys/bus/virtio/drivers; ls -d */virtio* | cut -d/ -f1 | sort -u; cd";

fn comes_up_whole(cpus: &str, engine: &str) {
    let disk = disk(&format!("boot-{cpus}-{engine}"));
    let flags = [
        ["--cpus", cpus],
        ["--engine", engine],
        ["--net", "nat"],
        ["--vsock", "5"],
        ["--console", "file:/dev/null"],
    ];

    let mut guest = boot(&disk, &flags);

    assert_eq!(succeed(&mut guest, "systemctl --failed --no-legend --plain"), "");
    assert_eq!(succeed(&mut guest, "systemctl is-system-running"), "running\n");
    assert_eq!(succeed(&mut guest, "nproc").trim(), cpus);
    let bound = succeed(&mut guest, BOUND);
    let devices = [
        "virtio_balloon",
        "virtio_blk",
        "virtio_console",
        "virtio_net",
        "virtio_rng",
        "vmw_vsock_virtio_transport",
    ];
    for device in devices {
        assert!(bound.lines().any(|line| line == device), "{device} is not among\n{bound}");
    }
    let addresses = succeed(&mut guest, "networkctl --no-legend; ip -4 -brief address");
    assert!(addresses.contains("10.0.2.15/24"), "{addresses}");
    power_off(guest);
}

#[test]
#[ignore = "long: nightly"]
fn debian_comes_up_whole_with_one_processor() {
    comes_up_whole("1", "translate");
}

#[test]
#[ignore = "long: nightly"]
fn debian_comes_up_whole_with_four_processors() {
    comes_up_whole("4", "translate");
}

#[test]
#[ignore = "long: nightly"]
fn debian_comes_up_whole_under_the_interpreter() {
    comes_up_whole("1", "interp");
}

/// Whether this host reaches the web server of this name, and if not, that it was not tried.
fn host_reaches(name: &str) -> bool {
    let address = (name, 80).to_socket_addrs().ok().and_then(|mut found| found.next());
    let reached = address.is_some_and(|address| TcpStream::connect(address).is_ok());
    if !reached {
        println!("not tried: this host has no package source");
    }
    reached
}

#[test]
#[ignore = "long: nightly"]
fn names_are_found_and_a_package_is_installed() {
    let disk = disk("packages");
    let mut guest = boot(&disk, &[["--cpus", "2"], ["--net", "nat"]]);
    let name = r"sed -n 's#^deb .*http://\([^/]*\)/.*#\1#p' /etc/apt/sources.list | head -n1";
    let source = succeed(&mut guest, name);
    let source = source.trim();

    if host_reaches(source) {
        let address = succeed(&mut guest, &format!("getent ahosts {source}"));
        let updated = succeed(&mut guest, "apt-get --quiet update");
        let hello = "apt-get --quiet --yes --no-install-recommends install hello && hello";
        let installed = succeed(&mut guest, hello);

        assert!(address.contains("STREAM"), "{address}");
        assert!(!updated.contains("\nErr:"), "{updated}");
        assert!(installed.ends_with("Hello, world!\n"), "{installed}");
    }
    power_off(guest);
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// `ssh` to the guest behind a port of this host.
fn ssh(port: u16, command: &str) -> Command {
    let mut ssh = Command::new("ssh");
    ssh.arg("-i").arg(DebianDisk::part("id_ed25519").unwrap()).args(["-p", &port.to_string()]);
    for option in [
        "BatchMode=yes",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "LogLevel=ERROR",
    ] {
        ssh.args(["-o", option]);
    }
    ssh.args(["root@127.0.0.1", command]);
    ssh
}

fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// The sum alone, of `sha256sum`'s line.
fn sum(line: &str) -> String {
    line.split_whitespace().next().unwrap_or_default().to_owned()
}

fn sum_of(file: &Path) -> String {
    sum(&printed(Command::new("sha256sum").stdin(File::open(file).unwrap())))
}

#[test]
#[ignore = "long: nightly"]
fn a_gibibyte_is_copied_both_ways_through_a_forwarded_port() {
    let disk = disk("ssh");
    let port = free_port();
    let forward = format!("tcp:127.0.0.1:{port}:22");
    let flags = [["--cpus", "2"], ["--net", "nat"], ["--forward", &forward]];
    let mut guest = boot(&disk, &flags);
    let [there, back] = ["there", "back"].map(|end| Scratch(disk.path().with_extension(end)));
    let random = File::open("/dev/urandom").unwrap();
    let made = File::create(&there.0).unwrap();
    printed(Command::new("head").args(["-c", GIBIBYTE]).stdin(random).stdout(made));

    let hostname = printed(ssh(port, "hostname").stdin(Stdio::null()));
    let copied = printed(ssh(port, "cat >/var/tmp/copy").stdin(File::open(&there.0).unwrap()));
    let in_guest = succeed(&mut guest, "sync; sha256sum /var/tmp/copy");
    let returned = File::create(&back.0).unwrap();
    printed(ssh(port, "cat /var/tmp/copy").stdin(Stdio::null()).stdout(returned));

    assert_eq!((hostname.as_str(), copied.as_str()), ("kasane-root\n", ""));
    assert_eq!(sum(&in_guest), sum_of(&there.0));
    assert_eq!(sum_of(&back.0), sum_of(&there.0));
    power_off(guest);
}

/// Gives a guest an address on the LAN, by hand: there is nobody who would give it one.
fn join(guest: &mut Dialogue, address: &str) {
    let card = "$(ls /sys/class/net | grep -v '^lo$')";
    succeed(guest, "systemctl stop systemd-networkd.socket systemd-networkd.service");
    succeed(guest, &format!("ip address add {address}/24 dev {card} && ip link set {card} up"));
}

#[test]
#[ignore = "long: nightly"]
fn a_gibibyte_is_copied_between_two_guests_on_a_lan() {
    let disks = [disk("lan-left"), disk("lan-right")];
    let lan = format!("lan:debian{}", std::process::id());
    let [mut left, mut right] = disks.each_ref().map(|disk| boot(disk, &[["--net", &lan]]));
    join(&mut left, "10.77.0.1");
    join(&mut right, "10.77.0.2");
    succeed(&mut left, &format!("head -c {GIBIBYTE} /dev/urandom >/var/tmp/copy"));
    let before = succeed(&mut left, "sync; sha256sum </var/tmp/copy");

    succeed(&mut right, "socat -u TCP-LISTEN:5000 OPEN:/var/tmp/copy,creat,trunc & sleep 1");
    succeed(&mut left, "socat -u OPEN:/var/tmp/copy TCP:10.77.0.2:5000,retry=60");
    succeed(&mut right, "wait; sync");
    let after = succeed(&mut right, "sha256sum </var/tmp/copy");

    assert_eq!(sum(&after), sum(&before));
    let reached = succeed(&mut right, "ping -c 3 -W 20 10.77.0.1");
    assert!(reached.contains(" 0% packet loss"), "{reached}");
    power_off(left);
    power_off(right);
}
