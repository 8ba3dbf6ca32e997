//! What a vCPU is doing, in words.

use std::fmt::Write;

use kasane_cpu::{Activity, CpuState};
use kasane_spec_x86::control::{cr0, efer};
use kasane_spec_x86::flags;

/// The kind of code that a state executes.
pub(crate) fn mode(state: &CpuState) -> &'static str {
    if state.cr0 & cr0::PE == 0 {
        return "real mode";
    }
    if state.rflags & flags::VM != 0 {
        return "virtual-8086 mode";
    }
    let long = state.efer & efer::LMA != 0;
    match (long, state.cs.long(), state.cs.big()) {
        (true, true, _) => "64-bit code",
        (true, false, true) => "32-bit compatibility code",
        (true, false, false) => "16-bit compatibility code",
        (false, _, true) => "32-bit code",
        (false, _, false) => "16-bit protected code",
    }
}

/// What it does between instructions.
pub(crate) fn activity(state: &CpuState) -> &'static str {
    match state.activity {
        Activity::Running => "runs",
        Activity::Halted => "halted",
        Activity::WaitForSipi => "waits for its start-up IPI",
        Activity::Shutdown => "shut down",
    }
}

fn privilege(state: &CpuState) -> u8 {
    if state.cr0 & cr0::PE == 0 {
        0
    } else if state.rflags & flags::VM != 0 {
        3
    } else {
        state.ss.dpl()
    }
}

/// One line about a vCPU.
pub(crate) fn line(vcpu: u32, state: &CpuState) -> String {
    let (activity, mode) = (activity(state), mode(state));
    format!("vCPU {vcpu}: {activity}, {mode}, CPL {}, rip {:#x}\n", privilege(state), state.rip)
}

/// A vCPU's segments and tables, which GDB does not know.
pub(crate) fn segments(state: &CpuState) -> String {
    let mut out = String::new();
    let all = [
        ("cs", state.cs),
        ("ss", state.ss),
        ("ds", state.ds),
        ("es", state.es),
        ("fs", state.fs),
        ("gs", state.gs),
        ("ldtr", state.ldtr),
        ("tr", state.tr),
    ];
    for (name, one) in all {
        let (selector, base, limit, access) = (one.selector, one.base, one.limit, one.access);
        // Writing to a string can't fail.
        let _infallible = writeln!(
            out,
            "  {name:<4} {selector:04x} base {base:016x} limit {limit:08x} access {access:05x}"
        );
    }
    for (name, table) in [("gdtr", state.gdtr), ("idtr", state.idtr)] {
        let (base, limit) = (table.base, table.limit);
        let _infallible = writeln!(out, "  {name:<4}      base {base:016x} limit {limit:08x}");
    }
    out
}
