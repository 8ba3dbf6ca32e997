//! The interrupt descriptor table and what an interrupt calls.
//!
//! Every vector has a stack of the task state segment, so an interrupted function's stack is not
//! touched below its pointer. The code of this image is built without vector registers (the target
//! `x86_64-unknown-none`), so a guest's stay where they are and need no saving here.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::descriptors::{CODE, ist};
use crate::{apic, vector};

global_asm!(include_str!("interrupts.s"), options(att_syntax));

unsafe extern "C" {
    static interrupt_entries: u8;
}

/// Registers of what was interrupted, as `interrupts.s` pushes them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // the manual's names
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// What an interrupt calls, with interrupts off.
pub type Handler = fn(&mut Frame);

static HANDLERS: [AtomicPtr<()>; 256] = [const { AtomicPtr::new(core::ptr::null_mut()) }; 256];

/// Low and high half of the 256 gates.
static IDT: spin::Mutex<[[u64; 2]; 256]> = spin::Mutex::new([[0; 2]; 256]);

/// Sets who is called for a vector, on every processor.
pub fn set_handler(vector: u8, handler: Handler) {
    if let Some(slot) = HANDLERS.get(usize::from(vector)) {
        slot.store(handler as *mut (), Ordering::Release);
    }
}

/// Writes the interrupt descriptor table and loads it on this processor. The other processors load
/// the same one.
pub fn fill_idt() {
    let entries = (&raw const interrupt_entries).addr() as u64;
    let mut table = IDT.lock();
    for (number, gate) in (0u64..).zip(table.iter_mut()) {
        let at = entries + number * 16;
        let stack = match number {
            2 => ist::NMI,
            8 | 14 => ist::DOUBLE_FAULT,
            18 => ist::MACHINE_CHECK,
            _ => ist::INTERRUPTS,
        };
        let attributes = 0x8E00 | u64::from(stack);
        let low =
            at & 0xFFFF | u64::from(CODE) << 16 | attributes << 32 | (at >> 16 & 0xFFFF) << 48;
        *gate = [low, at >> 32];
    }
    let base = table.as_ptr().addr() as u64;
    let mut register = [0u8; 10];
    let (limit_bytes, base_bytes) = register.split_at_mut(2);
    limit_bytes.copy_from_slice(&(4096u16 - 1).to_le_bytes());
    base_bytes.copy_from_slice(&base.to_le_bytes());
    // SAFETY: the table is static, and each gate leads to an entry of `interrupts.s`.
    unsafe { asm!("lidt [{}]", in(reg) &raw const register, options(nostack)) }
}

#[unsafe(no_mangle)]
extern "C" fn kasane_interrupt(frame: &mut Frame) {
    let number = frame.vector as usize & 0xFF;
    let handler = HANDLERS.get(number).map_or(core::ptr::null_mut(), |h| h.load(Ordering::Acquire));
    if number >= 32 && number != usize::from(vector::SPURIOUS) {
        apic::end_of_interrupt();
    }
    if handler.is_null() {
        if number < 32 {
            unhandled(frame);
        }
        return;
    }
    // SAFETY: only `set_handler` stores here, and it stores a `Handler`.
    let handler = unsafe { core::mem::transmute::<*mut (), Handler>(handler) };
    handler(frame);
}

/// An exception of the hypervisor itself.
#[allow(clippy::panic)] // that is what it is
fn unhandled(frame: &Frame) -> ! {
    let address = crate::registers::page_fault_address();
    panic!("exception {} (CR2 {address:#x}): {frame:#x?}", frame.vector);
}

/// Waits for an interrupt, if `idle` says with interrupts off that there is nothing to do.
pub fn wait_for_interrupt(idle: impl FnOnce() -> bool) {
    // SAFETY: they go on below, whatever `idle` says.
    unsafe { asm!("cli", options(nostack)) }
    if idle() {
        // SAFETY: STI lets the next instruction go first, so no interrupt is slept through.
        unsafe { asm!("sti", "hlt", options(nostack)) }
    } else {
        // SAFETY: handlers are there for all vectors.
        unsafe { asm!("sti", options(nostack)) }
    }
}

/// Runs `section` with interrupts off.
pub fn with_interrupts_off<R>(section: impl FnOnce() -> R) -> R {
    let flags: u64;
    // SAFETY: the flag comes back below.
    unsafe { asm!("pushfq", "pop {}", "cli", out(reg) flags) }
    let result = section();
    if flags & 1 << 9 != 0 {
        // SAFETY: it was on before.
        unsafe { asm!("sti", options(nostack)) }
    }
    result
}
