//! Checks of descriptors, control registers, MSRs and ports, by tables. What needs a whole system
//! (gates, task switches, returns) is tested by `guests/`.

use kasane_cpu::apic::registers;
use kasane_cpu::{AccessSize, DescriptorTable, Entry, Exit, Gpr};
use kasane_memory::GuestMemory;
use kasane_spec_x86::control::{cr0, cr4, efer};
use kasane_spec_x86::{flags, msr, paging, vector};

use super::structures::{Stack, Width};
use crate::cpu::{Shadow, Stop};
use crate::testing::{CODE, DATA, STACK, TestCpu};

const GDT: u64 = 0x8000;
/// Access bytes of a flat segment.
const DATA_RW: u64 = 0x93;
const DATA_RO: u64 = 0x91;
const CODE_XR: u64 = 0x9B;
const CODE_XO: u64 = 0x99;
const CONFORMING: u64 = 0x9F;

fn descriptor(access: u64, dpl: u64) -> u64 {
    0x00CF_0000_0000_FFFF | (access | dpl << 5) << 40
}

/// Runs `mov SREG, ax` with the one descriptor in the GDT at selector 8; the vector if it faults.
fn load(modrm: u8, raw: u64, selector: u16) -> Option<(u8, Option<u32>)> {
    let mut it = TestCpu::code32(&[0x8E, modrm]).with(Gpr::Rax, u64::from(selector));
    it.ram.store_u64(GDT + 8, raw).unwrap();
    it.cpu.state.gdtr = DescriptorTable { base: GDT, limit: 15 };
    it.step().err().map(|fault| (fault.vector, fault.error))
}
const DS: u8 = 0xD8;
const SS: u8 = 0xD0;

#[test]
fn segment_loads_check_type_privilege_and_presence() {
    let gp = Some((vector::GP, Some(8)));
    let absent = 0x80 << 40;
    let cases = [
        ("data into DS", DS, descriptor(DATA_RW, 0), 8, None),
        ("read-only data into DS", DS, descriptor(DATA_RO, 0), 8, None),
        ("readable code into DS", DS, descriptor(CODE_XR, 0), 8, None),
        ("execute-only code into DS", DS, descriptor(CODE_XO, 0), 8, gp),
        ("conforming code into DS, RPL 3", DS, descriptor(CONFORMING, 0), 11, None),
        ("data of DPL 0 with RPL 3", DS, descriptor(DATA_RW, 0), 11, gp),
        ("data of DPL 3 with RPL 3", DS, descriptor(DATA_RW, 3), 11, None),
        ("system descriptor", DS, descriptor(0x82, 0), 8, gp),
        ("not present", DS, descriptor(DATA_RW, 0) & !absent, 8, Some((vector::NP, Some(8)))),
        ("beyond the table", DS, descriptor(DATA_RW, 0), 16, Some((vector::GP, Some(16)))),
        ("no LDT", DS, descriptor(DATA_RW, 0), 12, Some((vector::GP, Some(12)))),
        ("null into DS", DS, 0, 3, None),
        ("null into SS", SS, 0, 0, Some((vector::GP, Some(0)))),
        ("read-only data into SS", SS, descriptor(DATA_RO, 0), 8, gp),
        ("code into SS", SS, descriptor(CODE_XR, 0), 8, gp),
        ("SS of DPL 3 in ring 0", SS, descriptor(DATA_RW, 3), 8, gp),
        ("SS with RPL 3 in ring 0", SS, descriptor(DATA_RW, 0), 11, gp),
        ("SS not present", SS, descriptor(DATA_RW, 0) & !absent, 8, Some((vector::SS, Some(8)))),
        ("SS", SS, descriptor(DATA_RW, 0), 8, None),
    ];
    for (name, modrm, raw, selector, expected) in cases {
        assert_eq!(load(modrm, raw, selector), expected, "{name}");
    }
}

#[test]
fn a_load_sets_the_accessed_bit_and_ss_holds_interrupts_back() {
    let mut it = TestCpu::code32(&[0x8E, SS]).with(Gpr::Rax, 8);
    it.ram.store_u64(GDT + 8, descriptor(DATA_RW & !1, 0)).unwrap();
    it.cpu.state.gdtr = DescriptorTable { base: GDT, limit: 15 };
    it.steps(1);
    assert_eq!(it.memory(GDT + 8), descriptor(DATA_RW, 0));
    assert_eq!(it.cpu.shadow, Shadow::MovSs);
    assert_eq!(it.cpu.state.ss.limit, u32::MAX);
}

