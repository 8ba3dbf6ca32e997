//! The trampoline's machine code.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use crate::layout::{EXIT, PAGE, STATE, TRAMPOLINE};

/// Address of the entry into 32-bit code.
pub(super) const ENTRY32: u64 = TRAMPOLINE + 0x200;

// Offsets in the state page (`super::State`).
const INPUT: u64 = STATE;
const OUTPUT: u64 = STATE + 0x100;
const OWN: u64 = STATE + 0x200;
const RFLAGS: u64 = 0x80;
const RIP: u64 = 0x88;
const FS: u64 = 0x90;
const GS: u64 = 0x98;
const FAR: u64 = 0xA0;
const SELECTORS: u64 = 0xA8;
const OWN_RSP: u64 = OWN;
const OWN_FS: u64 = OWN + 0x08;
const OWN_GS: u64 = OWN + 0x10;
const OWN_VECTORS: u64 = OWN + 0x18;
const OWN_MXCSR: u64 = OWN + 0x48;
const INPUT_VECTORS: u64 = STATE + 0x400;
const OUTPUT_VECTORS: u64 = STATE + 0x800;

/// x87, SSE and AVX.
const COMPONENTS: u32 = 7;

const REGISTERS: [AsmRegister64; 16] =
    [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];

/// What the assembler gives.
pub(super) struct Parts {
    pub(super) code: Vec<u8>,
    /// Where signals go first.
    pub(super) signal_entry: u64,
    /// Where a signal handler returns to.
    pub(super) finish: u64,
}

/// Assembles everything. Entry first, the exit at [`EXIT`].
pub(super) fn assemble(handler: u64) -> Result<Parts, IcedError> {
    let mut code = entry(TRAMPOLINE)?;
    code.resize((ENTRY32 - TRAMPOLINE) as usize, 0xCC);
    code.extend(entry(ENTRY32)?);
    code.resize((EXIT - TRAMPOLINE) as usize, 0xCC);
    let exit = exit()?;
    let finish = EXIT + exit.len() as u64;
    code.extend(exit);
    code.extend(finishing(finish)?);
    let signal_entry = TRAMPOLINE + code.len() as u64;
    code.extend(on_signal(signal_entry, handler)?);
    debug_assert!(code.len() <= PAGE);
    Ok(Parts { code, signal_entry, finish })
}

/// Keeps our registers, loads the test's, jumps.
fn entry(at: u64) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let mut no_vectors = a.create_label();
    for register in [rbx, rbp, r12, r13, r14, r15] {
        a.push(register)?;
    }
    a.rdfsbase(rax)?;
    a.mov(qword_ptr(OWN_FS), rax)?;
    a.rdgsbase(rax)?;
    a.mov(qword_ptr(OWN_GS), rax)?;
    a.mov(qword_ptr(OWN_RSP), rsp)?;
    a.cmp(dword_ptr(OWN_VECTORS), 0)?;
    a.je(no_vectors)?;
    a.mov(eax, COMPONENTS)?;
    a.xor(edx, edx)?;
    a.xrstor64(ptr(INPUT_VECTORS))?;
    a.set_label(&mut no_vectors)?;
    if at == ENTRY32 {
        for (n, segment) in (0u64..).zip([ds, es, fs, gs]) {
            a.mov(segment, word_ptr(INPUT + SELECTORS + n * 2))?;
        }
    } else {
        a.mov(rax, qword_ptr(INPUT + FS))?;
        a.wrfsbase(rax)?;
        a.mov(rax, qword_ptr(INPUT + GS))?;
        a.wrgsbase(rax)?;
    }
    a.push(qword_ptr(INPUT + RFLAGS))?;
    a.popfq()?;
    for (n, register) in (0u64..).zip(REGISTERS) {
        a.mov(register, qword_ptr(INPUT + n * 8))?;
    }
    if at == ENTRY32 {
        a.jmp(fword_ptr(INPUT + FAR))?;
    } else {
        a.jmp(qword_ptr(INPUT + RIP))?;
    }
    a.assemble(at)
}

/// Stores the test's registers.
fn exit() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let mut no_vectors = a.create_label();
    for (n, register) in (0u64..).zip(REGISTERS) {
        a.mov(qword_ptr(OUTPUT + n * 8), register)?;
    }
    a.mov(rsp, qword_ptr(OWN_RSP))?;
    a.pushfq()?;
    a.pop(qword_ptr(OUTPUT + RFLAGS))?;
    a.push(0x202)?;
    a.popfq()?;
    a.rdfsbase(rax)?;
    a.mov(qword_ptr(OUTPUT + FS), rax)?;
    a.rdgsbase(rax)?;
    a.mov(qword_ptr(OUTPUT + GS), rax)?;
    a.cmp(dword_ptr(OWN_VECTORS), 0)?;
    a.je(no_vectors)?;
    a.mov(eax, COMPONENTS)?;
    a.xor(edx, edx)?;
    a.xsave64(ptr(OUTPUT_VECTORS))?;
    a.set_label(&mut no_vectors)?;
    // on to `finishing`
    a.nop()?;
    a.assemble(EXIT)
}

/// Takes our registers back and returns.
fn finishing(at: u64) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let mut no_vectors = a.create_label();
    a.mov(rsp, qword_ptr(OWN_RSP))?;
    // A signal's return leaves NT as the test had it.
    a.push(0x202)?;
    a.popfq()?;
    a.xor(eax, eax)?;
    a.mov(fs, eax)?;
    a.mov(gs, eax)?;
    a.mov(rax, qword_ptr(OWN_FS))?;
    a.wrfsbase(rax)?;
    a.mov(rax, qword_ptr(OWN_GS))?;
    a.wrgsbase(rax)?;
    a.cmp(dword_ptr(OWN_VECTORS), 0)?;
    a.je(no_vectors)?;
    a.vzeroupper()?;
    a.fninit()?;
    a.ldmxcsr(dword_ptr(OWN_MXCSR))?;
    a.set_label(&mut no_vectors)?;
    for register in [r15, r14, r13, r12, rbp, rbx] {
        a.pop(register)?;
    }
    a.ret()?;
    a.assemble(at)
}

/// The kernel keeps AC and the FS base of the test; the handler proper can bear neither.
fn on_signal(at: u64, handler: u64) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    a.pushfq()?;
    a.and(qword_ptr(rsp), !0x4_0000i32)?;
    a.popfq()?;
    a.rdfsbase(rax)?;
    a.mov(qword_ptr(OUTPUT + FS), rax)?;
    a.rdgsbase(rax)?;
    a.mov(qword_ptr(OUTPUT + GS), rax)?;
    a.mov(rax, qword_ptr(OWN_FS))?;
    a.wrfsbase(rax)?;
    a.mov(rax, handler)?;
    a.jmp(rax)?;
    a.assemble(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fits_its_page() {
        let parts = assemble(0x1122_3344_5566_7788).unwrap();
        assert!(parts.code.len() < PAGE);
        assert!(parts.finish > EXIT && parts.signal_entry > parts.finish);
    }
}
