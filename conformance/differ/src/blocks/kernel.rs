//! The system under a block's user code: page tables, descriptors, handlers.
//!
//! An exception of the block ends it: it is seen at the first instruction of its handler, which
//! does nothing. Interrupts are handled and returned from, and so is a page fault of a page that was
//! only taken away for a while ([`SWAPPED`]).

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use kasane_cpu::{CpuState, SegmentRegister};
use kasane_memory::{GuestMemory, Ram};
use kasane_spec_x86::control::cr4;
use kasane_spec_x86::paging;

use super::pages::user_pages;
use crate::interp::start_state;
use crate::layout::{CODE, CODE_PAGES, DATA, EXIT, INT3, OPEN_CODE, OPEN_PAGES, PAGE, TRAMPOLINE};
use crate::segments::{LOCAL, LOCALS};

/// Bytes of guest memory.
pub(super) const MEMORY: usize = 0x4_0000;
// Guest-physical addresses.
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
pub(super) const PT: u64 = 0x4000;
/// Of the second GiB, where the exit is.
const PD_EXIT: u64 = 0x5000;
const PT_EXIT: u64 = 0x6000;
/// Of the kernel's half.
const PDPT_KERNEL: u64 = 0x7000;
const PD_KERNEL: u64 = 0xD000;
const PT_KERNEL: u64 = 0xE000;
const KERNEL_GPA: u64 = 0x8000;
const EXIT_GPA: u64 = 0xC000;
pub(super) const CODE_GPA: u64 = 0x1_0000;
pub(super) const OPEN_GPA: u64 = 0x1_4000;
pub(super) const DATA_GPA: u64 = 0x2_0000;
const APIC_GPA: u64 = 0xFEE0_0000;

// Linear addresses of the kernel, for itself only: in the half where no user code finds anything
// on either side.
const KERNEL: u64 = 0xFFFF_FFFF_A000_0000;
const IDT: u64 = KERNEL + 0x1000;
/// Descriptors, the task's state, variables.
const TABLES: u64 = KERNEL + 0x2000;
const TASK: u64 = TABLES + 0x100;
const LOCAL_TABLE: u64 = TABLES + 0x300;
const COUNT: u64 = TABLES + 0x200;
/// Not zero: pages are gone, and the page-fault handler brings them back.
pub(super) const SWAPPED: u64 = TABLES + 0x208;
/// The entries of the user's pages as they should be.
pub(super) const ENTRIES: u64 = TABLES + 0x400;
const STACK_TOP: u64 = KERNEL + 0x4000;
const APIC: u64 = KERNEL + 0x5000;
/// The page table, as its kernel sees it.
const TABLE_WINDOW: u64 = KERNEL + 0x6000;

const KERNEL_CS: u16 = 0x10;
const NMI: u8 = 2;
const PAGE_FAULT: u8 = 14;
/// Vectors of the interrupts; each handler does something else.
pub(super) const INTERRUPTS: [u8; 4] = [0x40, 0x41, 0x42, 0x43];
/// Handlers of exceptions are so far apart.
const STUB: u64 = 16;
const STUBS: u64 = 32;

/// The index into a table of a level.
pub(super) fn index(at: u64, level: u32) -> u64 {
    at >> (12 + 9 * level) & 511
}
pub(super) fn kernel_gpa(linear: u64) -> u64 {
    linear - KERNEL + KERNEL_GPA
}

