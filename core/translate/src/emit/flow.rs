//! Jumps, calls, returns, polls, and the ways out of translated code.

use iced_x86::ConditionCode;

use super::flags::Flags;
use super::names::{host_of, is_homed, number};
use super::{Emitter, Later, NotEncodable, Site};
use crate::asm::{Asm, Condition, Jump, Mem, reg};
use crate::guest::{ALL_FLAGS, Guest};
use crate::layout::{JUMP_MASK, at, jump_index};
use crate::sites::{CALL, OP, Origin};
use crate::slots::Target;

impl Emitter<'_> {
    pub(super) fn leave_later(&mut self, from: Jump, site: Site<u32>) {
        self.later.push(Later::Leave { from, site, flags: self.flags });
    }

    /// Emits the code out of line. Branches make more of it.
    pub(super) fn later(&mut self) {
        let mut next = 0;
        while let Some(later) = self.later.get(next) {
            next = next.wrapping_add(1);
            match *later {
                Later::Recheck(recheck) => self.recheck(recheck),
                Later::Leave { from, site, flags } => {
                    self.asm.bind(from);
                    self.leave(site, flags);
                }
                Later::LeaveIndexed { from, index, site, flags } => {
                    self.asm.bind(from);
                    self.asm.mov_imm(reg::R10, u64::from(index));
                    self.leave(site, flags);
                }
                Later::Branch { from, index, target, flags } => {
                    self.asm.bind(from);
                    self.flags = flags;
                    let live = self.live_at_target(index);
                    if let Some(guest) = self.source.guests.get(index) {
                        self.rip = guest.instruction.ip();
                    }
                    if self.is_near(target) {
                        // The branch itself will be bound to its target.
                        self.leave_to_link(target, live, from);
                    } else {
                        self.go(target, live);
                    }
                }
            }
        }
    }

    pub(super) fn leave(&mut self, site: Site<u32>, flags: Flags) {
        let stubs = self.source.stubs;
        let stub = if flags.host && !flags.saved { stubs.exit_host_flags } else { stubs.exit };
        self.leave_by(stub, site);
    }
    /// Calls a stub with a site behind the call.
    pub(super) fn leave_by(&mut self, stub: u32, site: Site<u32>) {
        let next = self.here().wrapping_add(CALL as u32);
        let packed = site.pack(self.origin(), next);
        let begin = self.asm.here().wrapping_add(CALL as usize);
        self.asm.call_with_site(stub.wrapping_sub(next), &packed);
        self.site_bytes = self.site_bytes.wrapping_add(self.asm.here().wrapping_sub(begin));
        if let Site::Interpret { op, .. } = site {
            self.ops.push((self.asm.here().wrapping_sub(OP), op));
        }
    }
    fn origin(&self) -> Origin {
        let first = self.source.guests.first();
        Origin { entry: self.source.at, rip: first.map_or(0, |guest| guest.instruction.ip()) }
    }
    /// Leaves by a site by which a jump can be bound to its target; `live` as in [`Emitter::go`].
    fn leave_to_link(&mut self, target: u64, live: u32, jump: Jump) {
        let patch = self.source.at.wrapping_add(jump.0 as u32);
        let flags = if live == 0 { Flags { host: false, saved: true } } else { self.flags };
        self.leave(Site::Link { rip: target, patch }, flags);
    }
    /// Whether a target is in the page of the instruction at hand.
    fn is_near(&self, target: u64) -> bool {
        let page = |rip: u64| rip.wrapping_add(self.source.skew) & !0xFFF;
        page(target) == page(self.rip)
    }
    /// The displacement of the jump that follows, `opcode` bytes behind its begin, is changed while
    /// other processors may be running here: it must not lie in two words of 8 bytes.
    pub(super) fn align_displacement(&mut self, opcode: u32) {
        match self.here().wrapping_add(opcode) & 7 {
            5 => self.asm.bytes(&[0x0F, 0x1F, 0x00]),
            6 => self.asm.bytes(&[0x66, 0x90]),
            7 => self.asm.bytes(&[0x90]),
            _ => {}
        }
    }

    /// Goes to a target that is known. `live`: flags that are live there.
    pub(super) fn go(&mut self, target: u64, live: u32) {
        if target <= self.rip {
            self.poll(live, Site::Go { rip: target });
        }
        if self.is_near(target) {
            if live != 0 {
                self.need_host_flags();
            }
            self.align_displacement(1);
            let jump = self.asm.jmp();
            self.asm.bind(jump);
            self.leave_to_link(target, live, jump);
            return;
        }
        if !self.source.mode.has_flat_code() || !self.go_by_slot(target) {
            self.go_by_table(self.source.mode.class(), target);
        }
    }
    /// False if all slots are taken.
    fn go_by_slot(&mut self, target: u64) -> bool {
        let saved = !self.flags.host;
        let target = Target { rip: target, mode: self.source.mode, saved };
        let Some(number) = self.slots.of(target) else { return false };
        jump_by_slot(&mut self.asm, number);
        true
    }
    /// Goes to a known target by the jump table of a class.
    pub(super) fn go_by_table(&mut self, class: usize, target: u64) {
        self.give_up_flags(ALL_FLAGS);
        let index = jump_index(target);
        let entry = |table: usize| Mem::state(table.wrapping_add(index.wrapping_mul(16)));
        self.asm.mov_imm(reg::R9, target);
        self.asm.op_mem(true, &[0x3B], reg::R9, entry(at::jump_rips(class)));
        let missed = self.asm.jcc(Condition::NotEqual);
        self.asm.jmp_mem(entry(at::jump_codes(class)));
        self.leave_later(missed, Site::Go { rip: target });
    }

    /// Leaves by `site` when it is time to look around.
    pub(super) fn poll(&mut self, live: u32, site: Site<u32>) {
        self.give_up_flags(live);
        self.asm.op_mem(false, &[0xFF], 1, Mem::state(at::count(self.rip))); // dec
        let now = self.asm.jcc(Condition::Sign);
        self.leave_later(now, site);
    }

    /// After the last instruction that was translated: on with the next, which is either the
    /// interpreter's or another block's.
    pub(super) fn end(&mut self, done: usize) {
        match self.source.guests.get(done) {
            Some(guest) => {
                let op = self.leave_to_interpreter(guest);
                let (flags, rip) = (self.flags, guest.instruction.ip());
                self.leave(Site::Interpret { rip, op }, flags);
            }
            None => {
                let last = self.source.guests.get(done.wrapping_sub(1));
                let next = last.map_or(0, |guest| guest.instruction.next_ip());
                self.go(next, self.live(done));
            }
        }
    }
    /// The number of an instruction that the interpreter will do.
    pub(super) fn leave_to_interpreter(&mut self, guest: &Guest) -> u32 {
        self.left.push(guest.instruction);
        self.left.len().wrapping_sub(1) as u32
    }

    pub(super) fn call(&mut self, index: usize, guest: &Guest, target: u64) {
        // Who wants exact flags at faults wants them for the push, too, whatever the target reads.
        self.give_up_flags(self.live(index));
        self.push_return_address(guest);
        self.go(target, self.live_at_target(index));
    }
    /// `more`: bytes that it drops besides the return address.
    pub(super) fn ret(&mut self, guest: &Guest, more: u16) {
        self.give_up_flags(ALL_FLAGS);
        let size = self.source.mode.word();
        let reach = self.on_stack(reg::R15, 0, size, false);
        self.asm.load_sized(size, reg::R9, reach.mem());
        self.find_target(guest);
        self.set_stack_pointer(reg::R15, (size as i32).wrapping_add(more.into()));
        self.asm.jmp_mem(Mem::indexed(at::jump_codes(self.source.mode.class()), reg::R10));
    }
    pub(super) fn jump_indirect(&mut self, guest: &Guest) -> Result<(), NotEncodable> {
        self.indirect_target(guest)?;
        self.find_target(guest);
        self.asm.jmp_mem(Mem::indexed(at::jump_codes(self.source.mode.class()), reg::R10));
        Ok(())
    }
    pub(super) fn call_indirect(&mut self, guest: &Guest) -> Result<(), NotEncodable> {
        self.indirect_target(guest)?;
        self.find_target(guest);
        self.asm.load(reg::R11, Mem::indexed(at::jump_codes(self.source.mode.class()), reg::R10));
        self.push_return_address(guest);
        self.asm.jmp_reg(reg::R11);
        Ok(())
    }

    /// The target of an indirect jump or call in R9.
    pub(super) fn indirect_target(&mut self, guest: &Guest) -> Result<(), NotEncodable> {
        self.give_up_flags(ALL_FLAGS);
        let size = self.source.mode.word();
        if guest.access.is_some() {
            let reach = self.operand(guest, 0)?;
            self.asm.load_sized(size, reg::R9, reach.mem());
            return Ok(());
        }
        let guest_register = number(guest.instruction.op0_register());
        if is_homed(guest_register) {
            self.asm.load(reg::R9, Mem::state(at::homed(guest_register)));
        } else {
            self.asm.zero_extend(size, reg::R9, host_of(guest_register));
        }
        Ok(())
    }

    /// Looks the target in R9 up: R10 is its entry's offset in the jump table. The interpreter does the
    /// instruction if it is not there. Nothing of the guest has changed yet.
    pub(super) fn find_target(&mut self, guest: &Guest) {
        let site = if self.in_shadow {
            Site::Interpret { rip: self.rip, op: self.leave_to_interpreter(guest) }
        } else {
            Site::Go { rip: self.rip }
        };
        self.poll(0, site);
        let retry = self.here();
        let missed = self.look_up(self.source.mode.class());
        self.leave_later(missed, Site::Indirect { rip: self.rip, retry });
    }
    /// Looks the target in R9 up in the jump table of a class: R10 is its entry's offset then. The
    /// jump is taken where it is not there.
    pub(super) fn look_up(&mut self, class: usize) -> Jump {
        self.asm.op_reg(false, &[0x89], reg::R9, reg::R10); // mov r10d, r9d
        self.asm.bytes(&[0x41, 0xC1, 0xE2, 4]); // shl r10d, 4
        self.asm.op_reg(false, &[0x31], reg::R9, reg::R10); // xor r10d, r9d
        self.asm.op_reg(false, &[0x81], 4, reg::R10); // and r10d, ..
        self.asm.bytes(&JUMP_MASK.to_le_bytes());
        let rips = at::jump_rips(class);
        self.asm.op_mem(true, &[0x3B], reg::R9, Mem::indexed(rips, reg::R10));
        self.asm.jcc(Condition::NotEqual)
    }
}

/// Goes to what a slot leads to.
pub(super) fn jump_by_slot(asm: &mut Asm, number: u32) {
    asm.mov_imm(reg::R9, u64::from(number));
    asm.jmp_mem(Mem::state(at::slot(number)));
}

/// The number of a condition in an opcode.
pub(super) fn condition(code: ConditionCode) -> Result<u8, NotEncodable> {
    Ok(match code {
        ConditionCode::o => 0,
        ConditionCode::no => 1,
        ConditionCode::b => 2,
        ConditionCode::ae => 3,
        ConditionCode::e => 4,
        ConditionCode::ne => 5,
        ConditionCode::be => 6,
        ConditionCode::a => 7,
        ConditionCode::s => 8,
        ConditionCode::ns => 9,
        ConditionCode::p => 10,
        ConditionCode::np => 11,
        ConditionCode::l => 12,
        ConditionCode::ge => 13,
        ConditionCode::le => 14,
        ConditionCode::g => 15,
        ConditionCode::None => return Err(NotEncodable),
    })
}
