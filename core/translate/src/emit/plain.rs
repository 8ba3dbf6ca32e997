//! Instructions that run as they are, and LEA.

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

use super::flags::Flags;
use super::memory::{Reach, address_size};
use super::names::{Homed, Unusual, host_of, is_homed, number, rename_memory, rename_registers};
use super::own::{has_plain_prefixes, with_memory};
use super::{Emitter, FaultPoint, NotEncodable};
use crate::asm::{Mem, reg};
use crate::guest::Guest;
use crate::layout::at;

impl Emitter<'_> {
    pub(super) fn lea(&mut self, guest: &Guest) -> Result<(), NotEncodable> {
        let instruction = &guest.instruction;
        let target = instruction.op0_register();
        let bytes = target.size() as u32;
        let to = number(target);
        if bytes == 2 || is_homed(to) {
            self.overwrites(reg::R9);
        }
        if bytes == 2 {
            self.address(instruction, reg::R9, bytes)?;
            if is_homed(to) {
                self.asm.store_sized(bytes, Mem::state(at::homed(to)), reg::R9);
            } else {
                self.asm.mov_sized(bytes, host_of(to), reg::R9);
            }
            return Ok(());
        }
        let host = if is_homed(to) { reg::R9 } else { host_of(to) };
        self.address(instruction, host, bytes)?;
        if is_homed(to) {
            self.asm.store(Mem::state(at::homed(to)), reg::R9);
        }
        Ok(())
    }

    /// BT and its like with a bit offset that reaches beyond the operand: the address is that of
    /// the word that holds the bit (SDM vol. 2A §3.1.1.9).
    pub(super) fn bit_string(&mut self, index: usize, guest: &Guest) -> Result<(), NotEncodable> {
        self.give_up_flags(self.live(index));
        let instruction = &guest.instruction;
        let Some(access) = guest.access else { return Err(NotEncodable) };
        let offset = instruction.op1_register();
        let wide = access.size == 8;
        let bytes = address_size(instruction);
        if bytes == 2 {
            return Err(NotEncodable); // rare
        }
        self.held = None;
        self.address(instruction, reg::R9, 8)?;
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
        let word = Mem::new(Some(reg::R9), Some((reg::R10, size)), 0);
        self.asm.lea(bytes == 8, reg::R9, word);
        self.reach_host(instruction.memory_segment(), access.size, access.write);
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
        let unusual = Unusual::of(self.registers, &guest.instruction);
        let mut homed = if unusual.has_homed() { Homed::of(guest) } else { Homed::default() };
        let mut free: &[u8] = &[reg::R11, reg::R10, reg::R9];
        let mut reached = None;
        let high = unusual.has_high_byte() && guest.access.is_some();
        let high = if high { high_byte(&guest.instruction) } else { None };
        if guest.access.is_some() {
            // Not by its base, which may be the register whose bytes are exchanged.
            let kept = homed.count.wrapping_add(if high.is_some() { 2 } else { 0 });
            let reach = match self.held_reach(guest, kept) {
                Some(reach) => reach,
                None => {
                    self.give_up_flags(self.live(index));
                    self.operand(guest, kept)?
                }
            };
            free = reach.free();
            reached = Some(reach);
        }
        let kept = self.live(index.wrapping_add(1)) & !guest.flags_written;
        if guest.flags_read != 0 || guest.changes_flags && kept != 0 {
            self.need_host_flags(); // by way of R11, which nobody uses yet
        }
        let own = unusual.is_nothing() || unusual.is_high_byte() && reached.is_none();
        if own && self.of_own_bytes(guest, reached) {
            return Ok(());
        }
        let mut renamed = guest.instruction;
        if let Some(reach) = reached {
            rename_memory(&mut renamed, reach);
        }
        homed.assign(free)?;
        for (guest_register, scratch) in homed.places() {
            self.overwrites(scratch);
            self.asm.load(scratch, Mem::state(at::homed(guest_register)));
        }
        rename_registers(&mut renamed, &homed);
        for_64_bits(&mut renamed);
        if let Some((n, high)) = high {
            self.exchange_bytes(high);
            renamed.set_op_register(n, Register::AL + u32::from(high));
        }
        self.encoded(&renamed, guest)?;
        if let Some((_, high)) = high {
            self.exchange_bytes(high);
        }
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

    /// Makes an instruction of 64-bit code that needs no other registers of its own bytes; false
    /// if that can't be done.
    fn of_own_bytes(&mut self, guest: &Guest, reached: Option<Reach>) -> bool {
        if self.source.mode.bits() != 64 {
            return false;
        }
        let len = guest.instruction.len();
        let first = self.source.guests.first().map_or(0, |guest| guest.instruction.ip());
        let begin = self.rip.wrapping_sub(first) as usize;
        let code = self.source.bytes.get(begin..).and_then(|rest| rest.first_chunk::<16>());
        let Some(code) = code else { return false };
        match reached {
            None if has_plain_prefixes(code) => {
                self.fault_point(guest);
                self.asm.sequence(code, len);
            }
            None => return false,
            Some(reach) => {
                let Some(made) = with_memory(code, len, reach.mem()) else { return false };
                self.fault_point(guest);
                made.emit(&mut self.asm);
            }
        }
        if guest.changes_flags {
            self.flags = Flags { host: true, saved: false };
        }
        true
    }
    fn fault_point(&mut self, guest: &Guest) {
        if guest.may_fault {
            let (code, host_flags) = (self.here(), self.flags.host);
            self.fault_points.push(FaultPoint { code, rip: self.rip, host_flags });
        }
    }
    fn encoded(&mut self, renamed: &Instruction, guest: &Guest) -> Result<(), NotEncodable> {
        // Also one without a memory operand can have a segment's prefix, which does nothing there.
        let mut renamed = *renamed;
        renamed.set_segment_prefix(Register::None);
        let done = self.encoder.encode(&renamed, 0);
        let mut encoded = self.encoder.take_buffer(); // also what an error left in it
        if done.is_ok() {
            self.fault_point(guest);
            self.asm.bytes(&encoded);
        }
        encoded.clear();
        self.encoder.set_buffer(encoded);
        done.map_err(|_| NotEncodable)?;
        Ok(())
    }

    /// `XCHG AL, AH` and its like, by the register's number. Leaves the flags alone.
    fn exchange_bytes(&mut self, register: u8) {
        self.asm.op_reg(false, &[0x86], register | 4, register & 3);
    }
}

