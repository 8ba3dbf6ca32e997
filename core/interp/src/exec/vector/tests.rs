//! What the host has no part in: checks and their order, operands, images in the old formats.

use kasane_cpu::Gpr;
use kasane_memory::GuestMemory;
use kasane_spec_x86::control::{cr0, cr4};
use kasane_spec_x86::vector::{AC, GP, MF, NM, PF, UD};
use kasane_spec_x86::{flags, paging};

use crate::testing::{DATA, TestCpu};

const MOVAPS_LOAD: &[u8] = &[0x0F, 0x28, 0x03]; // movaps xmm0, [rbx]
const VMOVDQU_LOAD: &[u8] = &[0xC5, 0xFE, 0x6F, 0x03]; // vmovdqu ymm0, [rbx]
const FNSTENV: &[u8] = &[0xD9, 0x33]; // fnstenv [rbx]
const FWAIT: &[u8] = &[0x9B];
const EMMS: &[u8] = &[0x0F, 0x77];

/// A processor whose operating system has enabled everything, with RBX at the data.
fn enabled(code: &[u8]) -> TestCpu {
    let mut it = TestCpu::code64(code).with(Gpr::Rbx, DATA);
    it.cpu.state.cr4 |= cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE;
    it.cpu.state.xcr0 = 7;
    it
}

fn fault_with(code: &[u8], change: impl FnOnce(&mut TestCpu)) -> Option<u8> {
    let mut it = enabled(code);
    change(&mut it);
    it.step().err().map(|fault| fault.vector)
}

#[test]
fn sse_is_undefined_before_it_is_unavailable() {
    let none = fault_with(MOVAPS_LOAD, |_| {});
    let ts = fault_with(MOVAPS_LOAD, |it| it.cpu.state.cr0 |= cr0::TS);
    let both = fault_with(MOVAPS_LOAD, |it| it.cpu.state.cr0 |= cr0::TS | cr0::EM);
    let off = fault_with(MOVAPS_LOAD, |it| it.cpu.state.cr4 &= !cr4::OSFXSR);
    assert_eq!([none, ts, both, off], [None, Some(NM), Some(UD), Some(UD)]);
}

#[test]
fn avx_needs_its_state_enabled_but_not_em_clear() {
    let no_state = fault_with(VMOVDQU_LOAD, |it| it.cpu.state.xcr0 = 3);
    let no_xsave = fault_with(VMOVDQU_LOAD, |it| it.cpu.state.cr4 &= !cr4::OSXSAVE);
    let emulated = fault_with(VMOVDQU_LOAD, |it| it.cpu.state.cr0 |= cr0::EM);
    let switched = fault_with(VMOVDQU_LOAD, |it| it.cpu.state.cr0 |= cr0::TS);
    assert_eq!([no_state, no_xsave, emulated, switched], [Some(UD), Some(UD), None, Some(NM)]);
}

#[test]
fn vex_is_undefined_in_real_mode() {
    let mut it = TestCpu::code16(&[0xC5, 0xF8, 0x77]); // vzeroupper
    it.cpu.state.cr4 |= cr4::OSXSAVE;
    it.cpu.state.xcr0 = 7;
    assert_eq!(it.step().unwrap_err().vector, UD);
}

#[test]
fn x87_and_fwait_have_their_own_rules() {
    let em = fault_with(FNSTENV, |it| it.cpu.state.cr0 |= cr0::EM);
    let wait_ts = fault_with(FWAIT, |it| it.cpu.state.cr0 |= cr0::TS);
    let wait_mp = fault_with(FWAIT, |it| it.cpu.state.cr0 |= cr0::TS | cr0::MP);
    let wait_pending = fault_with(FWAIT, |it| {
        it.cpu.state.vector.set_fcw(0x037B);
        it.cpu.state.vector.set_fsw(0x8084);
    });
    let emms_em = fault_with(EMMS, |it| it.cpu.state.cr0 |= cr0::EM);
    assert_eq!(
        [em, wait_ts, wait_mp, wait_pending, emms_em],
        [Some(NM), None, Some(NM), Some(MF), Some(UD)]
    );
}