/// Writes tables and handlers into an empty memory.
pub(super) fn install(ram: &Ram) -> anyhow::Result<()> {
    let table = paging::P | paging::US | paging::RW | paging::A;
    ram.store_u64(PML4 + index(CODE, 3) * 8, PDPT | table)?;
    ram.store_u64(PDPT + index(CODE, 2) * 8, PD | table)?;
    ram.store_u64(PDPT + index(EXIT, 2) * 8, PD_EXIT | table)?;
    ram.store_u64(PD + index(CODE, 1) * 8, PT | table)?;
    ram.store_u64(PD_EXIT + index(EXIT, 1) * 8, PT_EXIT | table)?;
    let user = paging::P | paging::US | paging::A;
    ram.store_u64(PT_EXIT + index(TRAMPOLINE, 0) * 8, EXIT_GPA | user)?;
    let kernel = paging::P | paging::RW | paging::A | paging::D | paging::G;
    ram.store_u64(PML4 + index(KERNEL, 3) * 8, PDPT_KERNEL | table)?;
    ram.store_u64(PDPT_KERNEL + index(KERNEL, 2) * 8, PD_KERNEL | table)?;
    ram.store_u64(PD_KERNEL + index(KERNEL, 1) * 8, PT_KERNEL | table)?;
    let window = |at: u64, gpa: u64| ram.store_u64(PT_KERNEL + index(at, 0) * 8, gpa | kernel);
    for page in (0..0x4000).step_by(PAGE) {
        window(KERNEL + page, KERNEL_GPA + page)?;
    }
    window(APIC, APIC_GPA | paging::PCD)?;
    window(TABLE_WINDOW, PT)?;
    for (n, (at, value)) in (0u64..).zip(user_pages()) {
        ram.store_u64(PT + index(at, 0) * 8, value)?;
        ram.store_u64(kernel_gpa(ENTRIES) + n * 8, value)?;
    }
    for (at, pages) in [(CODE_GPA, CODE_PAGES), (OPEN_GPA, OPEN_PAGES)] {
        ram.fill(at, (pages * PAGE) as u64, INT3)?;
    }
    // HLT, which user mode is refused: that is how a block says that it is done.
    ram.fill(EXIT_GPA, PAGE as u64, 0xF4)?;
    descriptors(ram)?;
    handlers(ram)
}

fn descriptors(ram: &Ram) -> anyhow::Result<()> {
    let gdt: [(u16, u64); 5] = [
        (KERNEL_CS, 0x00AF_9B00_0000_FFFF),
        (0x18, 0x00CF_9300_0000_FFFF),
        (crate::layout::USER_CS32, 0x00CF_FB00_0000_FFFF),
        (crate::layout::USER_DS, 0x00CF_F300_0000_FFFF),
        (crate::layout::USER_CS64, 0x00AF_FB00_0000_FFFF),
    ];
    for (selector, descriptor) in gdt {
        ram.store_u64(kernel_gpa(TABLES) + u64::from(selector & !7), descriptor)?;
    }
    for (n, local) in (0u64..).zip(LOCAL) {
        ram.store_u64(kernel_gpa(LOCAL_TABLE) + n * 8, local.descriptor())?;
    }
    ram.write(kernel_gpa(TASK) + 4, &STACK_TOP.to_le_bytes())?;
    // The I/O permission bitmap begins behind the task's state: no ports.
    ram.write(kernel_gpa(TASK) + 0x66, &0x68u16.to_le_bytes())?;
    Ok(())
}

fn gate(ram: &Ram, vector: u8, at: u64) -> anyhow::Result<()> {
    // A present 64-bit interrupt gate; INT3 may be used by anybody (SDM vol. 3A §6.14.1).
    let access = if vector == 3 { 0xEE00 } else { 0x8E00 };
    let low = at & 0xFFFF | u64::from(KERNEL_CS) << 16 | access << 32 | (at >> 16 & 0xFFFF) << 48;
    ram.store_u64(kernel_gpa(IDT) + u64::from(vector) * 16, low)?;
    ram.store_u64(kernel_gpa(IDT) + u64::from(vector) * 16 + 8, at >> 32)?;
    Ok(())
}

/// The first instruction of the handler of an exception.
fn stub(vector: u8) -> u64 {
    KERNEL + STUB * u64::from(vector)
}

fn handlers(ram: &Ram) -> anyhow::Result<()> {
    for vector in 0..STUBS as u8 {
        // A jump to itself: INT3 gets here without anybody looking, and stays until somebody does.
        ram.write(kernel_gpa(stub(vector)), &[0xEB, 0xFE])?;
        gate(ram, vector, stub(vector))?;
    }
    let mut at = KERNEL + STUBS * STUB;
    let all = [
        (NMI, nmi as fn(&mut CodeAssembler) -> Result<(), IcedError>),
        (0x40, plain),
        (0x41, flushing),
        (0x42, forgetting),
        (0x43, busy),
    ];
    for (vector, handler) in all {
        let mut a = CodeAssembler::new(64)?;
        handler(&mut a)?;
        let code = a.assemble(at)?;
        ram.write(kernel_gpa(at), &code)?;
        gate(ram, vector, at)?;
        at = (at + code.len() as u64).next_multiple_of(16);
    }
    let mut a = CodeAssembler::new(64)?;
    page_fault(&mut a)?;
    let code = a.assemble(at)?;
    ram.write(kernel_gpa(at), &code)?;
    // The stub goes on there if a page was taken away.
    let mut a = CodeAssembler::new(64)?;
    a.jmp(at)?;
    ram.write(kernel_gpa(stub(PAGE_FAULT)), &a.assemble(stub(PAGE_FAULT))?)?;
    Ok(())
}

