//! The run loop with whole blocks.

use core::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kasane_cpu::apic::registers;
use kasane_cpu::{AccessSize, Entry, Exit, Gpr, Vcpu};
use kasane_memory::GuestMemory;
use kasane_ports::{Level, Msi, MsiSink};
use kasane_spec_x86::{flags, paging};

use crate::run::InterpVcpu;
use crate::testing::{CODE, DATA, TestCpu};

/// `mov [0xFEE000B0], eax`: an end of interrupt.
const EOI: [u8; 5] = [0xA3, 0xB0, 0x00, 0xE0, 0xFE];

#[test]
fn each_end_of_interrupt_leaves_the_block_at_once() {
    let mut it = TestCpu::code32(&[EOI, EOI].concat());
    for vector in [0x41u8, 0x52] {
        it.apics.signal(Msi { address: 0xFEE0_0000, data: 0x8000 | u32::from(vector) });
        it.cpu.apic.write(registers::SVR, 0x1FF, 0);
        it.cpu.apic.collect();
        it.cpu.apic.acknowledge(vector);
    }
    it.cpu.mailbox.take_events();
    let mut vcpu = it.vcpu();

    let first = (vcpu.run(Entry::Resume).unwrap(), vcpu.cpu.state.rip - CODE);
    let second = (vcpu.run(Entry::Resume).unwrap(), vcpu.cpu.state.rip - CODE);

    assert_eq!(first, (Exit::Eoi { vector: 0x52 }, 5));
    assert_eq!(second, (Exit::Eoi { vector: 0x41 }, 10));
}

/// Linux masks LINT0 once the I/O APIC serves it and leaves the PIC's wire up.
#[test]
fn the_pics_wire_is_no_business_while_lint0_is_masked() {
    const EXTINT: u32 = 7 << 8;
    const MASKED: u32 = 1 << 16;
    let mut it = TestCpu::code32(&[0x90]);
    it.cpu.state.rflags |= flags::IF;
    it.cpu.apic.write(registers::SVR, 0x1FF, 0);
    it.apics.set_extint(Level::High);
    let waits = [EXTINT, EXTINT | MASKED, EXTINT].map(|lint0| {
        it.cpu.apic.write(registers::LVT_LINT0, lint0, 0);
        it.cpu.mailbox.take_events();
        it.cpu.attention = false;
        it.cpu.has_business()
    });

    assert_eq!(waits, [true, false, true]);
}