#[test]
fn alignment_is_demanded_where_the_manual_says() {
    let aligned = fault_with(MOVAPS_LOAD, |it| it.cpu.set_reg(Gpr::Rbx, DATA + 32));
    let odd = fault_with(MOVAPS_LOAD, |it| it.cpu.set_reg(Gpr::Rbx, DATA + 8));
    let unaligned = fault_with(&[0x0F, 0x10, 0x03], |it| it.cpu.set_reg(Gpr::Rbx, DATA + 1));
    let vex = fault_with(VMOVDQU_LOAD, |it| it.cpu.set_reg(Gpr::Rbx, DATA + 1));
    let vmovdqa = fault_with(&[0xC5, 0xFD, 0x6F, 0x03], |it| it.cpu.set_reg(Gpr::Rbx, DATA + 16));
    let fxsave = fault_with(&[0x0F, 0xAE, 0x03], |it| it.cpu.set_reg(Gpr::Rbx, DATA + 8));
    let xsave = fault_with(&[0x0F, 0xAE, 0x23], |it| it.cpu.set_reg(Gpr::Rbx, DATA + 32));
    assert_eq!(
        [aligned, odd, unaligned, vex, vmovdqa, fxsave, xsave],
        [None, Some(GP), None, None, Some(GP), Some(GP), Some(GP)]
    );
}

#[test]
fn a_store_over_the_end_of_memory_map_writes_nothing() {
    // vmovdqu [rbx], ymm0 across the last mapped page at 4 MiB.
    let mut it = enabled(&[0xC5, 0xFE, 0x7F, 0x03]).with(Gpr::Rbx, 0x40_0000 - 16);
    it.cpu.state.vector.set_ymm(0, [1; 4]);
    let fault = it.step().unwrap_err();
    assert_eq!((fault.vector, fault.address), (PF, 0x40_0000));
    assert_eq!(it.memory(0x40_0000 - 16), 0);
}

#[test]
fn legacy_moves_keep_and_vex_moves_clear_the_upper_half() {
    let mut sse = enabled(&[0x0F, 0x28, 0xC1]); // movaps xmm0, xmm1
    let mut vex = enabled(&[0xC5, 0xFA, 0x6F, 0x03]); // vmovdqu xmm0, [rbx]
    for it in [&mut sse, &mut vex] {
        it.cpu.state.vector.set_ymm(0, [1, 2, 3, 4]);
        it.cpu.state.vector.set_ymm(1, [5, 6, 7, 8]);
        it.step().unwrap();
    }
    assert_eq!(sse.cpu.state.vector.ymm(0), [5, 6, 3, 4]);
    assert_eq!(vex.cpu.state.vector.ymm(0), [0; 4]);
}

#[test]
fn ldmxcsr_refuses_reserved_bits() {
    let mut it = enabled(&[0x0F, 0xAE, 0x13]).with_memory_at(DATA, &[0x80, 0x1F, 1, 0]);
    assert_eq!(it.step().unwrap_err().vector, GP);
    assert_eq!(it.cpu.state.vector.mxcsr(), 0x1F80);
}

#[test]
fn a_gather_that_faults_keeps_what_it_has() {
    // vpgatherdd xmm1, [rbx + xmm2*1], xmm3: the third element is not mapped.
    let mut it = enabled(&[0xC4, 0xE2, 0x61, 0x90, 0x0C, 0x13])
        .with_memory_at(DATA, &[1, 0, 0, 0, 2, 0, 0, 0]);
    let v = &mut it.cpu.state.vector;
    v.set_ymm(1, [0xAAAA_AAAA_AAAA_AAAA; 4]);
    v.set_ymm(2, [4 << 32, 0x7000_0000, 0, 0]);
    v.set_ymm(3, [u64::MAX; 4]);
    let fault = it.step().unwrap_err();
    assert_eq!((fault.vector, fault.address), (PF, DATA + 0x7000_0000));
    let v = &it.cpu.state.vector;
    assert_eq!(v.ymm(1)[..2], [1 | 2 << 32, 0xAAAA_AAAA_AAAA_AAAA]);
    assert_eq!(v.ymm(3)[..2], [0, u64::MAX]);
}

