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
    ($($name:ident ends $code:ident;)*) => {
        mod interpreted {
            $(#[test]
            fn $name() {
                super::assert_all_passed(stringify!($name), 1, "interp", super::$code);
            })*
        }
        mod translated {
            $(#[test]
            fn $name() {
                super::assert_all_passed(stringify!($name), 1, "translate", super::$code);
            })*
        }
        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

guests! {
    apic ends POWERED_OFF;
    breakpoints ends POWERED_OFF;
    debug ends POWERED_OFF;
    exceptions ends POWERED_OFF;
    gates ends POWERED_OFF;
    longmode ends POWERED_OFF;
    paging32 ends POWERED_OFF;
    paging64 ends POWERED_OFF;
    pagingpae ends POWERED_OFF;
    preempt ends POWERED_OFF;
    realmode ends POWERED_OFF;
    reserved32 ends POWERED_OFF;
    reserved64 ends POWERED_OFF;
    segments ends POWERED_OFF;
    smc ends POWERED_OFF;
    tasks ends POWERED_OFF;
    triple ends CRASHED;
    v86 ends POWERED_OFF;
    xsave ends POWERED_OFF;
}

/// What the translator does is done again by the interpreter, and compared.
mod shadowed {
    macro_rules! guests {
        ($($name:ident)*) => {
            $(#[test]
            fn $name() {
                super::assert_compared(stringify!($name));
            })*
        };
    }

    guests! { exceptions gates longmode paging64 reserved64 xsave }
    guests! { paging32 pagingpae realmode segments smc tasks v86 }

    #[test]
    #[ignore = "long: nightly"]
    fn apic() {
        super::assert_compared("apic");
    }
    #[test]
    #[ignore = "long: nightly"]
    fn preempt() {
        super::assert_compared("preempt");
    }
}

fn assert_compared(name: &str) {
    assert_all_passed(name, 1, "shadow", POWERED_OFF);
}

#[test]
fn smp() {
    assert_all_passed("smp", 4, "interp", POWERED_OFF);
}

#[test]
fn smp_translated() {
    assert_all_passed("smp", 4, "translate", POWERED_OFF);
}

/// `litmus` is in `litmus.rs`.
const TESTED_APART: [&str; 2] = ["litmus", "smp"];

#[test]
fn every_guest_is_tested() {
    let mut tested = [TESTED, &TESTED_APART].concat();
    tested.sort_unstable();

    assert_eq!(own_guests().unwrap(), tested);
}
