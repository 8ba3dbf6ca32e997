//! Twenty seconds of the comparison, always the same cases.

use std::process::Command;

#[test]
fn the_fixed_seed_shows_no_difference_in_the_integer_set() {
    let output = Command::new(env!("CARGO_BIN_EXE_kasane-differ"))
        .args(["--seconds", "20", "--seed", "fixed", "--integer"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
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
