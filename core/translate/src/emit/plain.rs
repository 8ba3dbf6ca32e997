//! Instructions that run as they are, and the few that move data in a form of their own.

use iced_x86::{Instruction, OpKind, Register};

use super::flags::Flags;
use super::memory::Reach;
use super::names::{Homed, host_of, is_homed, number, rename_memory, rename_registers};
use super::{Emitter, FaultPoint, NotEncodable};
use crate::asm::{Mem, reg};
use crate::guest::Guest;
use crate::layout::at;

impl Emitter<'_> {
    pub(super) fn lea(&mut self, guest: &Guest) -> Result<(), NotEncodable> {
        let instruction = &guest.instruction;
        let target = instruction.op0_register();
        let wide = target.is_gpr64();
        if instruction.memory_base() != Register::RIP
            && !(instruction.memory_base().is_gpr64() || instruction.memory_index().is_gpr64())
        {
            return Err(NotEncodable); // 32-bit addresses are rare
        }
        let to = number(target);
        let host = if is_homed(to) { reg::R9 } else { host_of(to) };
        self.address(instruction, host, wide)?;
        if is_homed(to) {
            self.asm.store(Mem::state(at::homed(to)), reg::R9);
        }
        Ok(())
    }

    pub(super) fn push(&mut self, index: usize, guest: &Guest) -> Result<(), NotEncodable> {
        self.give_up_flags(self.live(index));
        let instruction = &guest.instruction;
        let mut value = reg::R11;
        match instruction.op0_kind() {
            OpKind::Memory => {
                let reach = self.operand(guest, 0)?;
                self.asm.load(reg::R11, reach.mem());
            }
            OpKind::Register => {
                let pushed = number(instruction.op0_register());
                if is_homed(pushed) {
                    self.asm.load(reg::R11, Mem::state(at::homed(pushed)));
                } else {
                    value = host_of(pushed);
                }
            }
            _ => self.asm.mov_imm(reg::R11, instruction.immediate(0)),
        }
        let reach = self.based(reg::R15, -8, 8, true);
        self.asm.store(reach.mem(), value);
        self.asm.lea(true, reg::R15, Mem::base(reg::R15, -8));
        Ok(())
    }

    pub(super) fn pop(&mut self, index: usize, guest: &Guest) {
        self.give_up_flags(self.live(index));
        let to = number(guest.instruction.op0_register());
        let host = if is_homed(to) { reg::R11 } else { host_of(to) };
        let reach = self.based(reg::R15, 0, 8, false);
        self.asm.load(host, reach.mem());
        self.asm.lea(true, reg::R15, Mem::base(reg::R15, 8));
        if is_homed(to) {
            self.asm.store(Mem::state(at::homed(to)), reg::R11);
        }
    }

    pub(super) fn leave_frame(&mut self, index: usize) {
        self.give_up_flags(self.live(index));
        let rbp = 5;
        let reach = self.based(rbp, 0, 8, false);
        self.asm.load(reg::R11, reach.mem());
        self.asm.lea(true, reg::R15, Mem::base(rbp, 8));
        self.asm.mov(rbp, reg::R11);
    }

    /// BT and its like with a bit offset that reaches beyond the operand: the address is that of
    /// the word that holds the bit (SDM vol. 2A §3.1.1.9).
    pub(super) fn bit_string(&mut self, index: usize, guest: &Guest) -> Result<(), NotEncodable> {
        self.give_up_flags(self.live(index));
        let instruction = &guest.instruction;
        let Some(access) = guest.access else { return Err(NotEncodable) };
        let offset = instruction.op1_register();
        let wide = access.size == 8;
        self.address(instruction, reg::R9, true)?;
        self.add_segment_of(instruction);
        let source = number(offset);
        let host = if is_homed(source) { reg::R11 } else { host_of(source) };
        if is_homed(source) {
            self.asm.load(reg::R11, Mem::state(at::homed(source)));
        }
        if wide {
            self.asm.mov(reg::R10, host);
        } else {
            self.asm.op_reg(true, &[0x63], reg::R10, host); // movsxd
        }
        let (bits, size) = if wide { (6, 3) } else { (5, 2) };
        self.asm.bytes(&[0x49, 0xC1, 0xFA, bits]); // sar r10, bits
        let word = Mem { base: Some(reg::R9), index: Some((reg::R10, size)), disp: 0 };
        self.asm.lea(true, reg::R9, word);
        self.check(access.size, access.write);
        self.add_host();
        // The bit's number within the word.
        if is_homed(source) {
            self.asm.load(reg::R10, Mem::state(at::homed(source)));
        } else {
            self.asm.op_reg(false, &[0x89], host, reg::R10);
        }
        self.asm.op_reg(false, &[0x83], 4, reg::R10); // and r10d, imm8
        self.asm.bytes(&[(1 << bits) - 1]);
        let kept = self.live(index.wrapping_add(1)) & !guest.flags_written;
        if kept != 0 {
            self.need_host_flags();
        }
        let mut renamed = *instruction;
        rename_memory(&mut renamed, Reach::Host);
        let number = if wide { Register::R10 } else { Register::R10D };
        renamed.set_op_register(1, number);
        self.encoded(&renamed, guest)?;
        self.flags = Flags { host: true, saved: false };
        Ok(())
    }

    /// The guest's own instruction with its operands renamed.
    pub(super) fn plain(&mut self, index: usize, guest: &Guest) -> Result<(), NotEncodable> {
        let mut homed = Homed::of(guest);
        let mut renamed = guest.instruction;
        let mut free: &[u8] = &[reg::R11, reg::R10, reg::R9];
        if guest.access.is_some() {
            self.give_up_flags(self.live(index));
            let reach = self.operand(guest, homed.count)?;
            free = reach.free();
            rename_memory(&mut renamed, reach);
        }
        let kept = self.live(index.wrapping_add(1)) & !guest.flags_written;
        if guest.flags_read != 0 || guest.changes_flags && kept != 0 {
            self.need_host_flags(); // by way of R11, which nobody uses yet
        }
        homed.assign(free)?;
        for (guest_register, scratch) in homed.places() {
            self.asm.load(scratch, Mem::state(at::homed(guest_register)));
        }
        rename_registers(&mut renamed, &homed);
        self.encoded(&renamed, guest)?;
        for (guest_register, scratch) in homed.places() {
            if homed.is_written(guest_register) {
                self.asm.store(Mem::state(at::homed(guest_register)), scratch);
            }
        }
        if guest.changes_flags {
            self.flags = Flags { host: true, saved: false };
        }
        Ok(())
    }

    fn encoded(&mut self, renamed: &Instruction, guest: &Guest) -> Result<(), NotEncodable> {
        let at_code = self.here();
        let done = self.encoder.encode(renamed, 0);
        let encoded = self.encoder.take_buffer(); // also what an error left in it
        done.map_err(|_| NotEncodable)?;
        self.asm.bytes(&encoded);
        if guest.may_fault {
            let host_flags = self.flags.host;
            self.fault_points.push(FaultPoint { code: at_code, rip: self.rip, host_flags });
        }
        Ok(())
    }
}
