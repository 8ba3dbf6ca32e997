//! A minute of the comparison: the same cases each time, and others each time.

use std::io;
use std::process::{Command, Output};

fn compare(seed: &str) -> io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_kasane-differ"))
        .args(["--seconds", "30", "--seed", seed])
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

#[test]
fn an_unknown_opcode_is_an_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_kasane-differ"))
        .args(["--seconds", "1", "--only", "no-such-opcode"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no opcode has that name"));
}
