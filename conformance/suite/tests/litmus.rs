//! The memory model that a guest sees, by the guest `litmus`: of the outcomes that no interleaving
//! gives, that of store buffering is seen, and those that SDM vol. 3A §8.2 forbids never are. For it
//! to be seen, two processors of the host must be free at the same time, so that only the long tests
//! want it: the short ones run beside others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests may panic

use std::sync::{Mutex, PoisonError};

use kasane_conformance::OwnGuest;

/// Cases with two processors: six tests three times, and that the processors start.
const CASES_OF_TWO: u32 = 6 * 3 + 1;
/// IRIW three times, and that the processors start.
const CASES_OF_IRIW: u32 = 3 + 1;

/// Runs the guest and asserts that so many cases passed and none failed. The tallies go to standard output.
fn assert_ordered(engine: &str, cpus: u32, words: &str, cases: u32) {
    let guest = OwnGuest { name: "litmus", cpus, engine, append: words, timeout_s: 7200 };

    let run = guest.run().unwrap();

    println!("{engine}, {cpus} processors, `{words}`:\n{}", run.console);
    assert_eq!(run.verdict("litmus"), Some((cases, 0)), "{}\n{}", run.console, run.messages);
    assert_eq!(run.code, 0, "{}", run.messages);
}

/// 100,000 runs of each test and fence.
fn short(engine: &str) {
    assert_ordered(engine, 2, "look=0", CASES_OF_TWO);
    assert_ordered(engine, 4, "only=IRIW", CASES_OF_IRIW);
}

/// 10,000,000 runs of each test and fence, of one engine at a time.
fn long(engine: &str) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    assert_ordered(engine, 2, "runs=10000000 look=100000000", CASES_OF_TWO);
    assert_ordered(engine, 4, "runs=10000000 only=IRIW", CASES_OF_IRIW);
}

#[test]
fn the_interpreter_keeps_the_memory_model() {
    short("interp");
}

#[test]
fn the_translator_keeps_the_memory_model() {
    short("translate");
}

#[test]
#[ignore = "long: nightly"]
fn the_interpreter_keeps_the_memory_model_in_ten_million_runs() {
    long("interp");
}

#[test]
#[ignore = "long: nightly"]
fn the_translator_keeps_the_memory_model_in_ten_million_runs() {
    long("translate");
}