#[test]
fn code_that_another_processor_changes_all_the_time_is_run_nevertheless() {
    // mov eax, imm32; nop...
    let it = TestCpu::code32(&[0xB8, 0, 0, 0, 0, 0x90, 0x90, 0x90]);
    let (ram, mut vcpu) = (it.ram.clone(), it.vcpu());
    let stop = AtomicBool::new(false);

    let taken = std::thread::scope(|scope| {
        scope.spawn(|| {
            let start = Instant::now();
            let mut immediate = 0u32;
            while !stop.load(Ordering::Relaxed) && start.elapsed() < Duration::from_secs(10) {
                for _ in 0..1000 {
                    immediate = immediate.wrapping_add(1);
                    ram.write(CODE + 1, &immediate.to_le_bytes()).unwrap();
                }
            }
        });
        let start = Instant::now();
        for _ in 0..200 {
            vcpu.cpu.state.rip = CODE;
            vcpu.set_budget(Some(1));
            vcpu.run(Entry::Resume).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        start.elapsed()
    });

    assert!(taken < Duration::from_secs(9), "{taken:?}");
}

#[test]
fn a_repeated_instruction_counts_once_however_often_it_is_interrupted() {
    // rep lodsb; nop; nop
    let it = TestCpu::code32(&[0xF3, 0xAC, 0x90, 0x90]).with(Gpr::Rcx, 10_000).with(Gpr::Rsi, DATA);
    let mut vcpu = it.vcpu();
    vcpu.set_budget(Some(2));

    let exit = vcpu.run(Entry::Resume).unwrap();

    assert_eq!((exit, vcpu.cpu.state.rip - CODE), (Exit::BudgetUsed, 3));
    assert_eq!((vcpu.instructions(), vcpu.cpu.reg(Gpr::Rcx)), (2, 0));
}

#[test]
fn a_long_copy_brings_the_next_look_at_the_clock_nearer() {
    // rep stosb
    let mut it = TestCpu::code32(&[0xF3, 0xAA]).with(Gpr::Rcx, 0x10_0000).with(Gpr::Rdi, DATA);
    it.cpu.clock_check = 1 << 40;
    it.steps(1);

    let done = 0x10_0000 - it.reg(Gpr::Rcx);
    let nearer = (1 << 40) - it.cpu.clock_check;

    assert!((0x1_0000..0x3_0000).contains(&done), "{done:#x}");
    assert!((2000..2200).contains(&nearer), "{nearer}");
}

#[test]
fn the_instruction_that_asked_is_the_one_that_gets_the_answer() {
    // mov eax, [0x5000000]; then somebody makes it mov ecx, [0x5000000].
    let it = TestCpu::code32(&[0x8B, 0x05, 0, 0, 0, 5, 0xF4]);
    let (ram, mut vcpu) = (it.ram.clone(), it.vcpu());

    let asked = vcpu.run(Entry::Resume).unwrap();
    ram.write(CODE, &[0x8B, 0x0D]).unwrap();
    let halted = vcpu.run(Entry::Value(0x77)).unwrap();

    assert_eq!(asked, Exit::MmioRead { gpa: 0x500_0000, size: AccessSize::Dword });
    assert_eq!(halted, Exit::Halt);
    assert_eq!((vcpu.cpu.reg(Gpr::Rax), vcpu.cpu.reg(Gpr::Rcx)), (0x77, 0));
}

#[test]
fn an_answer_is_not_taken_for_that_of_another_question() {
    // mov eax, [rbx], where another page comes to be in between.
    let it = TestCpu::code64(&[0x8B, 0x03, 0xF4]).with(Gpr::Rbx, 0x40_0008);
    let entry = paging::P | paging::PS | paging::A;
    it.ram.store_u64(0x3010, 0x1000_0000 | entry).unwrap();
    let (ram, mut vcpu) = (it.ram.clone(), it.vcpu());

    let first = vcpu.run(Entry::Resume).unwrap();
    ram.store_u64(0x3010, 0x2000_0000 | entry).unwrap();
    let second = vcpu.run(Entry::Value(1)).unwrap();
    vcpu.run(Entry::Value(2)).unwrap();

    assert_eq!(first, Exit::MmioRead { gpa: 0x1000_0008, size: AccessSize::Dword });
    assert_eq!(second, Exit::MmioRead { gpa: 0x2000_0008, size: AccessSize::Dword });
    assert_eq!(vcpu.cpu.reg(Gpr::Rax), 2);
}

#[test]
fn a_change_of_ram_and_mmio_at_once_changes_each_once() {
    // add dword [0x3FFFFE], 0x00010001: the last two bytes of RAM and two of no memory.
    let code = [0x81, 0x05, 0xFE, 0xFF, 0x3F, 0, 1, 0, 1, 0, 0xF4];
    let it = TestCpu::code32(&code).with_memory_at(0x3F_FFFE, &[5, 0]);
    let (ram, mut vcpu) = (it.ram.clone(), it.vcpu());
    let mut entry = Entry::Resume;
    let mut written = std::vec::Vec::new();

    loop {
        entry = match vcpu.run(entry).unwrap() {
            Exit::MmioRead { gpa, .. } => Entry::Value(if gpa == 0x40_0000 { 7 } else { 0 }),
            Exit::MmioWrite { gpa, value, .. } => {
                written.push((gpa, value));
                Entry::Resume
            }
            Exit::Halt => break,
            _ => entry,
        };
    }

    assert_eq!(ram.load_u16(0x3F_FFFE), Ok(6));
    assert_eq!(written, [(0x40_0000, 8), (0x40_0001, 0)]);
}

const ROUNDS: u64 = 1_000_000;

/// One processor adds 1 to the word at `at` by locked additions, the other adds 1 to the same word
/// by locked additions of a doubleword of which it is the upper half. What the word is then.
fn added_by_both(at: u64) -> u16 {
    // 1: lock add word [rbx], 1; dec ecx; jnz 1b; hlt
    let plain = [0xF0, 0x66, 0x83, 0x03, 1, 0xFF, 0xC9, 0x75, 0xF7, 0xF4];
    // 1: lock add dword [rbx - 2], 0x10000; dec ecx; jnz 1b; hlt
    let split = [0xF0, 0x81, 0x43, 0xFE, 0, 0, 1, 0, 0xFF, 0xC9, 0x75, 0xF4, 0xF4];
    let it = TestCpu::code64(&plain).with(Gpr::Rbx, at).with(Gpr::Rcx, ROUNDS);
    let ram = it.ram.clone();
    let mut other = it.other(CODE + 0x1000, &split);
    let mut first = it.vcpu();
    let until_halt =
        |vcpu: &mut InterpVcpu| while vcpu.run(Entry::Resume).unwrap() != Exit::Halt {};

    std::thread::scope(|scope| {
        scope.spawn(|| until_halt(&mut other));
        until_halt(&mut first);
    });

    ram.load_u16(at).unwrap()
}

#[test]
fn locked_accesses_across_lines_and_pages_are_atomic_with_those_that_are_not() {
    let across_a_line = added_by_both(DATA + 64);
    let across_a_page = added_by_both(DATA + 4096);
    let all = (ROUNDS * 2) as u16;
    assert_eq!((across_a_line, across_a_page), (all, all));
}
