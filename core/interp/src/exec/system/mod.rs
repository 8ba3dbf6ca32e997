//! The system group: everything that privilege, modes and the platform are about.

mod control;
pub(crate) mod descriptor;
mod far;
mod flags;
mod iret;
mod msr;
mod port;
mod processor;
mod segments;
pub(crate) mod structures;
mod syscall;
pub use syscall::{enter_by_syscall, syscall_selectors};
mod tables;
pub(crate) mod task;
mod time;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

use iced_x86::{Code, Instruction, Mnemonic, OpKind};

use crate::op::{Handler, Lowered};

/// The handler of an instruction of this group.
#[must_use]
pub fn lower(instr: &Instruction) -> Option<Lowered> {
    let handler = moves(instr)
        .or_else(|| transfers(instr))
        .or_else(|| tables(instr))
        .or_else(|| registers(instr))
        .or_else(|| platform(instr));
    handler.map(Lowered::ending).or_else(|| quick(instr).map(Lowered::plain))
}

fn is_segment_operand(instr: &Instruction, n: u32) -> bool {
    instr.op_count() > n
        && instr.op_kind(n) == OpKind::Register
        && instr.op_register(n).is_segment_register()
}

/// Moves to segment, control and debug registers.
fn moves(instr: &Instruction) -> Option<Handler> {
    let register = |n: u32, test: fn(iced_x86::Register) -> bool| {
        instr.op_kind(n) == OpKind::Register && test(instr.op_register(n))
    };
    match instr.mnemonic() {
        Mnemonic::Mov if is_segment_operand(instr, 0) => Some(segments::mov_to),
        Mnemonic::Mov if register(0, |r| r.is_cr()) => Some(control::mov_to_cr),
        Mnemonic::Mov if register(1, |r| r.is_cr()) => Some(control::mov_from_cr),
        Mnemonic::Mov if register(0, |r| r.is_dr()) => Some(control::mov_to_dr),
        Mnemonic::Mov if register(1, |r| r.is_dr()) => Some(control::mov_from_dr),
        Mnemonic::Pop if is_segment_operand(instr, 0) => Some(segments::pop),
        Mnemonic::Lds | Mnemonic::Les | Mnemonic::Lfs | Mnemonic::Lgs | Mnemonic::Lss => {
            Some(segments::load_far)
        }
        _ => None,
    }
}

/// Far control flow.
fn transfers(instr: &Instruction) -> Option<Handler> {
    match instr.code() {
        Code::Jmp_ptr1616
        | Code::Jmp_ptr1632
        | Code::Jmp_m1616
        | Code::Jmp_m1632
        | Code::Jmp_m1664 => return Some(far::jump),
        Code::Call_ptr1616
        | Code::Call_ptr1632
        | Code::Call_m1616
        | Code::Call_m1632
        | Code::Call_m1664 => return Some(far::call),
        _ => {}
    }
    match instr.mnemonic() {
        Mnemonic::Retf => Some(far::ret),
        Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq => Some(iret::iret),
        Mnemonic::Int | Mnemonic::Int3 | Mnemonic::Into | Mnemonic::Int1 => {
            Some(processor::interrupt)
        }
        Mnemonic::Syscall => Some(syscall::syscall),
        Mnemonic::Sysret | Mnemonic::Sysretq => Some(syscall::sysret),
        Mnemonic::Sysenter => Some(syscall::sysenter),
        Mnemonic::Sysexit | Mnemonic::Sysexitq => Some(syscall::sysexit),
        _ => None,
    }
}

/// Descriptor tables.
fn tables(instr: &Instruction) -> Option<Handler> {
    match instr.mnemonic() {
        Mnemonic::Lgdt | Mnemonic::Lidt => Some(tables::load_table),
        Mnemonic::Lldt => Some(tables::lldt),
        Mnemonic::Ltr => Some(tables::ltr),
        _ => None,
    }
}