#[test]
fn cr0_refuses_impossible_combinations() {
    let cases = [
        ("PG without PE", cr0::PG, true),
        ("NW without CD", cr0::PE | cr0::NW, true),
        ("upper half", 1 << 40 | cr0::PE | cr0::PG, true),
        ("PG off in 64-bit code", cr0::PE, true),
        ("as it is", cr0::PE | cr0::PG, false),
        ("unknown bits are ignored", cr0::PE | cr0::PG | 1 << 20, false),
    ];
    for (name, value, faults) in cases {
        let mut it = TestCpu::code64(&[0x0F, 0x22, 0xC0]).with(Gpr::Rax, value);
        assert_eq!(it.step().is_err(), faults, "{name}");
    }
}

#[test]
fn cr4_refuses_what_the_model_lacks_and_what_long_mode_needs() {
    let cases = [
        ("PAE off", 0, true),
        ("unknown bit", cr4::PAE | 1 << 30, true),
        ("PCIDE", cr4::PAE | cr4::PCIDE, false),
        ("SMEP", cr4::PAE | cr4::SMEP, false),
    ];
    for (name, value, faults) in cases {
        let mut it = TestCpu::code64(&[0x0F, 0x22, 0xE0]).with(Gpr::Rax, value);
        assert_eq!(it.step().is_err(), faults, "{name}");
    }
}

fn wrmsr(index: u32, value: u64) -> (TestCpu, bool) {
    let mut it = TestCpu::code64(&[0x0F, 0x30])
        .with(Gpr::Rcx, u64::from(index))
        .with(Gpr::Rax, value & 0xFFFF_FFFF)
        .with(Gpr::Rdx, value >> 32);
    let faults = it.step().is_err();
    (it, faults)
}

#[test]
fn msrs_refuse_what_the_manual_says() {
    const LONG: u64 = efer::LME | efer::LMA;
    let cases = [
        ("canonical LSTAR", msr::LSTAR, 0xFFFF_8000_0000_0000, false),
        ("non-canonical LSTAR", msr::LSTAR, 0x8000_0000_0000, true),
        ("non-canonical GS base", msr::GS_BASE, 1 << 63, true),
        ("EFER with NXE and SCE", msr::EFER, LONG | efer::NXE | efer::SCE, false),
        ("EFER reserved bit", msr::EFER, LONG | 2, true),
        ("LME off with paging on", msr::EFER, 0, true),
        ("PAT with a reserved type", msr::PAT, 2, true),
        ("PAT with UC-", msr::PAT, 0x0007_0406_0007_0406, false),
        ("MTRR default type", msr::MTRR_DEF_TYPE, 0xC06, false),
        ("MTRR reserved type", msr::MTRR_DEF_TYPE, 0xC02, true),
        ("MTRR mask, low bits", 0x201, 0x3FF, true),
        ("MTRR capabilities", msr::MTRR_CAP, 0, true),
        ("APIC base, x2APIC without enable", msr::APIC_BASE, 0xFEE0_0000 | 1 << 10, true),
        ("APIC base to x2APIC", msr::APIC_BASE, 0xFEE0_0000 | 3 << 10, false),
        ("x2APIC register in xAPIC mode", 0x808, 0, true),
        ("TSC_AUX, upper half", msr::TSC_AUX, 1 << 32, true),
    ];
    for (name, index, value, faults) in cases {
        assert_eq!(wrmsr(index, value).1, faults, "{name}");
    }
}

#[test]
fn writing_the_tsc_moves_its_adjustment_too() {
    let (it, _) = wrmsr(msr::TSC, 5_000_000);
    assert_eq!(it.cpu.tsc(), 5_000_000);
    // The clock of the test stands at 1 ms, the TSC runs at 1 GHz.
    assert_eq!(it.cpu.state.msrs.tsc_adjust, 4_000_000);
}

#[test]
fn the_kvm_clock_page_tells_time_and_frequency() {
    let (it, _) = wrmsr(msr::KVM_SYSTEM_TIME_NEW, DATA | 1);
    let version = it.memory(DATA) as u32;
    assert_eq!((version & 1, version == 0), (0, false));
    assert_eq!(it.memory(DATA + 8), 1_000_000); // TSC
    assert_eq!(it.memory(DATA + 16), 1_000_000); // nanoseconds
    // 1 GHz: shift 1, multiplier one half; the stable flag.
    assert_eq!(it.memory(DATA + 24), 0x0000_0101_8000_0000);
}

