//! One or two tests per family: what the comparison with the real processor
//! (`conformance/differ`) doesn't reach, and the classics.

use kasane_cpu::Gpr;
use kasane_spec_x86::{flags, vector};

use crate::testing::{CODE, CODE16, DATA, STACK, TestCpu};

fn arithmetic(t: &TestCpu) -> u64 {
    t.cpu.state.rflags & flags::ARITHMETIC
}

#[test]
fn add_sets_every_flag() {
    let mut t = TestCpu::code64(&[0x00, 0xC8]).with(Gpr::Rax, 0x1180).with(Gpr::Rcx, 0x80);
    t.steps(1); // add al, cl
    assert_eq!(t.reg(Gpr::Rax), 0x1100);
    assert_eq!(arithmetic(&t), flags::CF | flags::OF | flags::ZF | flags::PF);
}

#[test]
fn adc_and_sbb_take_the_carry() {
    let mut t = TestCpu::code64(&[0x48, 0x11, 0xC8, 0x48, 0x19, 0xC8])
        .with(Gpr::Rax, u64::MAX)
        .with_flags(flags::CF);
    t.steps(1); // adc rax, rcx
    assert_eq!(t.reg(Gpr::Rax), 0);
    assert_eq!(arithmetic(&t), flags::CF | flags::ZF | flags::PF | flags::AF);
    t.steps(1); // sbb rax, rcx
    assert_eq!(t.reg(Gpr::Rax), u64::MAX);
}

#[test]
fn inc_keeps_the_carry() {
    let mut t = TestCpu::code64(&[0xFE, 0xC4]).with(Gpr::Rax, 0x7F00).with_flags(flags::CF);
    t.steps(1); // inc ah
    assert_eq!(t.reg(Gpr::Rax), 0x8000);
    assert_eq!(arithmetic(&t), flags::CF | flags::OF | flags::SF | flags::AF);
}

#[test]
fn locked_xadd_on_memory_changes_both() {
    let mut t = TestCpu::code64(&[0xF0, 0x48, 0x0F, 0xC1, 0x03])
        .with(Gpr::Rbx, DATA)
        .with(Gpr::Rax, 5)
        .with_memory_at(DATA, &7u64.to_le_bytes());
    t.steps(1);
    assert_eq!((t.memory(DATA), t.reg(Gpr::Rax)), (12, 7));
}

#[test]
fn divide_errors_leave_registers() {
    let mut t = TestCpu::code64(&[0x48, 0xF7, 0xF9]).with(Gpr::Rax, 1 << 63).with(Gpr::Rdx, !0);
    t = t.with(Gpr::Rcx, !0); // idiv rcx: the quotient 2^63 does not fit
    assert_eq!(t.step().unwrap_err().vector, vector::DE);
    assert_eq!((t.reg(Gpr::Rax), t.cpu.state.rip), (1 << 63, CODE));
}

#[test]
fn rep_movsb_overlapping_replicates_across_pages() {
    let mut t = TestCpu::code64(&[0xF3, 0xA4])
        .with(Gpr::Rsi, DATA + 0xFF0)
        .with(Gpr::Rdi, DATA + 0xFF1)
        .with(Gpr::Rcx, 0x1000)
        .with_memory_at(DATA + 0xFF0, &[0xAB]);
    t.steps(1);
    assert_eq!(t.reg(Gpr::Rcx), 0);
    assert_eq!(t.memory(DATA + 0xFF0 + 0xFF9), 0xABAB_ABAB_ABAB_ABAB);
    assert_eq!(t.memory(DATA + 0xFF1 + 0x1000), 0);
}

#[test]
fn rep_movsw_at_an_odd_distance_is_not_bytewise() {
    let mut t = TestCpu::code64(&[0xF3, 0x66, 0xA5])
        .with(Gpr::Rsi, DATA)
        .with(Gpr::Rdi, DATA + 1)
        .with(Gpr::Rcx, 2)
        .with_memory_at(DATA, &[1, 2, 3, 4, 5, 6, 7, 8]);
    t.steps(1);
    // word 1,2 to 1..3, then the word at 2 (now 2,4) to 3..5
    assert_eq!(t.memory(DATA).to_le_bytes(), [1, 1, 2, 2, 4, 6, 7, 8]);
}

