//! The comparison of blocks: the same each time, and others each time.

use std::io;
use std::process::{Command, Output};

/// What takes about a minute.
const COUNT: &str = "100000";

fn compare(seed: &str) -> io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_kasane-differ"))
        .args(["--blocks", "--count", COUNT, "--seed", seed])
        .output()
}

/// What was printed, for the report of a failure.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stderr, &*output.stdout].concat()).into_owned()
}

#[test]
fn the_fixed_seed_shows_no_difference() {
    let output = compare("fixed").unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_fresh_seed_shows_no_difference() {
    let output = compare("fresh").unwrap();
    assert!(output.status.success(), "{}", said(&output));
}