#[test]
fn unknown_msrs_are_the_machines() {
    let mut it = TestCpu::code64(&[0x0F, 0x32]).with(Gpr::Rcx, 0x1234);
    let op = it.decode();
    let first = (op.run)(&mut it.cpu, &op);
    assert_eq!(
        (first, it.cpu.pending_exit),
        (Err(Stop::Exit), Some(Exit::MsrRead { index: 0x1234 }))
    );
    it.cpu.replay.answer(Entry::Fault);
    it.cpu.replay.restart();
    assert_eq!((op.run)(&mut it.cpu, &op), Err(Stop::Fault));
    assert_eq!((it.cpu.fault.vector, it.cpu.fault.error), (vector::GP, Some(0)));
}

#[test]
fn rep_outs_goes_out_in_chunks_and_counts_down() {
    let mut it = TestCpu::code64(&[0xF3, 0x6E])
        .with(Gpr::Rcx, 40)
        .with(Gpr::Rsi, DATA)
        .with(Gpr::Rdx, 0x3F8)
        .with_memory_at(DATA, &[7; 40]);
    let op = it.decode();
    it.cpu.next_rip = op.next_rip;
    assert_eq!((op.run)(&mut it.cpu, &op), Err(Stop::Exit));
    let expected =
        Exit::PortWriteString { port: 0x3F8, size: AccessSize::Byte, count: 32, data: [7; 32] };
    assert_eq!(it.cpu.pending_exit, Some(expected));
    it.cpu.replay.answer(Entry::Resume);
    it.cpu.replay.restart();
    assert_eq!((op.run)(&mut it.cpu, &op), Err(Stop::Break));
    assert_eq!((it.reg(Gpr::Rcx), it.reg(Gpr::Rsi), it.cpu.next_rip), (8, DATA + 32, CODE));
}

#[test]
fn syscall_saves_and_masks_the_flags() {
    let mut it = TestCpu::code64(&[0x0F, 0x05]).with_flags(flags::IF | flags::DF);
    it.cpu.state.efer |= efer::SCE;
    it.cpu.state.msrs.star = 0x23_0010 << 32;
    it.cpu.state.msrs.lstar = 0xFFFF_8000_0000_1000;
    it.cpu.state.msrs.fmask = flags::IF | flags::DF;
    it.steps(1);
    assert_eq!(it.reg(Gpr::Rcx), CODE + 2);
    assert_eq!(it.reg(Gpr::R11), flags::FIXED | flags::IF | flags::DF);
    assert_eq!(it.cpu.state.rflags, flags::FIXED);
    assert_eq!((it.cpu.state.cs.selector, it.cpu.state.ss.selector), (0x10, 0x18));
    assert_eq!(it.cpu.state.rip, 0xFFFF_8000_0000_1000);
}

#[test]
fn a_64_bit_interrupt_aligns_the_stack_and_clears_the_flags() {
    let mut it = TestCpu::code64(&[0xCD, 0x40]).with(Gpr::Rsp, STACK - 3).with_flags(flags::IF);
    let idt = 0x9000;
    it.ram.store_u64(GDT + 16, 0x00AF_9B00_0000_FFFF).unwrap();
    it.cpu.state.gdtr = DescriptorTable { base: GDT, limit: 23 };
    it.cpu.state.idtr = DescriptorTable { base: idt, limit: 0xFFF };
    // Interrupt gate to 10:0000_0000_0012_3456.
    it.ram.store_u64(idt + 0x400, 0x0012_8E00_0010_3456).unwrap();
    it.steps(1);
    let frame = (STACK & !15) - 16 - 40;
    assert_eq!((it.cpu.state.rip, it.reg(Gpr::Rsp)), (0x12_3456, frame));
    assert_eq!(it.memory(frame), CODE + 2);
    assert_eq!(it.memory(frame + 16), flags::FIXED | flags::IF);
    assert_eq!(it.memory(frame + 24), STACK - 3);
    assert_eq!(it.cpu.state.rflags & flags::IF, 0);
}

#[test]
fn a_gate_that_is_not_there_names_itself() {
    let mut it = TestCpu::code64(&[0xCD, 0x40]);
    it.cpu.state.idtr = DescriptorTable { base: 0x9000, limit: 0xFFF };
    let before = it.cpu.state.clone();
    let fault = it.step().unwrap_err();
    assert_eq!((fault.vector, fault.error), (vector::GP, Some(0x40 << 3 | 2)));
    assert_eq!(it.cpu.state, before);
}

