//! Into the guest and back (SDM vol. 3C §27, §28).

use core::arch::{asm, global_asm};

global_asm!(
    // extern "C" fn(registers: rdi, launched: rsi) -> 0, or 1 if the instruction failed. RSP is in
    // the control structure. The exit goes to the label, with RSP as it was.
    ".globl vmx_enter",
    "vmx_enter:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "push rdi",
    "mov eax, 0x6C14",
    "vmwrite rax, rsp",
    "test rsi, rsi",
    "mov rax, [rdi]",
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
    "jnz 2f",
    "vmlaunch",
    "jmp 3f",
    "2:",
    "vmresume",
    "3:",
    "mov eax, 1",
    "jmp 4f",
    ".globl vmx_exited",
    "vmx_exited:",
    "push rdi",
    "mov rdi, [rsp + 8]",
    "mov [rdi], rax",
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
    "xor eax, eax",
    "4:",
    "pop rdi",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
);

unsafe extern "C" {
    fn vmx_enter(registers: *mut u64, launched: u64) -> u64;
    fn vmx_exited();
}

/// Where exits go.
pub(crate) fn exit_address() -> u64 {
    vmx_exited as *const () as usize as u64
}

/// Whether a control structure was entered since it was last cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Launched {
    Yes,
    No,
}

/// Registers that the control structure has no fields for.
pub(crate) struct Beside<'a> {
    pub(crate) general: &'a mut [u64; 16],
    pub(crate) cr2: &'a mut u64,
    pub(crate) dr6: &'a mut u64,
}

/// Runs a guest until it exits; false if the processor refuses the instruction. Interrupts are on
/// before and after.
///
/// # Safety
/// The current control structure is complete, and what it points to lives.
pub(crate) unsafe fn enter(beside: Beside<'_>, launched: Launched) -> bool {
    let launched = u64::from(launched == Launched::Yes);
    // SAFETY: by the caller. No page fault of the hypervisor's is under way whose address would be
    // in CR2, and it has no breakpoints, so DR6 is nothing to it.
    unsafe {
        asm!("mov cr2, {}", "mov dr6, {}", in(reg) *beside.cr2, in(reg) *beside.dr6, options(nostack));
        let failed = vmx_enter(beside.general.as_mut_ptr(), launched);
        asm!(
            "mov {}, cr2",
            "mov {}, dr6",
            out(reg) * beside.cr2,
            out(reg) * beside.dr6,
            options(nostack)
        );
        asm!("sti", "nop", options(nostack));
        failed == 0
    }
}

/// Calls the handler of the NMI that an exit has taken.
pub(crate) fn raise_nmi() {
    // SAFETY: its gate leads to a handler, as for one that came in the hypervisor.
    unsafe { asm!("int 2", options(nostack)) }
}