fn end_of_interrupt(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(dword_ptr(APIC + 0xB0), 0)
}

fn nmi(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.inc(qword_ptr(COUNT))?;
    a.iretq()
}

fn plain(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.inc(qword_ptr(COUNT))?;
    end_of_interrupt(a)?;
    a.iretq()
}

/// Loads CR3.
fn flushing(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.push(rax)?;
    a.mov(rax, cr3)?;
    a.mov(cr3, rax)?;
    end_of_interrupt(a)?;
    a.pop(rax)?;
    a.iretq()
}

/// Forgets pages one by one.
fn forgetting(a: &mut CodeAssembler) -> Result<(), IcedError> {
    for page in [DATA, DATA + PAGE as u64, CODE, OPEN_CODE] {
        a.invlpg(byte_ptr(page))?;
    }
    end_of_interrupt(a)?;
    a.iretq()
}

/// Uses registers and flags.
fn busy(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let registers = [rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];
    for register in registers {
        a.push(register)?;
    }
    for register in registers {
        a.lea(register, ptr(register + 5))?;
    }
    a.mov(ecx, 3)?;
    let mut again = a.create_label();
    a.set_label(&mut again)?;
    a.add(r9, r10)?;
    a.adc(qword_ptr(COUNT), r15)?;
    a.dec(ecx)?;
    a.jne(again)?;
    end_of_interrupt(a)?;
    for register in registers.into_iter().rev() {
        a.pop(register)?;
    }
    a.iretq()
}

/// Brings the pages back.
fn page_fault(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.push(rax)?;
    for (n, (at, entry)) in (0u64..).zip(user_pages()) {
        a.mov(rax, qword_ptr(ENTRIES + n * 8))?;
        a.mov(qword_ptr(TABLE_WINDOW + index(at, 0) * 8), rax)?;
        if entry & paging::G != 0 {
            a.invlpg(byte_ptr(at))?;
        }
    }
    a.mov(qword_ptr(SWAPPED), 0)?;
    a.mov(rax, cr3)?;
    a.mov(cr3, rax)?;
    a.pop(rax)?;
    a.add(rsp, 8)?; // the error code
    a.iretq()
}

/// The vector of the exception whose handler is about to begin.
pub(super) fn exception_at(rip: u64) -> Option<u8> {
    let offset = rip.checked_sub(KERNEL)?;
    (offset < STUBS * STUB && offset.is_multiple_of(STUB)).then_some((offset / STUB) as u8)
}

/// What the processor pushed: error code (0 if there is none), RIP, RFLAGS, RSP.
pub(super) fn frame(ram: &Ram, vector: u8, top: u64) -> [u64; 4] {
    let has_error = matches!(vector, 8 | 10..=14 | 17 | 21);
    let at = |n: u64| ram.load_u64(kernel_gpa(top.wrapping_add(8 * n))).unwrap_or(u64::MAX);
    let first = u64::from(has_error);
    let error = if has_error { at(0) } else { 0 };
    [error, at(first), at(first + 2), at(first + 3)]
}

/// The processor before its first block.
pub(super) fn state() -> CpuState {
    let mut state = start_state();
    state.cr4 |= cr4::PGE;
    state.tr = SegmentRegister { selector: 0x40, access: 0x8B, limit: 0x67, base: TASK };
    let limit = (LOCALS * 8 - 1) as u32;
    state.ldtr = SegmentRegister { selector: 0x58, access: 0x82, limit, base: LOCAL_TABLE };
    (state.gdtr.base, state.gdtr.limit) = (TABLES, 0x3F);
    (state.idtr.base, state.idtr.limit) = (IDT, 0xFFF);
    state
}