/// The operand that is AH, CH, DH or BH, and the number of its register. No instruction with a REX
/// prefix has them, and an operand by its host address needs one: so the low byte stands for it,
/// exchanged with it before and after.
fn high_byte(instruction: &Instruction) -> Option<(u32, u8)> {
    if instruction.mnemonic() == Mnemonic::Cmpxchg {
        return None; // compares with AL
    }
    (0..instruction.op_count()).find_map(|n| {
        let register = instruction.op_register(n);
        let is_high = matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
        let found = instruction.op_kind(n) == OpKind::Register && is_high;
        found.then(|| (n, number(register) & 3))
    })
}

/// Gives an instruction a form that there is in 64-bit code, with operands of any kind.
fn for_64_bits(instruction: &mut Instruction) {
    let code = match instruction.code() {
        Code::Inc_r16 => Code::Inc_rm16,
        Code::Inc_r32 => Code::Inc_rm32,
        Code::Dec_r16 => Code::Dec_rm16,
        Code::Dec_r32 => Code::Dec_rm32,
        Code::Mov_AL_moffs8 => Code::Mov_r8_rm8,
        Code::Mov_AX_moffs16 => Code::Mov_r16_rm16,
        Code::Mov_EAX_moffs32 => Code::Mov_r32_rm32,
        Code::Mov_RAX_moffs64 => Code::Mov_r64_rm64,
        Code::Mov_moffs8_AL => Code::Mov_rm8_r8,
        Code::Mov_moffs16_AX => Code::Mov_rm16_r16,
        Code::Mov_moffs32_EAX => Code::Mov_rm32_r32,
        Code::Mov_moffs64_RAX => Code::Mov_rm64_r64,
        other => other,
    };
    instruction.set_code(code);
}
