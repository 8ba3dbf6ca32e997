//! The way into translated code and out of it.

use crate::asm::{Asm, Condition, Jump, Mem, reg};
use crate::checks::{CHECKED_SIZES, Reached, check};
use crate::layout::{CLASSES, at};
use crate::sites::ACCESS_SITE;
use core::mem::offset_of;
use kasane_cpu::VectorState;

/// Offset of MXCSR in the FXSAVE image, which is the head of `VectorState`.
const MXCSR: i32 = 24;
/// Callee-saved registers of the System V convention, in the order in which they are pushed.
const SAVED: [u8; 6] = [3, 5, 12, 13, 14, 15];

/// Offsets of the stubs in the arena.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stubs {
    /// Called with what RSP is in translated code in RDI; goes to `Hot::entry`.
    pub(crate) enter: u32,
    /// Leaves with the guest's arithmetic flags in the host's. It is called from where a site stands
    /// behind the CALL.
    pub(crate) exit_host_flags: u32,
    /// Leaves with `Hot::flags` as they are. Called likewise.
    pub(crate) exit: u32,
    /// Leaves after a host exception.
    pub(crate) recovery: u32,
    /// See `Stubs::check`.
    checks: [[[u32; CHECKED_SIZES.len()]; 2]; CLASSES],
    /// Where empty slots lead, with the slot's number in R9. The site is 0 then.
    pub(crate) slot_missed: u32,
}

impl Stubs {
    /// A stub that checks an access to the address in R9, as code does it in line (`emit::memory`):
    /// for a class, by the tags for writes or not, by the size's number. It is called from where an
    /// access's site stands behind the CALL, and leaves by that, or comes back behind the site with
    /// the offset in the page in R9, and its addend in R10.
    pub(crate) fn check(&self, class: usize, write: bool, size: usize) -> u32 {
        let sizes = self.checks.get(class).and_then(|class| class.get(usize::from(write)));
        sizes.and_then(|sizes| sizes.get(size)).copied().unwrap_or(self.exit)
    }
    /// What the stub at an offset checks: class, by the tags for writes, bytes.
    pub(crate) fn checks_by(&self, stub: u64) -> Option<(usize, bool, u32)> {
        let mut all = (0..CLASSES).flat_map(|class| {
            [false, true].into_iter().flat_map(move |write| {
                CHECKED_SIZES.iter().enumerate().map(move |(n, size)| (class, write, n, *size))
            })
        });
        all.find(|(class, write, n, _)| u64::from(self.check(*class, *write, *n)) == stub)
            .map(|(class, write, _, size)| (class, write, size))
    }
}

/// All stubs, to be written at offset 0.
pub(crate) fn emit() -> (Asm, Stubs) {
    let mut asm = Asm::default();
    let mut stubs = Stubs { enter: asm.here() as u32, ..Stubs::default() };
    enter(&mut asm);
    stubs.slot_missed = asm.here() as u32;
    asm.mov_state64(at::SITE, 0);
    stubs.recovery = asm.here() as u32;
    asm.store(Mem::state(at::reg(reg::RAX)), reg::RAX);
    capture_flags(&mut asm, at::FAULT_FLAGS);
    let from_recovery = asm.jmp();
    stubs.exit_host_flags = asm.here() as u32;
    called(&mut asm);
    capture_flags(&mut asm, at::FLAGS);
    let from_host_flags = asm.jmp();
    stubs.exit = asm.here() as u32;
    called(&mut asm);
    asm.bind(from_recovery);
    asm.bind(from_host_flags);
    leave(&mut asm);
    for (class, by_way) in stubs.checks.iter_mut().enumerate() {
        for (write, by_size) in by_way.iter_mut().enumerate() {
            for (size, place) in CHECKED_SIZES.iter().zip(by_size) {
                *place = asm.here() as u32;
                called_check(&mut asm, stubs.exit, (class, write != 0, *size));
            }
        }
    }
    (asm, stubs)
}

/// See [`Stubs::check`].
fn called_check(asm: &mut Asm, exit: u32, what: (usize, bool, u32)) {
    const RETURN_ADDRESS: i32 = 8;
    let refused = check(asm, what, Reached::ByAddend, RETURN_ADDRESS);
    asm.bind_to(refused, exit.into());
    asm.op_mem(true, &[0x83], 0, Mem::base(reg::RSP, 0)); // add qword, imm8
    asm.bytes(&[ACCESS_SITE as u8]);
    asm.bytes(&[0xC3]);
}

/// The jump is taken while the guest's vector registers are not in the host's.
fn without_vectors(asm: &mut Asm) -> Jump {
    asm.op_mem(false, &[0x83], 7, Mem::state(at::VECTORS)); // cmp dword, imm8
    asm.bytes(&[0]);
    asm.jcc(Condition::Equal)
}

