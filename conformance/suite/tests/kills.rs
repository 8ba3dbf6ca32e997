//! An acknowledged write survives the death of the program: it is killed at random moments while a
//! guest writes and flushes, and goes on with the same image. `KASANE_SEED` says when (1). The
//! guest's program and the disk's content are looked after by `kasane_conformance::record`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests may panic

use std::env;

use kasane_conformance::{Format, Kills};

fn lose_nothing(count: u32, format: Format, cpus: u32) {
    let seed = env::var("KASANE_SEED").map_or(1, |text| text.parse().expect("a number"));

    let outcome = Kills { count, format, cpus, seed }.run();

    let outcome = outcome.unwrap_or_else(|error| panic!("{error}"));
    println!("{count} kills, {}: {outcome:?}", format.name());
    assert!(outcome.acknowledged > u64::from(count), "hardly anything was written: {outcome:?}");
}

#[test]
fn ten_kills_lose_no_record_of_a_raw_disk() {
    lose_nothing(10, Format::Raw, 2);
}

#[test]
fn ten_kills_lose_no_record_of_a_qcow2_disk() {
    lose_nothing(10, Format::Qcow2, 1);
}

#[test]
#[ignore = "long: nightly"]
fn two_hundred_kills_lose_no_record_of_a_raw_disk() {
    lose_nothing(200, Format::Raw, 1);
}

#[test]
#[ignore = "long: nightly"]
fn two_hundred_kills_lose_no_record_of_a_qcow2_disk() {
    lose_nothing(200, Format::Qcow2, 2);
}