#[test]
fn maskmovdqu_writes_the_chosen_bytes_only() {
    // maskmovdqu xmm0, xmm1
    let mut it = enabled(&[0x66, 0x0F, 0xF7, 0xC1]).with(Gpr::Rdi, DATA);
    it.cpu.state.vector.set_ymm(0, [0x1122_3344_5566_7788, 0, 0, 0]);
    it.cpu.state.vector.set_ymm(1, [0x8000_0000_0000_0080, 0, 0, 0]);
    it.step().unwrap();
    assert_eq!(it.memory(DATA), 0x1100_0000_0000_0088);
}

/// At ring 3 with #AC on.
fn alignment_checked(code: &[u8]) -> TestCpu {
    let mut it = enabled(code).with_flags(flags::AC);
    for entry in [0x1000, 0x2000, 0x3000, 0x3008] {
        let old: u64 = it.ram.load_u64(entry).unwrap();
        it.ram.store_u64(entry, old | paging::US).unwrap();
    }
    let state = &mut it.cpu.state;
    state.cr0 |= cr0::AM;
    state.cs.access |= 0x60;
    state.ss.access |= 0x60;
    it.cpu.refresh_mode();
    it.cpu.tlb.flush_all();
    it
}

#[test]
fn elements_never_raise_an_alignment_check() {
    // vpmaskmovd xmm0, xmm1, [rbx]; mov eax, [rbx]
    let run = |code: &[u8]| {
        let mut it = alignment_checked(code).with(Gpr::Rbx, DATA + 1);
        it.cpu.state.vector.set_ymm(1, [u64::MAX; 4]);
        it.step().err().map(|fault| fault.vector)
    };
    let masked = run(&[0xC4, 0xE2, 0x71, 0x8C, 0x03]);
    let plain = run(&[0x8B, 0x03]);
    assert_eq!([masked, plain], [None, Some(AC)]);
}

#[test]
fn an_element_that_ends_beyond_the_canonical_addresses_is_gp_also_with_alignment_checks() {
    // vpgatherdd xmm1, [rbx + xmm2*1], xmm3
    let mut it =
        alignment_checked(&[0xC4, 0xE2, 0x61, 0x90, 0x0C, 0x13]).with(Gpr::Rbx, 0x7FFF_FFFF_FFFE);
    let v = &mut it.cpu.state.vector;
    v.set_ymm(2, [0; 4]);
    v.set_ymm(3, [u64::MAX; 4]);
    assert_eq!(it.step().unwrap_err().vector, GP);
}

#[test]
fn a_gather_clears_the_upper_half_only_when_it_is_done() {
    // vpgatherqd xmm1, [rbx + ymm2*1], xmm3; the second element is not mapped in the first run.
    let run = |second: u64| {
        let mut it = enabled(&[0xC4, 0xE2, 0x65, 0x91, 0x0C, 0x13])
            .with_memory_at(DATA, &[1, 0, 0, 0, 2, 0, 0, 0]);
        let v = &mut it.cpu.state.vector;
        v.set_ymm(1, [0xAAAA_AAAA_AAAA_AAAA; 4]);
        v.set_ymm(2, [0, second, 4, 4]);
        v.set_ymm(3, [u64::MAX; 4]);
        let fault = it.step().err().map(|fault| fault.vector);
        (fault, it.cpu.state.vector.ymm(1))
    };
    let (faulted, kept) = run(0x7000_0000);
    let (done, cleared) = run(4);
    assert_eq!((faulted, done), (Some(PF), None));
    let a = 0xAAAA_AAAA_AAAA_AAAA;
    assert_eq!(kept, [0xAAAA_AAAA_0000_0001, a, a, a]);
    assert_eq!(cleared, [1 | 2 << 32, 2 | 2 << 32, 0, 0]);
}

