//! A guest that does anything to a whole machine: every port, every register, in any order, while
//! time goes on.
#![no_main]

use kasane_fuzz::{Step, machine, step};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|steps: Vec<Step>| {
    let (machine, home) = machine();
    for one in &steps {
        step(&machine, &home, one);
    }
});