/// Takes the return address, and stores RAX. A processor predicts where RET goes by the CALLs it
/// has seen. So that it is not wrong about all the RETs of the engine, there is one for this CALL.
fn called(asm: &mut Asm) {
    asm.pop_mem(Mem::state(at::SITE));
    asm.store(Mem::state(at::reg(reg::RAX)), reg::RAX);
    asm.bytes(&[0x48, 0x8D, 0x05, 2, 0, 0, 0]); // lea rax, [rip + 2]
    push_pop(asm, 0x50, reg::RAX);
    asm.bytes(&[0xC3]); // ret: to the next instruction
}

/// Stores the arithmetic flags by way of RAX.
pub(crate) fn capture_flags(asm: &mut Asm, offset: usize) {
    asm.bytes(&[0x9F]); // lahf
    asm.bytes(&[0x0F, 0x90, 0xC0]); // seto al
    asm.bytes(&[0x66]);
    asm.op_mem(false, &[0x89], reg::RAX, Mem::state(offset)); // mov [..], ax
}

fn enter(asm: &mut Asm) {
    for register in SAVED {
        push_pop(asm, 0x50, register);
    }
    let block = 7; // RDI
    asm.store(Mem::state_by(block, at::HOST_RSP), reg::RSP);
    asm.mov(reg::RSP, block);
    let none = without_vectors(asm);
    asm.op_mem(false, &[0x0F, 0xAE], 3, Mem::state(at::HOST_MXCSR)); // stmxcsr
    asm.load(reg::RAX, Mem::state(at::VECTOR));
    (0..16).for_each(|n| vector(asm, 0x28, n));
    asm.op_mem(false, &[0x0F, 0xAE], 2, Mem::base(reg::RAX, MXCSR)); // ldmxcsr
    asm.bind(none);
    for register in (0..16).rev().filter(|register| *register != reg::RSP) {
        asm.load(register, Mem::state(at::reg(register)));
    }
    asm.jmp_mem(Mem::state(at::ENTRY));
}

/// From where RAX has been stored.
fn leave(asm: &mut Asm) {
    for register in (1..16).filter(|register| *register != reg::RSP) {
        asm.store(Mem::state(at::reg(register)), register);
    }
    let none = without_vectors(asm);
    asm.load(reg::RAX, Mem::state(at::VECTOR));
    (0..16).for_each(|n| vector(asm, 0x29, n));
    asm.op_mem(false, &[0x0F, 0xAE], 3, Mem::base(reg::RAX, MXCSR)); // stmxcsr
    asm.op_mem(false, &[0x0F, 0xAE], 2, Mem::state(at::HOST_MXCSR)); // ldmxcsr
    asm.bytes(&[0xC5, 0xF8, 0x77]); // vzeroupper
    asm.bind(none);
    asm.load(reg::RSP, Mem::state(at::HOST_RSP));
    for register in SAVED.into_iter().rev() {
        push_pop(asm, 0x58, register);
    }
    asm.bytes(&[0xC3]);
}

fn push_pop(asm: &mut Asm, opcode: u8, register: u8) {
    if register >= 8 {
        asm.bytes(&[0x41]);
    }
    asm.bytes(&[opcode | register & 7]);
}

/// VMOVAPS between YMMn and its place in the `VectorState` that RAX points to: 28h loads, 29h
/// stores (SDM vol. 2A §2.3.5 for the VEX prefix).
fn vector(asm: &mut Asm, opcode: u8, n: u8) {
    let extended = if n < 8 { 0x80 } else { 0 };
    asm.bytes(&[0xC4, extended | 0x61, 0x7C, opcode, 0x80 | (n & 7) << 3]);
    let offset = offset_of!(VectorState, ymm) as i32 + 32 * i32::from(n);
    asm.bytes(&offset.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Code, Decoder, DecoderOptions};

    #[test]
    fn every_instruction_decodes_and_all_vectors_are_loaded_and_stored() {
        let (asm, _) = emit();
        let mut decoder = Decoder::with_ip(64, &asm.code, 0, DecoderOptions::NONE);
        let (mut loads, mut stores) = (0u32, 0u32);
        while decoder.can_decode() {
            let instruction = decoder.decode();
            assert!(!instruction.is_invalid());
            let number = |register: iced_x86::Register| register.number() as u32;
            match instruction.code() {
                Code::VEX_Vmovaps_ymm_ymmm256 => loads |= 1 << number(instruction.op0_register()),
                Code::VEX_Vmovaps_ymmm256_ymm => stores |= 1 << number(instruction.op1_register()),
                _ => {}
            }
        }
        assert_eq!((loads, stores), (0xFFFF, 0xFFFF));
    }
}
