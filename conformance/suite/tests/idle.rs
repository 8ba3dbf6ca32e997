//! A stock kernel that does nothing costs the host next to nothing.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests may panic
#![allow(clippy::indexing_slicing)] // and fail so

use std::fs;
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use kasane_conformance::{DebianDisk, Guests, Kasane, run_parameter};

const SCRIPT: &str = "echo the idle time begins; sleep 14";
/// The kernel's own work behind a boot is over then.
const SETTLE: Duration = Duration::from_secs(2);
/// What systemd does late is over then.
const SETTLE_DEBIAN: Duration = Duration::from_secs(60);
const WATCHED: Duration = Duration::from_secs(10);
/// Linux tells processor times in hundredths of a second (proc(5), USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;
/// Of one core.
const ALLOWED: f64 = 0.02;

/// Processor time of a process in seconds: fields 14 and 15 of its `stat`.
fn processor_time(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, behind_name) = text.rsplit_once(')').unwrap();
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    let ticks: f64 = [11, 12].iter().map(|n| fields[*n].parse::<f64>().unwrap()).sum();
    ticks / TICKS_PER_SECOND
}

/// The share of a core that a process takes for a while.
fn share_of(pid: u32) -> f64 {
    let (began, before) = (Instant::now(), processor_time(pid));
    std::thread::sleep(WATCHED);
    (processor_time(pid) - before) / began.elapsed().as_secs_f64()
}

/// The share of a core that an idle guest takes.
fn idle_share(cpus: u32) -> f64 {
    let guests = Guests::find();
    let path = |name: &str| guests.image(name).unwrap().display().to_string();
    let arguments = [
        "run".to_owned(),
        "--kernel".to_owned(),
        path("cloud/vmlinuz"),
        "--initrd".to_owned(),
        path("initramfs-shell.gz"),
        "--append".to_owned(),
        format!("console=ttyS0 panic=-1 quiet {}", run_parameter(SCRIPT)),
        "--cpus".to_owned(),
        cpus.to_string(),
        "--no-reboot".to_owned(),
        "--timeout".to_owned(),
        "600".to_owned(),
    ];
    let mut child = Kasane::find().unwrap().start(&arguments).unwrap();
    let mut console = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(console.any(|line| line.unwrap().contains("the idle time begins")));
    std::thread::sleep(SETTLE);
    let share = share_of(child.id());
    let rest: Vec<String> = console.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest:#?}");
    share
}

#[test]
#[ignore = "long: nightly"]
fn an_idle_kernel_takes_under_two_hundredths_of_a_core() {
    let shares = [idle_share(1), idle_share(2)];

    assert!(shares.iter().all(|share| *share < ALLOWED), "{shares:?} with one and two processors");
}

#[test]
#[ignore = "long: nightly"]
fn an_idle_debian_takes_under_two_hundredths_of_a_core() {
    let disk = DebianDisk::copy("idle").unwrap();
    let guest = disk.boot(&[["--cpus", "2"], ["--net", "nat"], ["--vsock", "7"]]).unwrap();
    std::thread::sleep(SETTLE_DEBIAN);

    let share = share_of(guest.process());

    assert!(share < ALLOWED, "{share}");
    let (status, said) = guest.leave_by("poweroff").unwrap();
    assert!(status.success(), "{status}\n{said}");
}