/// Flags and other registers whose change ends a block.
fn registers(instr: &Instruction) -> Option<Handler> {
    match instr.mnemonic() {
        Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => Some(flags::popf),
        Mnemonic::Cli => Some(flags::cli),
        Mnemonic::Sti => Some(flags::sti),
        Mnemonic::Lmsw => Some(control::lmsw),
        Mnemonic::Clts => Some(control::clts),
        Mnemonic::Invlpg => Some(control::invlpg),
        Mnemonic::Invpcid => Some(control::invpcid),
        Mnemonic::Wrmsr => Some(msr::wrmsr),
        _ => None,
    }
}

/// The platform: ports, hypercalls, sleep.
fn platform(instr: &Instruction) -> Option<Handler> {
    match instr.mnemonic() {
        Mnemonic::In => Some(port::input),
        Mnemonic::Out => Some(port::output),
        Mnemonic::Insb | Mnemonic::Insw | Mnemonic::Insd => Some(port::input_string),
        Mnemonic::Outsb | Mnemonic::Outsw | Mnemonic::Outsd => Some(port::output_string),
        Mnemonic::Hlt => Some(processor::hlt),
        Mnemonic::Vmcall | Mnemonic::Vmmcall => Some(processor::hypercall),
        _ if is_hidden(instr.mnemonic()) => Some(processor::hidden),
        _ => None,
    }
}

/// Instructions of features that CPUID does not show (virtualization, trusted execution,
/// MONITOR), and RSM, which is only there in system-management mode.
fn is_hidden(mnemonic: Mnemonic) -> bool {
    matches!(
        mnemonic,
        Mnemonic::Monitor
            | Mnemonic::Mwait
            | Mnemonic::Monitorx
            | Mnemonic::Mwaitx
            | Mnemonic::Rsm
            | Mnemonic::Vmxon
            | Mnemonic::Vmxoff
            | Mnemonic::Vmlaunch
            | Mnemonic::Vmresume
            | Mnemonic::Vmread
            | Mnemonic::Vmwrite
            | Mnemonic::Vmclear
            | Mnemonic::Vmptrld
            | Mnemonic::Vmptrst
            | Mnemonic::Vmfunc
            | Mnemonic::Invept
            | Mnemonic::Invvpid
            | Mnemonic::Vmrun
            | Mnemonic::Vmload
            | Mnemonic::Vmsave
            | Mnemonic::Stgi
            | Mnemonic::Clgi
            | Mnemonic::Skinit
            | Mnemonic::Invlpga
            | Mnemonic::Invlpgb
            | Mnemonic::Tlbsync
            | Mnemonic::Getsec
    )
}

/// What does not end a block.
fn quick(instr: &Instruction) -> Option<Handler> {
    match instr.mnemonic() {
        Mnemonic::Mov if is_segment_operand(instr, 1) => Some(segments::mov_from),
        Mnemonic::Push if is_segment_operand(instr, 0) => Some(segments::push),
        Mnemonic::Pushf | Mnemonic::Pushfd | Mnemonic::Pushfq => Some(flags::pushf),
        Mnemonic::Stac | Mnemonic::Clac => Some(flags::access_check),
        Mnemonic::Sgdt | Mnemonic::Sidt => Some(tables::store_table),
        Mnemonic::Sldt | Mnemonic::Str => Some(tables::store_selector),
        Mnemonic::Smsw => Some(tables::smsw),
        Mnemonic::Lar => Some(tables::lar),
        Mnemonic::Lsl => Some(tables::lsl),
        Mnemonic::Verr | Mnemonic::Verw => Some(tables::verify),
        Mnemonic::Arpl => Some(tables::arpl),
        Mnemonic::Swapgs => Some(syscall::swapgs),
        Mnemonic::Rdfsbase | Mnemonic::Rdgsbase | Mnemonic::Wrfsbase | Mnemonic::Wrgsbase => {
            Some(syscall::segment_base)
        }
        Mnemonic::Rdtsc => Some(time::rdtsc),
        Mnemonic::Rdtscp => Some(time::rdtscp),
        Mnemonic::Rdpid => Some(time::rdpid),
        Mnemonic::Rdpmc => Some(time::rdpmc),
        Mnemonic::Rdmsr => Some(msr::rdmsr),
        Mnemonic::Cpuid => Some(processor::cpuid),
        Mnemonic::Invd | Mnemonic::Wbinvd | Mnemonic::Wbnoinvd => Some(processor::cache),
        _ => None,
    }
}
