//! Into the guest and back (APM vol. 2 §15.5).

use core::arch::{asm, global_asm};

global_asm!(
    // extern "C" fn(registers: rdi, guest: rsi, host: rdx). GIF is clear while neither side's
    // state is whole, so that no interrupt comes between; with IF set and V_INTR_MASKING an
    // interrupt of the host makes the guest exit.
    ".globl svm_enter",
    "svm_enter:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "push rdi",
    "push rdx",
    "mov rax, rsi",
    "clgi",
    "sti",
    "vmload rax",
    "mov rcx, [rdi + 8]",
    "mov rdx, [rdi + 16]",
    "mov rbx, [rdi + 24]",
    "mov rbp, [rdi + 40]",
    "mov rsi, [rdi + 48]",
    "mov r8, [rdi + 64]",
    "mov r9, [rdi + 72]",
    "mov r10, [rdi + 80]",
    "mov r11, [rdi + 88]",
    "mov r12, [rdi + 96]",
    "mov r13, [rdi + 104]",
    "mov r14, [rdi + 112]",
    "mov r15, [rdi + 120]",
    "mov rdi, [rdi + 56]",
    "vmrun rax",
    "vmsave rax",
    "push rdi",
    "mov rdi, [rsp + 16]",
    "mov [rdi + 8], rcx",
    "mov [rdi + 16], rdx",
    "mov [rdi + 24], rbx",
    "mov [rdi + 40], rbp",
    "mov [rdi + 48], rsi",
    "mov [rdi + 64], r8",
    "mov [rdi + 72], r9",
    "mov [rdi + 80], r10",
    "mov [rdi + 88], r11",
    "mov [rdi + 96], r12",
    "mov [rdi + 104], r13",
    "mov [rdi + 112], r14",
    "mov [rdi + 120], r15",
    "pop rcx",
    "mov [rdi + 56], rcx",
    "pop rax",
    "vmload rax",
    "stgi",
    "pop rdi",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "cld",
    "ret",
);

unsafe extern "C" {
    fn svm_enter(registers: *mut u64, guest: u64, host: u64);
}

/// Runs a guest until it exits. Interrupts are on afterwards. RAX and RSP are in the control block.
///
/// # Safety
/// `guest` is the physical address of a control block whose permission maps and nested tables are
/// complete; `host` is this processor's page of [`save_host`]; the processor is switched to AMD-V.
pub(crate) unsafe fn enter(registers: &mut [u64; 16], guest: u64, host: u64) {
    // SAFETY: by the caller.
    unsafe { svm_enter(registers.as_mut_ptr(), guest, host) }
}

/// Keeps what VMLOAD loads of the host (FS, GS, TR, LDTR, system-call registers).
///
/// # Safety
/// `host` is the physical address of a page of this processor's own, and EFER.SVME is set.
pub(crate) unsafe fn save_host(host: u64) {
    // SAFETY: by the caller.
    unsafe { asm!("vmsave rax", in("rax") host, options(nostack)) }
}