#[test]
fn an_overlong_instruction_is_gp_and_an_unknown_one_of_15_bytes_is_ud() {
    let long = |bytes: &[u8], opcode: &[u8]| [bytes, opcode].concat();
    let cases = [
        (long(&[0x66; 15], &[0x90]), vector::GP),
        (long(&[0x3E; 15], &[0x0F, 0xFF]), vector::GP),
        (long(&[0x3E; 14], &[0x06]), vector::UD),
        (long(&[0x3E; 12], &[0x06]), vector::UD),
    ];
    for (bytes, expected) in cases {
        let fault = TestCpu::code64(&bytes).step().unwrap_err();
        assert_eq!(fault.vector, expected, "{bytes:02x?}");
    }
}

#[test]
fn init_leaves_the_caches_as_they_were() {
    let mut it = TestCpu::code64(&[0x90]);
    it.cpu.init();
    assert_eq!(it.cpu.state.cr0, cr0::ET);
    it.cpu.state.cr0 |= cr0::CD;
    it.cpu.init();
    assert_eq!(it.cpu.state.cr0, cr0::ET | cr0::CD);
}

#[test]
fn a_deadline_moves_with_the_tsc() {
    let wrmsr = [0x0F, 0x30];
    let mut it = TestCpu::code64(&[wrmsr, wrmsr].concat());
    it.cpu.apic.write(registers::SVR, 0x1FF, 0);
    it.cpu.apic.write(registers::LVT_TIMER, 0x4_0030, 0);
    // The clock stands at 1 ms, a tick is a nanosecond: 5 ms are 4 ms away.
    it = it.with(Gpr::Rcx, msr::TSC_DEADLINE.into()).with(Gpr::Rax, 5_000_000).with(Gpr::Rdx, 0);
    it.steps(1);
    let first = it.cpu.apic.deadline_ns();
    it = it.with(Gpr::Rcx, msr::TSC.into()).with(Gpr::Rax, 3_000_000);
    it.steps(1);

    assert_eq!((first, it.cpu.apic.deadline_ns()), (Some(5_000_000), Some(3_000_000)));
}

#[test]
fn invlpg_forgets_a_large_page_that_is_none_any_more() {
    // mov eax, [rbx]; invlpg [rsi]; mov eax, [rbx]
    let mut it = TestCpu::code64(&[0x8B, 0x03, 0x0F, 0x01, 0x3E, 0x8B, 0x03])
        .with(Gpr::Rbx, DATA + 0x5000)
        .with(Gpr::Rsi, DATA);
    it.ram.store_u64(DATA + 0x6000, 0x77).unwrap();
    it.steps(1);
    it.ram.store_u64(0x4000 + 5 * 8, (DATA + 0x6000) | paging::P).unwrap();
    it.ram.store_u64(0x3008, 0x4000 | paging::P).unwrap();

    it.steps(2);

    assert_eq!(it.reg(Gpr::Rax), 0x77);
}

#[test]
fn invlpg_of_an_unmapped_page_leaves_the_others_alone() {
    // mov eax, [rbx]; invlpg [rsi]; mov eax, [rbx]
    let mut it = TestCpu::code64(&[0x8B, 0x03, 0x0F, 0x01, 0x3E, 0x8B, 0x03])
        .with(Gpr::Rbx, DATA)
        .with(Gpr::Rsi, 0x7000_0000);
    it.ram.store_u64(DATA, 0x77).unwrap();
    it.steps(1);
    it.ram.store_u64(0x3008, 0).unwrap();

    it.steps(2);

    assert_eq!(it.reg(Gpr::Rax), 0x77);
}

#[test]
fn a_processor_pushes_around_the_end_of_a_flat_segment_as_programs_do() {
    // push eax, of which the upper half goes to the segment's offset 0.
    let mut it = TestCpu::code32(&[0x50]).with(Gpr::Rax, 0x1122_3344).with(Gpr::Rsp, 2);
    it.cpu.state.ss.base = DATA;
    it.cpu.refresh_mode();
    it.steps(1);
    let program = it.memory(DATA - 2) as u32;

    let mut stack = Stack::current(&it.cpu, 0);
    stack.sp = 2;
    let processor = stack.push(&mut it.cpu, Width::W32, 0x5566_7788);

    assert_eq!((program, processor), (0x1122_3344, Ok(())));
    assert_eq!(it.memory(DATA - 2) as u32, 0x5566_7788);
}
