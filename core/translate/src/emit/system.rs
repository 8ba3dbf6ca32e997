//! Sensitive instructions that kernels use all the time, done in place: PUSHF, POPF, CLI, STI,
//! SWAPGS, reads of segment registers, STAC, CLAC, SYSCALL and SYSRET. Everything about them that is not the common case leaves
//! to the interpreter before anything has changed.
//!
//! These are the chapter's critical instructions: in ring 3 a native PUSHF shows the host's flags
//! and a native POPF drops IF without a word, so that trapping alone does not virtualize them.
//!
//! # Interrupts
//! A POPF or STI that sets IF while an interrupt is known to wait ([`crate::layout::Hot::waiting`],
//! as it was when code was entered) is the interpreter's. One that arrives later is found by a
//! poll, as with IF set. A poll of the instruction behind STI lets the interpreter do that one
//! first, because no interrupt comes between the two (SDM vol. 2B, STI).
//!
//! # Rings and rights
//! SYSCALL, SYSRET, STAC and CLAC go on by the jump table of another privilege class. The engine
//! says whether what it holds can be entered from here (`Hot::syscall_ok`, `Hot::ac_ok`), and
//! follows when code is left (`Hot::crossed`).

use super::flags::Flags;
use super::{Emitter, NotEncodable, Site};
use crate::asm::{Condition, Jump, Mem, reg};
use crate::guest::{ALL_FLAGS, Guest, System};
use crate::layout::at;
use kasane_cpu::Seg;
use kasane_memory::TlbClass;
use kasane_spec_x86::flags;

const RCX: u8 = 1;
/// Flags that SYSRET takes from R11 (SDM vol. 2B, SYSRET).
const SYSRET_FLAGS: u32 = 0x003C_7FD7;
/// What PUSHF does not show (SDM vol. 2B, PUSHF).
const NOT_PUSHED: u64 = flags::ARITHMETIC | flags::RF | flags::VM;
/// What POPF changes here; anything else is the interpreter's.
const POPPED: u64 = flags::ARITHMETIC | flags::IF;

