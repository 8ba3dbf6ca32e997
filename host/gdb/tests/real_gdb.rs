//! The real GDB against the stub, where there is one.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::process::{Command, Output};

use support::debugged;
use support::guest::{CODE, COUNTER, LOAD, LOOP, STORE};

/// Runs GDB's commands on a guest with two vCPUs. `None`, with a word about it: there is no GDB.
fn gdb(commands: &[String]) -> Option<String> {
    let (_guest, server, _path) = debugged(2);
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-ex", "set confirm off", "-ex", "set width 0"]);
    gdb.args(["-ex", &format!("target remote {}", server.address())]);
    commands.iter().for_each(|command| {
        gdb.args(["-ex", command]);
    });
    match gdb.args(["-ex", "kill"]).output() {
        Ok(output) => Some(everything(&output)),
        Err(_) => {
            eprintln!("skipped: there is no gdb here");
            None
        }
    }
}

fn everything(output: &Output) -> String {
    let mut all = String::from_utf8_lossy(&output.stdout).into_owned();
    all.push_str(&String::from_utf8_lossy(&output.stderr));
    all
}

/// Each of `expected` is in `output`, in this order.
fn assert_in_order(output: Option<String>, expected: &[String]) {
    let Some(output) = output else { return };
    let mut rest = output.as_str();
    for one in expected {
        let at = rest.find(one.as_str());
        rest = &rest[at.unwrap_or_else(|| panic!("`{one}` is not in order in:\n{output}"))..];
    }
}

#[test]
fn breakpoints_disassembly_registers_and_steps() {
    let output = gdb(&[
        "info registers rip cr3".to_owned(),
        format!("break *{STORE:#x}"),
        "continue".to_owned(),
        "x/i $pc".to_owned(),
        "print/x $rax".to_owned(),
        "stepi".to_owned(),
        "print $pc".to_owned(),
        "continue".to_owned(),
        "print $cr0".to_owned(),
        "print $efer".to_owned(),
        "print $ymm0".to_owned(),
        "info threads".to_owned(),
    ]);

    assert_in_order(
        output,
        &[
            format!("{CODE:#x}"),
            "cr3            0x8000".to_owned(),
            format!("{STORE:#x}"),
            format!("=> {STORE:#x}:\tmov"),
            "$1 = 0x3".to_owned(),
            format!("{LOAD:#x}"),
            format!("{STORE:#x}"),
            "PG".to_owned(),
            "LMA".to_owned(),
            "v8_float".to_owned(),
            "vCPU 0: runs, 64-bit code".to_owned(),
            "vCPU 1: runs, 64-bit code".to_owned(),
        ],
    );
}

#[test]
fn watchpoints_and_changes() {
    let output = gdb(&[
        format!("watch *(int *){COUNTER:#x}"),
        "continue".to_owned(),
        "delete".to_owned(),
        format!("rwatch *(int *){COUNTER:#x}"),
        "continue".to_owned(),
        "delete".to_owned(),
        "set scheduler-locking on".to_owned(),
        format!("set $pc = {CODE:#x}"),
        "stepi".to_owned(),
        "print/x $pc".to_owned(),
        format!("set {{int}}{COUNTER:#x} = 77"),
        format!("x/dw {COUNTER:#x}"),
        "x/4xb 0x1000".to_owned(),
    ]);

    assert_in_order(
        output,
        &[
            "Hardware watchpoint 1:".to_owned(),
            "New value = 3".to_owned(),
            "Hardware read watchpoint 2:".to_owned(),
            "Value = ".to_owned(),
            format!("$1 = {LOOP:#x}"),
            "77".to_owned(),
            "Cannot access memory at address 0x1000".to_owned(),
        ],
    );
}

#[test]
fn monitor_commands_and_reset() {
    let output = gdb(&[
        format!("hbreak *{LOAD:#x}"),
        "continue".to_owned(),
        "monitor info".to_owned(),
        "monitor reset".to_owned(),
        "flushregs".to_owned(),
        "print/x $pc".to_owned(),
        "continue".to_owned(),
        "print/x $pc".to_owned(),
    ]);

    assert_in_order(
        output,
        &[
            "Breakpoint 1".to_owned(),
            format!("$1 = {CODE:#x}"),
            "Breakpoint 1".to_owned(),
            format!("$2 = {LOAD:#x}"),
            // What the stub says itself goes to GDB's standard error.
            "a guest for tests".to_owned(),
            "the machine is reset".to_owned(),
        ],
    );
}