#[test]
fn rep_stosq_stops_at_a_fault_with_its_progress_kept() {
    let mut t = TestCpu::code64(&[0xF3, 0x48, 0xAB])
        .with(Gpr::Rdi, 0x40_0000 - 16)
        .with(Gpr::Rcx, 5)
        .with(Gpr::Rax, 0x1234_5678_9ABC_DEF0);
    let fault = t.step().unwrap_err();
    assert_eq!((fault.vector, fault.address), (vector::PF, 0x40_0000));
    assert_eq!((t.reg(Gpr::Rcx), t.reg(Gpr::Rdi)), (3, 0x40_0000));
    assert_eq!(t.cpu.state.rip, CODE);
}

#[test]
fn a_long_repeat_stops_to_look_for_interrupts() {
    let mut t = TestCpu::code64(&[0xF3, 0xAC]).with(Gpr::Rsi, DATA).with(Gpr::Rcx, 3000);
    t.steps(1); // rep lodsb
    assert_eq!((t.reg(Gpr::Rcx), t.cpu.state.rip), (3000 - 2048, CODE));
    t.steps(1);
    assert_eq!((t.reg(Gpr::Rcx), t.cpu.state.rip), (0, CODE + 2));
}

#[test]
fn repne_scasb_finds_the_byte() {
    let mut t = TestCpu::code64(&[0xF2, 0xAE])
        .with(Gpr::Rdi, DATA)
        .with(Gpr::Rcx, 100)
        .with(Gpr::Rax, 3)
        .with_memory_at(DATA, &[1, 2, 3, 4]);
    t.steps(1);
    assert_eq!((t.reg(Gpr::Rcx), t.reg(Gpr::Rdi)), (97, DATA + 3));
    assert!(t.cpu.flag(flags::ZF));
}

#[test]
fn call_and_ret_use_the_stack() {
    let mut t = TestCpu::code64(&[0xE8, 0x03, 0, 0, 0, 0x90, 0x90, 0x90, 0xC2, 0x10, 0x00]);
    t.steps(1);
    assert_eq!((t.cpu.state.rip, t.memory(STACK - 8)), (CODE + 8, CODE + 5));
    t.steps(1);
    assert_eq!((t.cpu.state.rip, t.reg(Gpr::Rsp)), (CODE + 5, STACK + 16));
}

#[test]
fn a_call_to_a_non_canonical_address_leaves_the_stack_pointer() {
    let mut t = TestCpu::code64(&[0xFF, 0xD0]).with(Gpr::Rax, 1 << 63);
    assert_eq!(t.step().unwrap_err().vector, vector::GP);
    assert_eq!((t.reg(Gpr::Rsp), t.cpu.state.rip), (STACK, CODE));
}

#[test]
fn a_branch_beyond_the_limit_faults() {
    let mut t = TestCpu::code32(&[0xEB, 0x40]);
    t.cpu.state.cs.limit = CODE as u32 + 0x20;
    t.cpu.refresh_mode();
    assert_eq!(t.step().unwrap_err().vector, vector::GP);
    assert_eq!(t.cpu.state.rip, CODE);
}

#[test]
fn a_16_bit_jump_truncates_the_instruction_pointer() {
    let mut t = TestCpu::code32(&[0x66, 0xEB, 0x10]);
    t.steps(1);
    assert_eq!(t.cpu.state.rip, (CODE + 0x13) & 0xFFFF);
}

#[test]
fn pop_to_memory_addresses_with_the_new_stack_pointer() {
    let mut t = TestCpu::code64(&[0x8F, 0x04, 0x24]).with_memory_at(STACK, &[0x42]);
    t.steps(1); // pop qword [rsp]
    assert_eq!((t.memory(STACK + 8), t.reg(Gpr::Rsp)), (0x42, STACK + 8));
}

#[test]
fn enter_copies_the_outer_frames() {
    let mut t = TestCpu::code64(&[0xC8, 0x20, 0x00, 0x02])
        .with(Gpr::Rbp, DATA + 0x100)
        .with_memory_at(DATA + 0xF8, &0x77u64.to_le_bytes());
    t.steps(1); // enter 0x20, 2
    assert_eq!(t.reg(Gpr::Rbp), STACK - 8);
    assert_eq!(t.reg(Gpr::Rsp), STACK - 24 - 0x20);
    assert_eq!(t.memory(STACK - 8), DATA + 0x100);
    assert_eq!(t.memory(STACK - 16), 0x77);
    assert_eq!(t.memory(STACK - 24), STACK - 8);
}

#[test]
fn pusha_and_popa_round_trip_in_16_bit_code() {
    let mut t = TestCpu::code16(&[0x60, 0x31, 0xC0, 0x61]).with(Gpr::Rax, 0xAAAA_1234);
    t.steps(1);
    assert_eq!(t.reg(Gpr::Rsp), 0x6000 - 16);
    t.steps(2);
    assert_eq!((t.reg(Gpr::Rax), t.reg(Gpr::Rsp)), (0xAAAA_1234, 0x6000));
}

