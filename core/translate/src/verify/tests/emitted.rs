//! What the emitter makes of all kinds of instructions passes.

use alloc::vec::Vec;

use iced_x86::code_asm::*;

use super::{KERNEL, KERNEL_AC, Made, REAL16, SEGMENTED32, USER, USER32};

type Write = fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>;

const CASES: &[(&str, u16, Write)] = &[
    ("loads and stores", USER, |a| {
        a.mov(rax, qword_ptr(rbx + 8))?;
        a.add(dword_ptr(rbp - 4), ecx)?;
        a.xchg(byte_ptr(rdi), ah)?;
        a.cmpxchg16b(xmmword_ptr(rsi))?;
        a.mov(qword_ptr(r9 + r10 * 4 + 0x100), r11)
    }),
    ("vectors", USER, |a| {
        a.movups(xmm0, xmmword_ptr(rsp + 16))?;
        a.vaddps(ymm1, ymm2, ymmword_ptr(rax))?;
        a.movsd_2(qword_ptr(rcx), xmm3)?;
        a.ldmxcsr(dword_ptr(rax))
    }),
    ("addresses that are known", USER, |a| {
        a.mov(rax, qword_ptr(0x40_2000))?;
        a.lock().inc(dword_ptr(0x40_3004))
    }),
    ("the stack", USER, |a| {
        a.push(rbp)?;
        a.push(r9)?;
        a.push(0x1234)?;
        a.pop(r10)?;
        a.pop(rbp)?;
        a.push(qword_ptr(rax))?;
        a.pushfq()?;
        a.leave()?;
        a.ret_1(16)
    }),
    ("a run of pops and a return", USER, |a| {
        a.pop(rbx)?;
        a.pop(r12)?;
        a.pop(r15)?;
        a.ret()
    }),
    ("a call within the page", USER, |a| a.call(0x40_0200)),
    ("a call to another page", USER, |a| a.call(0x50_0200)),
    ("an indirect call", USER, |a| a.call(qword_ptr(rax + rcx * 8))),
    ("an indirect jump", USER, |a| a.jmp(r9)),
    ("a loop", USER, |a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.add(rax, qword_ptr(rsi))?;
        a.dec(rcx)?;
        a.jne(again)
    }),
    ("bit strings", USER, |a| {
        a.bts(qword_ptr(rdi), rax)?;
        a.bt(dword_ptr(rdi + 4), r11d)
    }),
    ("string instructions", USER, |a| {
        a.lodsb()?;
        a.stosq()?;
        a.movsd()?;
        a.scasw()?;
        a.cmpsq()
    }),
    ("repeated string instructions", USER, |a| {
        a.rep().stosb()?;
        a.rep().movsq()?;
        a.rep().movsb()?;
        a.rep().stosd()
    }),
    ("guest code that computes what a check does", USER, |a| {
        a.and(edx, 7)?;
        a.mov(rcx, rdx)?;
        a.rep().movsb()?;
        a.shl(eax, 4)?;
        a.mov(rbx, qword_ptr(rax))?;
        a.rorx(eax, ebx, 12)?;
        a.and(eax, 4095)?;
        a.mov(dword_ptr(rax + 4), ecx)?;
        a.push(rax)
    }),
    ("time and segments", USER, |a| {
        a.rdtsc()?;
        a.rdtscp()?;
        a.mov(eax, ds)?;
        a.mov(word_ptr(rbx), es)?;
        a.rdfsbase(rax)?;
        a.wrgsbase(r11)?;
        a.mov(rax, qword_ptr(rcx).fs())
    }),
    ("a system call", USER, |a| a.syscall()),
    ("kernel code", KERNEL, |a| {
        a.cli()?;
        a.swapgs()?;
        a.mov(rax, cr2)?;
        a.pushfq()?;
        a.popfq()?;
        a.sti()?;
        a.cld()?;
        a.std()
    }),
    ("a return from a system call", KERNEL, |a| a.sysretq()),
    ("STAC", KERNEL, |a| a.stac()),
    ("STAC again", KERNEL_AC, |a| a.stac()),
    ("CLAC", KERNEL_AC, |a| a.clac()),
];

#[test]
fn emitted_64_bit_code_passes() {
    for (name, mode, write) in CASES {
        let made = Made::of(*mode, |assembler| write(assembler).unwrap());
        assert_eq!(made.verify(), Ok(()), "{name}");
    }
}

#[test]
fn emitted_32_bit_and_16_bit_code_passes() {
    let code: &[&[u8]] = &[
        &[0x8B, 0x43, 0x08],             // mov eax, [ebx + 8]
        &[0x8B, 0x04, 0x8D, 4, 0, 0, 0], // mov eax, [ecx*4 + 4]
        &[0x26, 0x89, 0x07],             // mov es:[edi], eax
        &[0x65, 0xFE, 0x07],             // inc byte gs:[edi]
        &[0x53, 0x5B, 0x9C, 0xC9],       // push, pop, pushf, leave
        &[0xAB, 0xA4, 0xAE],             // stos, movs, scas
        &[0xF3, 0xAB],                   // rep stos
        &[0xF3, 0x66, 0xA5],             // rep movs
        &[0x0F, 0xAB, 0x03],             // bts [ebx], eax
        &[0xE8, 0x10, 0, 0, 0],          // call
        &[0xFF, 0xD0],                   // call eax
        &[0xFF, 0x20],                   // jmp [eax]
        &[0xC2, 4, 0],                   // ret 4
        &[0x75, 0x10, 0x74, 0x80],       // jne, je
    ];
    let modes = [USER32, SEGMENTED32, REAL16];
    let cases: Vec<_> = modes.iter().flat_map(|mode| code.iter().map(|c| (*mode, *c))).collect();
    for (mode, bytes) in cases {
        assert_eq!(Made::of_bytes(mode, bytes).verify(), Ok(()), "{mode:#x}: {bytes:02x?}");
    }
}
