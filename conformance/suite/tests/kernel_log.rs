//! A stock kernel's warnings and errors in our machine are among those that it prints in QEMU's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests may panic

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use kasane_conformance::{Guests, Kasane, run_parameter};

const SCRIPT: &str = "echo log begins; dmesg -r; echo log ends";
/// The kernel's log levels up to "warning" (`include/linux/kern_levels.h`).
const COMPLAINTS: [&str; 5] = ["<0>", "<1>", "<2>", "<3>", "<4>"];

/// Warnings and worse, without their times.
fn complaints(console: &str) -> BTreeSet<String> {
    let log = console.split_once("log begins").expect("no log was printed").1;
    let (log, _) = log.split_once("log ends").expect("the log is not complete");
    assert!(log.contains("Linux version"), "the log has no beginning: {log}");
    log.lines()
        .map(|line| line.trim_end_matches('\r'))
        .filter(|line| COMPLAINTS.iter().any(|level| line.starts_with(level)))
        .map(|line| line.split_once("] ").map_or(line, |(_time, text)| text).to_owned())
        .collect()
}

/// What both are given.
fn common(kernel: &str) -> [String; 3] {
    let guests = Guests::find();
    let path = |name: &str| guests.image(name).unwrap().display().to_string();
    let append = format!("console=ttyS0 panic=-1 quiet log_buf_len=1M {}", run_parameter(SCRIPT));
    [path(kernel), path("initramfs-shell.gz"), append]
}

fn in_kasane([kernel, initrd, append]: &[String; 3]) -> String {
    let arguments = ["run", "--memory", "512M", "--cpus", "2", "--no-reboot", "--timeout", "600"];
    let images = ["--kernel", kernel, "--initrd", initrd, "--append", append];
    let run = Kasane::find().unwrap().run(&[&arguments[..], &images[..]].concat()).unwrap();
    assert_eq!(run.code, 0, "{}\n{}", run.console, run.messages);
    run.console
}

fn in_qemu([kernel, initrd, append]: &[String; 3]) -> String {
    let output = Command::new("qemu-system-x86_64")
        .args(["-M", "pc", "-accel", "tcg", "-cpu", "max", "-m", "512", "-smp", "2"])
        .args(["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"])
        .args(["-kernel", kernel, "-initrd", initrd, "-append", append])
        .stdin(Stdio::null())
        .output()
        .expect("this test needs QEMU (Debian: apt-get install qemu-system-x86)");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn no_complaint_of_our_own(kernel: &str) {
    let given = common(kernel);
    let ours = complaints(&in_kasane(&given));
    let theirs = complaints(&in_qemu(&given));

    let only_ours: Vec<&String> = ours.difference(&theirs).collect();

    assert!(only_ours.is_empty(), "{kernel}: only in our machine: {only_ours:#?}");
}

#[test]
#[ignore = "long: nightly"]
fn the_cloud_kernel_complains_of_nothing_that_qemu_has_not() {
    no_complaint_of_our_own("cloud/vmlinuz");
}

#[test]
#[ignore = "long: nightly"]
fn the_generic_kernel_complains_of_nothing_that_qemu_has_not() {
    no_complaint_of_our_own("amd64/vmlinuz");
}
