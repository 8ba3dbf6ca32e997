//! Our own guests (`guests/`): each boots by Multiboot under the program, checks itself on its
//! serial console and powers off.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests may panic

use kasane_conformance::{OwnGuest, own_guests};

/// Exit code of a guest that powered itself off.
const POWERED_OFF: i32 = 0;
/// Exit code of a guest that crashed.
const CRASHED: i32 = 3;

fn assert_all_passed(name: &str, cpus: u32, engine: &str, code: i32) {
    let run = OwnGuest { name, cpus, engine, append: "", timeout_s: 300 }.run().unwrap();
    let shown = || format!("{}\n--- messages\n{}", run.console, run.messages);
    let (passed, failed) = run.verdict(name).unwrap_or_else(|| panic!("{}", shown()));
    assert!(passed > 0 && failed == 0, "{}", shown());
    assert_eq!(run.code, code, "{}", shown());
}

macro_rules! guests {
    ($($name:ident on $cpus:literal ends $code:expr;)*) => {
        $(#[test]
        fn $name() {
            assert_all_passed(stringify!($name), $cpus, "auto", $code);
        })*
        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

guests! {
    apic on 1 ends POWERED_OFF;
    breakpoints on 1 ends POWERED_OFF;
    debug on 1 ends POWERED_OFF;
    exceptions on 1 ends POWERED_OFF;
    gates on 1 ends POWERED_OFF;
    longmode on 1 ends POWERED_OFF;
    paging32 on 1 ends POWERED_OFF;
    paging64 on 1 ends POWERED_OFF;
    pagingpae on 1 ends POWERED_OFF;
    preempt on 1 ends POWERED_OFF;
    realmode on 1 ends POWERED_OFF;
    reserved32 on 1 ends POWERED_OFF;
    reserved64 on 1 ends POWERED_OFF;
    segments on 1 ends POWERED_OFF;
    smc on 1 ends POWERED_OFF;
    smp on 4 ends POWERED_OFF;
    tasks on 1 ends POWERED_OFF;
    triple on 1 ends CRASHED;
    v86 on 1 ends POWERED_OFF;
    xsave on 1 ends POWERED_OFF;
}

/// In `litmus.rs`.
const TESTED_APART: [&str; 1] = ["litmus"];

/// Those with 64-bit code, which is what it translates so far.
#[test]
fn guests_in_long_mode_pass_under_the_translator() {
    for name in ["longmode", "paging64", "preempt", "reserved64", "smc", "xsave"] {
        assert_all_passed(name, 1, "translate", POWERED_OFF);
    }
}

#[test]
fn every_guest_is_tested() {
    let mut tested = [TESTED, &TESTED_APART].concat();
    tested.sort_unstable();

    assert_eq!(own_guests().unwrap(), tested);
}