#[test]
fn real_mode_addresses_wrap_at_64_kib_or_fault() {
    let mut t = TestCpu::code16(&[0x8B, 0x07]).with(Gpr::Rbx, 0xFFFF); // mov ax, [bx]
    assert_eq!(t.step().unwrap_err().vector, vector::GP);
    assert_eq!(t.cpu.state.rip, CODE16);
}

#[test]
fn bit_offsets_reach_beyond_the_operand() {
    let mut t = TestCpu::code64(&[0x0F, 0xAB, 0x03])
        .with(Gpr::Rbx, DATA + 64)
        .with(Gpr::Rax, -33i32 as u32 as u64);
    t.steps(1); // bts [rbx], eax
    assert_eq!(t.memory(DATA + 56), 1 << 31);
    assert!(!t.cpu.flag(flags::CF));
}

#[test]
fn cmpxchg16b_checks_alignment_and_exchanges() {
    let code = [0xF0, 0x48, 0x0F, 0xC7, 0x0E];
    let mut t = TestCpu::code64(&code).with(Gpr::Rsi, DATA + 8);
    assert_eq!(t.step().unwrap_err().vector, vector::GP);
    let mut t = TestCpu::code64(&code).with(Gpr::Rsi, DATA).with(Gpr::Rbx, 1).with(Gpr::Rcx, 2);
    t = t.with(Gpr::Rdx, 0);
    t.steps(1);
    assert!(t.cpu.flag(flags::ZF));
    assert_eq!((t.memory(DATA), t.memory(DATA + 8)), (1, 2));
}

#[test]
fn shifts_by_zero_keep_flags_and_zero_extend() {
    let mut t = TestCpu::code64(&[0xD3, 0xE0])
        .with(Gpr::Rax, u64::MAX)
        .with(Gpr::Rcx, 32)
        .with_flags(flags::CF | flags::ZF);
    t.steps(1); // shl eax, cl
    assert_eq!(t.reg(Gpr::Rax), 0xFFFF_FFFF);
    assert_eq!(arithmetic(&t), flags::CF | flags::ZF);
}

#[test]
fn rotates_through_carry_have_one_bit_more() {
    let mut t = TestCpu::code64(&[0xC0, 0xD0, 0x09]).with(Gpr::Rax, 0x5A).with_flags(flags::CF);
    t.steps(1); // rcl al, 9
    assert_eq!(t.reg(Gpr::Rax), 0x5A);
    assert!(t.cpu.flag(flags::CF));
}

#[test]
fn decimal_adjustments_carry() {
    let mut t = TestCpu::code32(&[0x27, 0x37]).with(Gpr::Rax, 0x9A);
    t.steps(1); // daa
    assert_eq!(t.reg(Gpr::Rax), 0);
    assert!(t.cpu.flag(flags::CF) && t.cpu.flag(flags::AF) && t.cpu.flag(flags::ZF));
    t.steps(1); // aaa: AF is set
    assert_eq!(t.reg(Gpr::Rax), 0x106);
}

#[test]
fn crc32_of_the_check_string() {
    // crc32 eax, byte [rbx]; inc rbx; loop
    let mut t = TestCpu::code64(&[0xF2, 0x0F, 0x38, 0xF0, 0x03, 0x48, 0xFF, 0xC3, 0xE2, 0xF6])
        .with(Gpr::Rax, 0xFFFF_FFFF)
        .with(Gpr::Rbx, DATA)
        .with(Gpr::Rcx, 9)
        .with_memory_at(DATA, b"123456789");
    t.steps(27);
    assert_eq!(t.reg(Gpr::Rax) ^ 0xFFFF_FFFF, 0xE306_9283);
}

#[test]
fn bound_outside_raises_br() {
    let mut t = TestCpu::code32(&[0x62, 0x03])
        .with(Gpr::Rbx, DATA)
        .with(Gpr::Rax, -6i32 as u32 as u64)
        .with_memory_at(DATA, &[0xFB, 0xFF, 0xFF, 0xFF, 5, 0, 0, 0]);
    assert_eq!(t.step().unwrap_err().vector, vector::BR);
}

#[test]
fn rdrand_takes_the_home_s_entropy() {
    let mut t = TestCpu::code64(&[0x48, 0x0F, 0xC7, 0xF0]).with_flags(flags::ZF);
    t.steps(1);
    assert_eq!(t.reg(Gpr::Rax), 0x5A5A_5A5A_5A5A_5A5A);
    assert_eq!(arithmetic(&t), flags::CF);
}