#[test]
fn a_masked_store_that_faults_writes_nothing() {
    // vpmaskmovd [rbx], xmm1, xmm0; maskmovdqu xmm0, xmm1; both over the end of what is mapped.
    let end = 0x40_0000;
    let run = |code: &[u8]| {
        let mut it = enabled(code).with(Gpr::Rbx, end - 8).with(Gpr::Rdi, end - 8);
        it.cpu.state.vector.set_ymm(0, [u64::MAX; 4]);
        it.cpu.state.vector.set_ymm(1, [u64::MAX; 4]);
        let fault = it.step().unwrap_err();
        (fault.vector, fault.address, it.memory(end - 8))
    };
    let elements = run(&[0xC4, 0xE2, 0x71, 0x8E, 0x03]);
    let bytes = run(&[0x66, 0x0F, 0xF7, 0xC1]);
    assert_eq!([elements, bytes], [(PF, end, 0); 2]);
}

#[test]
fn elements_that_are_not_selected_do_not_fault() {
    // vpmaskmovd [rbx], xmm1, xmm0 with only its lower two elements on a page that is there.
    let end = 0x40_0000;
    let mut it = enabled(&[0xC4, 0xE2, 0x71, 0x8E, 0x03]).with(Gpr::Rbx, end - 8);
    it.cpu.state.vector.set_ymm(0, [7 | 8 << 32, 9, 0, 0]);
    it.cpu.state.vector.set_ymm(1, [u64::MAX, 0, 0, 0]);
    it.step().unwrap();
    assert_eq!(it.memory(end - 8), 7 | 8 << 32);
}

#[test]
fn a_masked_mmx_store_that_faults_leaves_the_x87_stack() {
    let run = |rdi: u64| {
        let mut it = enabled(&[0x0F, 0xF7, 0xC1]).with(Gpr::Rdi, rdi); // maskmovq mm0, mm1
        it.cpu.state.vector.set_fsw(0x1800);
        it.cpu.state.vector.set_ftw(0);
        let fault = it.step().err().map(|fault| fault.vector);
        (fault, it.cpu.state.vector.fsw(), it.cpu.state.vector.ftw())
    };
    let (faulted, done) = (run(0x7000_0000), run(DATA));
    assert_eq!(faulted, (Some(PF), 0x1800, 0));
    assert_eq!(done, (None, 0, 0xFF));
}

#[test]
fn the_real_mode_environment_has_linear_pointers() {
    let mut it = TestCpu::code16(&[0xD9, 0x37]).with(Gpr::Rbx, 0x500); // fnstenv [bx]
    let v = &mut it.cpu.state.vector;
    v.set_fip(0xA_BCDE);
    v.set_fdp(0x1_2345);
    v.set_fop(0x123);
    it.step().unwrap();
    assert_eq!(it.memory(0x500) >> 48, 0xBCDE);
    assert_eq!(it.memory(0x508) & 0xFFFF_FFFF_FFFF, 0x1000_2345_A123);
}

#[test]
fn xsetbv_refuses_impossible_sets() {
    let set = |value: u64| {
        let mut it =
            enabled(&[0x0F, 0x01, 0xD1]).with(Gpr::Rax, value).with(Gpr::Rcx, 0).with(Gpr::Rdx, 0);
        it.step().map(|()| it.cpu.state.xcr0).map_err(|fault| fault.vector)
    };
    assert_eq!([set(7), set(3), set(1)], [Ok(7), Ok(3), Ok(1)]);
    assert_eq!([set(6), set(5), set(0x200)], [Err(GP), Err(GP), Err(GP)]);
}

#[test]
fn without_a_host_an_arithmetic_instruction_is_missing() {
    let mut it = enabled(&[0x0F, 0x58, 0xC1]); // addps xmm0, xmm1
    assert_eq!(it.step().unwrap_err().vector, UD);
    assert_eq!(it.cpu.missing.values().sum::<u64>(), 1);
}

#[test]
fn the_limit_of_a_segment_counts_for_a_whole_operand_before_its_pages() {
    const UNMAPPED: u64 = 4 << 20;
    let load = |limit: u32| {
        fault_with(VMOVDQU_LOAD, |it| {
            it.cpu.state.cs.access = 0xC09B; // 32-bit code in long mode
            it.cpu.state.ds.limit = limit;
            it.cpu.set_reg(Gpr::Rbx, UNMAPPED);
            it.cpu.refresh_mode();
        })
    };
    assert_eq!(load(UNMAPPED as u32 + 15), Some(GP));
    assert_eq!(load(u32::MAX), Some(PF));
}