impl Emitter<'_> {
    /// True if the code goes on behind it.
    pub(super) fn system(
        &mut self,
        index: usize,
        guest: &Guest,
        system: System,
    ) -> Result<bool, NotEncodable> {
        let after = self.live(index.wrapping_add(1));
        match system {
            System::Cli => {
                self.give_up_flags(after);
                self.and_rflags(!flags::IF);
            }
            System::Sti => {
                if self.source.guests.len() <= index.wrapping_add(1) {
                    return Err(NotEncodable); // its shadow reaches into another block
                }
                self.give_up_flags(self.live(index));
                self.unless_waiting(guest);
                self.or_rflags(flags::IF);
            }
            System::Pushf => self.pushf(index),
            System::Popf => self.popf(index, guest),
            System::Swapgs => {
                self.asm.load(reg::R9, Mem::state(at::segment_base(Seg::Gs)));
                self.asm.load(reg::R10, Mem::state(at::KERNEL_GS));
                self.asm.store(Mem::state(at::segment_base(Seg::Gs)), reg::R10);
                self.asm.store(Mem::state(at::KERNEL_GS), reg::R9);
            }
            System::Direction(down) => {
                self.give_up_flags(after);
                if down {
                    self.or_rflags(flags::DF);
                } else {
                    self.and_rflags(!flags::DF);
                }
            }
            System::Syscall => self.syscall(guest),
            System::Sysret => self.sysret(guest),
            System::Stac => self.access_check(guest, true),
            System::Clac => self.access_check(guest, false),
            System::ReadSelector(_)
            | System::ReadSelector16(_)
            | System::StoreSelector(_)
            | System::ReadControl(_)
            | System::ReadBase(_)
            | System::WriteBase(_)
            | System::ReadTime(_) => self.system_register(index, guest, system)?,
        }
        Ok(!system.crosses())
    }

    /// `and dword [rflags], mask`
    fn and_rflags(&mut self, mask: u64) {
        self.asm.op_mem(false, &[0x81], 4, Mem::state(at::RFLAGS));
        self.asm.bytes(&(mask as u32).to_le_bytes());
    }
    /// `or dword [rflags], bits`
    fn or_rflags(&mut self, bits: u64) {
        self.asm.op_mem(false, &[0x81], 1, Mem::state(at::RFLAGS));
        self.asm.bytes(&(bits as u32).to_le_bytes());
    }
    /// Leaves to the interpreter if an interrupt waits.
    fn unless_waiting(&mut self, guest: &Guest) {
        self.interpret_if(Condition::NotEqual, at::WAITING, guest);
    }
    /// Leaves to the interpreter if the word compares so with zero.
    fn interpret_if(&mut self, condition: Condition, word: usize, guest: &Guest) {
        self.asm.op_mem(false, &[0x83], 7, Mem::state(word)); // cmp dword, imm8
        self.asm.bytes(&[0]);
        let leaves = self.asm.jcc(condition);
        self.interpret_later(leaves, guest);
    }
    pub(super) fn interpret_later(&mut self, from: Jump, guest: &Guest) {
        let op = self.leave_to_interpreter(guest);
        self.leave_later(from, Site::Interpret { rip: self.rip, op });
    }

    fn pushf(&mut self, index: usize) {
        self.give_up_flags(self.live(index));
        let size = self.source.mode.word();
        let down = (size as i32).wrapping_neg();
        let reach = self.on_stack(reg::R15, down, size, true);
        let spare = reach.spare();
        self.flags_image(spare);
        self.asm.store_sized(size, reach.mem(), reg::R11);
        self.set_stack_pointer(reg::R15, down);
    }

    fn popf(&mut self, index: usize, guest: &Guest) {
        self.give_up_flags(self.live(index));
        let size = self.source.mode.word();
        let reach = self.on_stack(reg::R15, 0, size, false);
        self.asm.load_sized(size, reg::R9, reach.mem());
        self.asm.mov(reg::R10, reg::R9);
        self.asm.op_mem(true, &[0x33], reg::R10, Mem::state(at::RFLAGS)); // xor
        self.asm.op_reg(true, &[0xF7], 0, reg::R10); // test r10, imm32, sign-extended
        self.asm.bytes(&(!POPPED as u32).to_le_bytes());
        let other = self.asm.jcc(Condition::NotEqual);
        self.interpret_later(other, guest);
        self.asm.op_reg(false, &[0xF7], 0, reg::R9); // test r9d, IF
        self.asm.bytes(&(flags::IF as u32).to_le_bytes());
        let off = self.asm.jcc(Condition::Equal);
        self.unless_waiting(guest);
        self.asm.bind(off);
        self.and_rflags(!flags::IF);
        self.asm.mov(reg::R10, reg::R9);
        self.and(reg::R10, flags::IF as u32);
        self.asm.op_mem(false, &[0x09], reg::R10, Mem::state(at::RFLAGS)); // or
        self.take_arithmetic();
        self.set_stack_pointer(reg::R15, size as i32);
        self.flags = Flags { host: false, saved: true };
    }
    /// The flags as PUSHF shows them, in R11. They have been given up, and saved.
    fn flags_image(&mut self, spare: u8) {
        self.asm.op_mem(false, &[0x0F, 0xB7], spare, Mem::state(at::FLAGS)); // movzx, of a word
        self.asm.mov(reg::R11, spare);
        self.asm.op_reg(false, &[0xC1], 5, spare); // shr .., 8
        self.asm.bytes(&[8]);
        self.and(spare, (flags::ARITHMETIC & 0xFF) as u32);
        self.and(reg::R11, 1);
        self.asm.bytes(&[0x41, 0xC1, 0xE3, 11]); // shl r11d, 11: OF
        self.asm.op_reg(false, &[0x09], reg::R11, spare); // or
        self.asm.op_mem(false, &[0x8B], reg::R11, Mem::state(at::RFLAGS));
        self.and(reg::R11, !NOT_PUSHED as u32);
        self.asm.op_reg(false, &[0x09], spare, reg::R11); // or
    }
    /// The guest's arithmetic flags become those in R9; R9 and R10 are lost.
    fn take_arithmetic(&mut self) {
        self.asm.op_reg(false, &[0x0F, 0xB6], reg::R10, reg::R9); // movzx r10d, r9b
        self.asm.bytes(&[0x41, 0xC1, 0xE2, 8]); // shl r10d, 8
        self.asm.bytes(&[0x41, 0xC1, 0xE9, 11]); // shr r9d, 11: OF
        self.and(reg::R9, 1);
        self.asm.op_reg(false, &[0x09], reg::R9, reg::R10); // or r10d, r9d
        self.asm.store(Mem::state(at::FLAGS), reg::R10);
    }

    /// SYSCALL, from ring 3.
    fn syscall(&mut self, guest: &Guest) {
        self.give_up_flags(ALL_FLAGS);
        self.interpret_if(Condition::Equal, at::SYSCALL_OK, guest);
        self.flags_image(reg::R9);
        self.asm.mov(reg::R9, reg::R11);
        self.asm.op_mem(true, &[0x23], reg::R9, Mem::state(at::SYSCALL_KEPT)); // and
        self.interpret_if_flags(flags::AC, guest);
        self.asm.store(Mem::state(at::homed(11)), reg::R11);
        self.asm.mov_imm(RCX, guest.instruction.next_ip());
        self.cross(0);
        self.asm.load(reg::R9, Mem::state(at::SYSCALL_TARGET));
        self.arrive(TlbClass::Supervisor);
    }
    /// SYSRET to 64-bit code.
    fn sysret(&mut self, guest: &Guest) {
        self.give_up_flags(ALL_FLAGS);
        self.interpret_if(Condition::Equal, at::SYSCALL_OK, guest);
        self.interpret_if(Condition::Equal, at::VECTORS, guest);
        self.asm.load(reg::R9, Mem::state(at::homed(11)));
        self.and(reg::R9, SYSRET_FLAGS);
        self.interpret_if_flags(flags::TF | flags::AC, guest);
        self.asm.op_reg(false, &[0xF7], 0, reg::R9); // test r9d, IF
        self.asm.bytes(&(flags::IF as u32).to_le_bytes());
        let off = self.asm.jcc(Condition::Equal);
        self.unless_waiting(guest);
        self.asm.bind(off);
        self.cross(3);
        self.asm.mov(reg::R9, RCX);
        self.arrive(TlbClass::User);
    }
    /// Leaves to the interpreter if one of these is set in R9.
    fn interpret_if_flags(&mut self, bits: u64, guest: &Guest) {
        self.asm.op_reg(false, &[0xF7], 0, reg::R9); // test r9d, imm32
        self.asm.bytes(&(bits as u32).to_le_bytes());
        let set = self.asm.jcc(Condition::NotEqual);
        self.interpret_later(set, guest);
    }
    /// To another ring with the flags in R9.
    fn cross(&mut self, ring: u32) {
        self.asm.op_reg(false, &[0x83], 1, reg::R9); // or r9d, imm8
        self.asm.bytes(&[flags::FIXED as u8]);
        self.asm.op_mem(false, &[0x89], reg::R9, Mem::state(at::RFLAGS));
        self.take_arithmetic();
        let selectors = Mem::state(at::syscall_selectors(usize::from(ring != 0)));
        self.asm.op_mem(false, &[0x8B], reg::R10, selectors);
        // CS, and SS behind it.
        self.asm.op_mem(false, &[0x89], reg::R10, Mem::state(at::selector(Seg::Cs as u8)));
        self.asm.mov_state32(at::RING, ring);
        self.asm.mov_state32(at::CROSSED, 1);
        self.flags = Flags { host: false, saved: true };
    }
    /// Goes to the address in R9 in another class.
    fn arrive(&mut self, class: TlbClass) {
        let missed = self.look_up(class as usize);
        self.leave_later(missed, Site::Arrived);
        self.asm.jmp_mem(Mem::indexed(at::jump_codes(class as usize), reg::R10));
    }
    /// STAC and CLAC: the following code has another class.
    fn access_check(&mut self, guest: &Guest, on: bool) {
        self.give_up_flags(ALL_FLAGS);
        self.interpret_if(Condition::Equal, at::AC_OK, guest);
        let class = if on {
            self.or_rflags(flags::AC);
            TlbClass::SupervisorAc
        } else {
            self.and_rflags(!flags::AC);
            TlbClass::Supervisor
        };
        self.go_by_table(class as usize, guest.instruction.next_ip());
    }
    fn and(&mut self, register: u8, mask: u32) {
        self.asm.op_reg(false, &[0x81], 4, register);
        self.asm.bytes(&mask.to_le_bytes());
    }
}
