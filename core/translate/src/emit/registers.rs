//! Moves from and to registers that are not general ones: selectors, bases, control registers, the
//! time-stamp counter.

use kasane_cpu::Seg;

use super::names::{host_of, is_homed, number};
use super::{Emitter, NotEncodable};
use crate::asm::{Asm, Condition, Mem, reg};
use crate::guest::{Guest, System};
use crate::layout::at;

const RCX: u8 = 1;
const RDX: u8 = 2;

impl Emitter<'_> {
    pub(super) fn system_register(
        &mut self,
        index: usize,
        guest: &Guest,
        system: System,
    ) -> Result<(), NotEncodable> {
        match system {
            System::ReadSelector(segment) => {
                let selector = Mem::state(at::selector(segment));
                self.load_register(guest, |asm, to| {
                    asm.op_mem(false, &[0x0F, 0xB7], to, selector); // movzx
                });
            }
            System::ReadSelector16(segment) => {
                let selector = Mem::state(at::selector(segment));
                let to = number(guest.instruction.op0_register());
                self.asm.op_mem(false, &[0x0F, 0xB7], reg::R9, selector); // movzx
                if is_homed(to) {
                    self.asm.store_sized(2, Mem::state(at::homed(to)), reg::R9);
                } else {
                    self.asm.mov_sized(2, host_of(to), reg::R9);
                }
            }
            System::StoreSelector(segment) => {
                self.give_up_flags(self.live(index));
                let reach = self.operand(guest, 1)?;
                let selector = Mem::state(at::selector(segment));
                self.asm.op_mem(false, &[0x0F, 0xB7], reg::R11, selector); // movzx
                self.asm.store_sized(2, reach.mem(), reg::R11);
            }
            System::ReadControl(number) => {
                let register = Mem::state(at::control(number));
                self.load_register(guest, |asm, to| asm.load(to, register));
            }
            System::ReadBase(gs) => {
                let base = Mem::state(at::segment_base(if gs { Seg::Gs } else { Seg::Fs }));
                self.load_register(guest, |asm, to| asm.load(to, base));
            }
            System::WriteBase(gs) => {
                self.give_up_flags(self.live(index)); // it may fault
                self.write_base(guest, if gs { Seg::Gs } else { Seg::Fs });
            }
            System::ReadTime(with_processor) => {
                self.give_up_flags(self.live(index)); // the interpreter may have to do it
                self.read_time(guest, with_processor);
            }
            _ => return Err(NotEncodable),
        }
        Ok(())
    }

    /// Loads the register that is the first operand.
    fn load_register(&mut self, guest: &Guest, load: impl FnOnce(&mut Asm, u8)) {
        let to = number(guest.instruction.op0_register());
        if is_homed(to) {
            load(&mut self.asm, reg::R9);
            self.asm.store(Mem::state(at::homed(to)), reg::R9);
        } else {
            load(&mut self.asm, host_of(to));
        }
    }
    /// The guest's TSC in EDX:EAX, for RDTSCP after everything before it, and with ECX.
    fn read_time(&mut self, guest: &Guest, with_processor: bool) {
        self.asm.load(reg::R9, Mem::state(at::TSC_MULTIPLIER));
        self.asm.op_reg(true, &[0x85], reg::R9, reg::R9); // test
        let unknown = self.asm.jcc(Condition::Equal);
        self.interpret_later(unknown, guest);
        if with_processor {
            self.asm.bytes(&[0x0F, 0xAE, 0xE8]); // lfence
            self.asm.op_mem(false, &[0x8B], RCX, Mem::state(at::TSC_AUX));
        }
        self.asm.bytes(&[0x0F, 0x31]); // rdtsc
        self.asm.bytes(&[0x48, 0xC1, 0xE2, 32]); // shl rdx, 32
        self.asm.bytes(&[0x48, 0x09, 0xD0]); // or rax, rdx
        self.asm.bytes(&[0x49, 0xF7, 0xE1]); // mul r9
        self.asm.op_mem(true, &[0x03], RDX, Mem::state(at::TSC_OFFSET)); // add
        self.asm.bytes(&[0x89, 0xD0]); // mov eax, edx
        self.asm.bytes(&[0x48, 0xC1, 0xEA, 32]); // shr rdx, 32
    }
    /// Only of canonical addresses; others fault.
    fn write_base(&mut self, guest: &Guest, seg: Seg) {
        let from = number(guest.instruction.op0_register());
        if is_homed(from) {
            self.asm.load(reg::R9, Mem::state(at::homed(from)));
        } else {
            self.asm.mov(reg::R9, host_of(from));
        }
        self.asm.mov(reg::R10, reg::R9);
        self.asm.bytes(&[0x49, 0xC1, 0xE2, 16]); // shl r10, 16
        self.asm.bytes(&[0x49, 0xC1, 0xFA, 16]); // sar r10, 16
        self.asm.op_reg(true, &[0x39], reg::R9, reg::R10); // cmp
        let faults = self.asm.jcc(Condition::NotEqual);
        self.interpret_later(faults, guest);
        self.asm.store(Mem::state(at::segment_base(seg)), reg::R9);
    }
}
