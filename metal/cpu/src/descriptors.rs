//! The global descriptor table and the task state segment of a processor (SDM vol. 3A §3.4, §7.7).

use alloc::boxed::Box;
use core::arch::asm;

/// Tops of the stacks that interrupts of a processor run on.
#[derive(Clone, Copy, Debug)]
pub struct Stacks {
    /// NMI.
    pub nmi: u64,
    /// Double fault, and the page faults that a stack's guard page makes.
    pub double_fault: u64,
    /// Machine check.
    pub machine_check: u64,
    /// All other vectors.
    pub interrupts: u64,
}

/// Selector of the code segment.
pub(crate) const CODE: u16 = 0x08;
const DATA: u16 = 0x10;
const TASK: u16 = 0x18;

/// Numbers of the stacks in the task state segment.
pub(crate) mod ist {
    pub(crate) const NMI: u8 = 1;
    pub(crate) const DOUBLE_FAULT: u8 = 2;
    pub(crate) const MACHINE_CHECK: u8 = 3;
    pub(crate) const INTERRUPTS: u8 = 4;
}

#[repr(C, packed(4))]
struct TaskState {
    reserved_0: u32,
    rsp: [u64; 3],
    reserved_1: u64,
    ist: [u64; 7],
    reserved_2: u64,
    reserved_3: u16,
    io_map: u16,
}

#[repr(C, packed(2))]
struct TableRegister {
    limit: u16,
    base: u64,
}

/// Gives this processor tables of its own, which live for ever.
pub fn load_descriptors(stacks: &Stacks) {
    let mut ist = [0; 7];
    for (number, top) in [
        (ist::NMI, stacks.nmi),
        (ist::DOUBLE_FAULT, stacks.double_fault),
        (ist::MACHINE_CHECK, stacks.machine_check),
        (ist::INTERRUPTS, stacks.interrupts),
    ] {
        if let Some(slot) = ist.get_mut(usize::from(number) - 1) {
            *slot = top;
        }
    }
    let task: &'static TaskState = Box::leak(Box::new(TaskState {
        reserved_0: 0,
        rsp: [0; 3],
        reserved_1: 0,
        ist,
        reserved_2: 0,
        reserved_3: 0,
        io_map: size_of::<TaskState>() as u16,
    }));
    let base = core::ptr::from_ref(task).addr() as u64;
    let limit = size_of::<TaskState>() as u64 - 1;
    let table: &'static [u64; 5] = Box::leak(Box::new([
        0,
        0x00AF_9B00_0000_FFFF,
        0x00CF_9300_0000_FFFF,
        limit | (base & 0xFF_FFFF) << 16 | 0x89 << 40 | (base >> 24 & 0xFF) << 56,
        base >> 32,
    ]));
    let register = TableRegister {
        limit: size_of_val(table) as u16 - 1,
        base: core::ptr::from_ref(table).addr() as u64,
    };
    // SAFETY: the table has a flat 64-bit code segment at 8 and a data segment at 16, and both it
    // and the task state live for ever. FS and GS keep their bases: they are not loaded.
    unsafe {
        asm!(
            "lgdt [{register}]",
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            "mov ds, {data:e}",
            "mov es, {data:e}",
            "mov ss, {data:e}",
            "ltr {task:x}",
            register = in(reg) &raw const register,
            code = in(reg) u64::from(CODE),
            data = in(reg) u32::from(DATA),
            task = in(reg) TASK,
            scratch = out(reg) _,
        );
    }
}
