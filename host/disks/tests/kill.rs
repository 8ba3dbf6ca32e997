//! A program that is killed while it writes loses nothing that it had flushed.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // helpers of the tests assert by it

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use kasane_host_disks::DiskOptions;
use support::{Folder, Rig, qemu_check, qemu_img, spawn, text};

const CHILD: &str = "KASANE_DISKS_TEST_IMAGE";
const RECORDS: u64 = 4096;
const BYTES: usize = 4096;
const SIZE: u64 = 64 << 20;

/// Records lie scattered, so that most need new clusters and some new tables.
fn place(number: u64) -> u64 {
    number.wrapping_mul(40_503) % (SIZE / BYTES as u64) * BYTES as u64
}

fn record(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(BYTES / 8)
}

/// Not a test, but the program that is killed: it writes records and says when each is safe.
#[test]
fn child() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let mut rig = Rig::new(&DiskOptions::new(path)).unwrap();
    let mut out = std::io::stdout();
    let begin = u64::from_le_bytes(rig.read(SIZE, 512).unwrap()[..8].try_into().unwrap());
    for number in begin..RECORDS {
        rig.write(place(number), &record(number)).unwrap();
        // Without a flush, the second write could outlive the first.
        rig.flush().unwrap();
        let mut next = vec![0; 512];
        next[..8].copy_from_slice(&(number + 1).to_le_bytes());
        rig.write(SIZE, &next).unwrap();
        rig.flush().unwrap();
        writeln!(out, "safe {number}").unwrap();
        out.flush().unwrap();
    }
}

/// Starts the child, kills it after so many records, and gives the last safe one.
fn run_and_kill(path: &Path, after: usize) -> Option<u64> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child", "--nocapture", "--quiet"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = spawn(&mut command);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let safe = |line: String| line.strip_prefix("safe ").and_then(|n| n.parse().ok());
    let mut numbers = lines.filter_map(safe);
    let last: Option<u64> = numbers.by_ref().take(after).last();
    child.kill().unwrap();
    // What it said meanwhile counts, too.
    let last = numbers.last().or(last);
    child.wait().unwrap();
    last
}

fn check(options: &DiskOptions, format: &str) {
    let mut known = None;
    for kill in 0..12usize {
        known = run_and_kill(&options.path, 5 + kill * 7 % 40).or(known);
        if format == "qcow2" {
            qemu_check(&options.path);
        }
        let mut rig = Rig::new(options).unwrap();
        for number in 0..=known.unwrap() {
            let found = rig.read(place(number), BYTES).unwrap();
            assert!(found == record(number), "{number} is lost");
        }
    }
    assert!(known.unwrap() > 40);
}

#[test]
fn killed_writers_of_qcow2_lose_nothing() {
    let folder = Folder::new();
    let path = folder.path("disk.qcow2");
    let size = (SIZE + 512).to_string();
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", text(&path), &size]);
    check(&DiskOptions::new(&path), "qcow2");
}

#[test]
fn killed_writers_of_raw_lose_nothing() {
    let folder = Folder::new();
    let path = folder.path("disk.img");
    std::fs::File::create(&path).unwrap().set_len(SIZE + 512).unwrap();
    check(&DiskOptions::new(&path), "raw");
}
