//! From a run of guest instructions to host code.
//!
//! # A memory access
//! ```text
//!     lea   r9, [operand]            ; RBASE+disp, or whatever the guest's address is
//!     mov   r10d, 0xA0C              ; BEXTR: ten bits from bit 12
//!     bextr r10, r9, r10             ; TLB index
//!     sub   r9, [rsp + r10*8 + tags] ; offset in the page if the tag is the page's
//!     cmp   r9, 4096 - size
//!     ja    slow                     ; other page, across pages, MMIO, not writable, code
//!     mov   r10, [rsp + r10*8 + addends]
//!     OP    [rbase + r10 + disp]     ; the guest's own instruction
//! ```
//! `slow` leaves translated code. Either the TLB is filled and the check is made again, or the
//! interpreter does the whole instruction. So nothing of the guest may have changed at a check.
//!
//! # Flags
//! The guest's arithmetic flags are in the host's. A check overwrites them, so where they are live
//! they are saved before it, and restored where they are read. Two facts are followed along the
//! code: whether the host's flags are the guest's, and whether the saved ones are. What is live is
//! found backwards, over the edges of a block as far as its page reaches ([`crate::live`]).
//!
//! A block has two entries: one for the host's flags, and one before it that restores the saved
//! ones if anybody reads them. Jumps within a page go to the first, all others, which can't know,
//! to the second.

use alloc::vec::Vec;

use iced_x86::{ConditionCode, Encoder, Instruction, OpKind, Register};

use crate::asm::{Asm, Condition, Jump, Mem, reg};
use crate::guest::{ALL_FLAGS, Guest, Kind};
use crate::layout::{JUMP_ENTRIES, JUMP_SHIFT, TLB_INDEX, at, jump_index};
use crate::stubs::{Stubs, capture_flags};

/// Where translated code is left, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Site {
    /// An access that the inline TLB refused. RIP is the instruction's; the check is made again
    /// at `retry` (an offset in the arena) with the address in R9.
    Access { rip: u64, retry: u32, write: bool },
    /// A jump within the page whose displacement at `patch` (an offset in the arena) can be bound
    /// to the target's entry for the host's flags.
    Link { rip: u64, patch: u32 },
    /// The interpreter does the instruction at RIP.
    Interpret { rip: u64 },
    /// The guest goes on at RIP.
    Go { rip: u64 },
}

/// An instruction that may raise a host exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FaultPoint {
    /// Offset in the arena.
    pub(crate) code: u32,
    pub(crate) rip: u64,
    /// The guest's flags are the host's, not the saved ones.
    pub(crate) host_flags: bool,
}

/// What a block is made from.
pub(crate) struct Source<'a> {
    pub(crate) guests: &'a [Guest],
    /// Flags that are live before each instruction, and after the last.
    pub(crate) live: &'a [u32],
    /// Flags that are live at the targets of branches, by instruction.
    pub(crate) live_at_target: &'a [u32],
    /// Privilege class of its data accesses and jump table.
    pub(crate) class: usize,
    /// Offset in the arena at which it will stand.
    pub(crate) at: u32,
    pub(crate) stubs: Stubs,
    /// Number of its first site.
    pub(crate) first_site: u32,
}

/// A translated block.
pub(crate) struct Translated {
    pub(crate) code: Vec<u8>,
    /// Offset of the entry for the host's flags; that for saved flags is 0.
    pub(crate) host_entry: u32,
    pub(crate) sites: Vec<Site>,
    pub(crate) fault_points: Vec<FaultPoint>,
    /// Guest instructions that were translated.
    pub(crate) instructions: usize,
}

/// An instruction that can't be encoded with its registers renamed: the block ends before it.
struct NotEncodable;

/// Where the guest's flags are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flags {
    host: bool,
    saved: bool,
}

/// Code out of line, to be emitted behind the block.
enum Later {
    Leave { from: Jump, site: Site, flags: Flags },
    Branch { from: Jump, index: usize, target: u64, flags: Flags },
}

pub(crate) struct Translator {
    encoder: Encoder,
}

impl Translator {
    pub(crate) fn new() -> Self {
        Self { encoder: Encoder::new(64) }
    }

    /// `None` if not even the first instruction can be translated.
    pub(crate) fn translate(&mut self, source: &Source<'_>) -> Option<Translated> {
        let mut emitter = Emitter {
            asm: Asm::default(),
            source,
            encoder: &mut self.encoder,
            sites: Vec::new(),
            fault_points: Vec::new(),
            later: Vec::new(),
            flags: Flags { host: true, saved: false },
            rip: 0,
        };
        let live_in = source.live.first().copied().unwrap_or(ALL_FLAGS);
        if live_in != 0 {
            emitter.restore();
        }
        let host_entry = emitter.asm.here() as u32;
        let mut done = 0;
        let mut open = true;
        for (index, guest) in source.guests.iter().enumerate() {
            emitter.rip = guest.instruction.ip();
            let before = emitter.mark();
            match emitter.instruction(index, guest) {
                Ok(goes_on) => {
                    done = index.saturating_add(1);
                    open = goes_on;
                }
                Err(NotEncodable) => {
                    emitter.back_to(before);
                    break;
                }
            }
            if !open {
                break;
            }
        }
        if done == 0 {
            return None;
        }
        if open {
            emitter.end(done);
        }
        emitter.later();
        let Emitter { asm, sites, fault_points, .. } = emitter;
        Some(Translated { code: asm.code, host_entry, sites, fault_points, instructions: done })
    }
}

struct Emitter<'a> {
    asm: Asm,
    source: &'a Source<'a>,
    encoder: &'a mut Encoder,
    sites: Vec<Site>,
    fault_points: Vec<FaultPoint>,
    later: Vec<Later>,
    flags: Flags,
    /// Of the instruction at hand.
    rip: u64,
}

/// A place to go back to.
struct Mark {
    code: usize,
    later: usize,
    faults: usize,
    flags: Flags,
}

/// How a checked operand is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// By its own base plus the addend in R10.
    Base { base: u8, disp: i32 },
    /// By its host address in R9.
    Host,
}

impl Reach {
    fn mem(self) -> Mem {
        match self {
            Self::Base { base, disp } => Mem { base: Some(base), index: Some((reg::R10, 0)), disp },
            Self::Host => Mem::base(reg::R9, 0),
        }
    }
    /// Scratch registers that are free now.
    fn free(self) -> &'static [u8] {
        match self {
            Self::Base { .. } => &[reg::R11],
            Self::Host => &[reg::R11, reg::R10],
        }
    }
}

/// A guest register that lives in the state block.
fn is_homed(guest: u8) -> bool {
    matches!(guest, 9..=11 | 15)
}

/// The host register of a guest register that has one.
fn host_of(guest: u8) -> u8 {
    if guest == reg::RSP { reg::R15 } else { guest }
}

fn number(register: Register) -> u8 {
    (register.full_register().number() & 15) as u8
}

impl Emitter<'_> {
    fn mark(&self) -> Mark {
        Mark {
            code: self.asm.here(),
            later: self.later.len(),
            faults: self.fault_points.len(),
            flags: self.flags,
        }
    }
    fn back_to(&mut self, mark: Mark) {
        self.asm.code.truncate(mark.code);
        self.later.truncate(mark.later);
        self.fault_points.truncate(mark.faults);
        self.flags = mark.flags;
    }
    /// The arena offset of the next instruction.
    fn here(&self) -> u32 {
        self.source.at.wrapping_add(self.asm.here() as u32)
    }
    fn live(&self, index: usize) -> u32 {
        self.source.live.get(index).copied().unwrap_or(ALL_FLAGS)
    }

    // --- flags -------------------------------------------------------------------------------

    /// Host code that overwrites the flags follows; `live` are those still needed.
    fn give_up_flags(&mut self, live: u32) {
        self.save(live);
        self.flags.host = false;
    }
    fn save(&mut self, live: u32) {
        if live != 0 && !self.flags.saved && self.flags.host {
            self.asm.mov(reg::R11, reg::RAX);
            capture_flags(&mut self.asm, at::FLAGS);
            self.asm.mov(reg::RAX, reg::R11);
            self.flags.saved = true;
        }
    }
    fn need_host_flags(&mut self) {
        if !self.flags.host {
            self.restore();
            self.flags.host = true;
        }
    }
    /// By way of RAX, which is kept in R11.
    fn restore(&mut self) {
        self.asm.mov(reg::R11, reg::RAX);
        self.asm.op_mem(false, &[0x0F, 0xB7], reg::RAX, Mem::state(at::FLAGS)); // movzx eax, word
        self.asm.bytes(&[0x04, 0x7F]); // add al, 127: OF if bit 0 was set
        self.asm.bytes(&[0x9E]); // sahf
        self.asm.mov(reg::RAX, reg::R11);
    }

    // --- leaving -----------------------------------------------------------------------------

    fn leave_later(&mut self, from: Jump, site: Site) {
        self.later.push(Later::Leave { from, site, flags: self.flags });
    }

    /// Emits the code out of line. Branches make more of it.
    fn later(&mut self) {
        let mut next = 0;
        while let Some(later) = self.later.get(next) {
            next = next.wrapping_add(1);
            match *later {
                Later::Leave { from, site, flags } => {
                    self.asm.bind(from);
                    self.leave(site, flags);
                }
                Later::Branch { from, index, target, flags } => {
                    self.asm.bind(from);
                    self.flags = flags;
                    let live = self.live_at_target(index);
                    if let Some(guest) = self.source.guests.get(index) {
                        self.rip = guest.instruction.ip();
                    }
                    self.go(target, live);
                }
            }
        }
    }

    fn leave(&mut self, site: Site, flags: Flags) {
        let number = self.source.first_site.wrapping_add(self.sites.len() as u32);
        self.sites.push(site);
        self.asm.mov_state32(at::SITE, number);
        let stubs = &self.source.stubs;
        let stub = if flags.host && !flags.saved { stubs.exit_host_flags } else { stubs.exit };
        let jump = self.asm.jmp();
        self.asm.bind_to(jump, i64::from(stub).wrapping_sub(i64::from(self.source.at)));
    }

    /// Goes to a target that is known. `live`: flags that are live there.
    fn go(&mut self, target: u64, live: u32) {
        let same_page = target & !0xFFF == self.rip & !0xFFF;
        if target <= self.rip {
            self.poll(live, Site::Go { rip: target });
        }
        if same_page {
            if live != 0 {
                self.need_host_flags();
            }
            let patch = self.here().wrapping_add(1);
            let jump = self.asm.jmp();
            self.asm.bind(jump);
            let flags = if live == 0 { Flags { host: false, saved: true } } else { self.flags };
            self.leave(Site::Link { rip: target, patch }, flags);
            return;
        }
        self.give_up_flags(ALL_FLAGS);
        let (class, index) = (self.source.class, jump_index(target));
        let entry = |table: usize| Mem::state(table.wrapping_add(index.wrapping_mul(8)));
        self.asm.mov_imm(reg::R9, target);
        self.asm.op_mem(true, &[0x3B], reg::R9, entry(at::jump_rips(class)));
        let missed = self.asm.jcc(Condition::NotEqual);
        self.asm.jmp_mem(entry(at::jump_codes(class)));
        self.leave_later(missed, Site::Go { rip: target });
    }

    /// Leaves by `site` when it is time to look around.
    fn poll(&mut self, live: u32, site: Site) {
        self.give_up_flags(live);
        self.asm.op_mem(false, &[0xFF], 1, Mem::state(at::COUNT)); // dec
        let now = self.asm.jcc(Condition::Sign);
        self.leave_later(now, site);
    }

    /// After the last instruction that was translated: on with the next, which is either the
    /// interpreter's or another block's.
    fn end(&mut self, done: usize) {
        let last = self.source.guests.get(done.wrapping_sub(1));
        let next = last.map_or(0, |guest| guest.instruction.next_ip());
        let site = match self.source.guests.get(done) {
            Some(_) => Site::Interpret { rip: next },
            None => {
                self.go(next, self.live(done));
                return;
            }
        };
        let flags = self.flags;
        self.leave(site, flags);
    }

    // --- memory ------------------------------------------------------------------------------

    /// The TLB check of an access to the address in R9.
    fn check(&mut self, size: u32, write: bool) {
        let class = self.source.class;
        let tags = if write { at::write_tags(class) } else { at::read_tags(class) };
        let retry = self.here();
        self.asm.mov_imm(reg::R10, TLB_INDEX);
        self.asm.bytes(&[0xC4, 0x42, 0xA8, 0xF7, 0xD1]); // bextr r10, r9, r10
        self.asm.op_mem(true, &[0x2B], reg::R9, Mem::table(tags, reg::R10)); // sub
        self.asm.cmp_imm(reg::R9, 4096i32.wrapping_sub(size as i32));
        let slow = self.asm.jcc(Condition::Above);
        self.leave_later(slow, Site::Access { rip: self.rip, retry, write });
    }
    fn add_host(&mut self) {
        let hosts = at::hosts(self.source.class);
        self.asm.op_mem(true, &[0x03], reg::R9, Mem::table(hosts, reg::R10));
    }
    fn load_addend(&mut self) {
        self.asm.load(reg::R10, Mem::table(at::addends(self.source.class), reg::R10));
    }
    /// Checks `[base + disp]` and reaches it by its base. The flags have been given up.
    fn based(&mut self, base: u8, disp: i32, size: u32, write: bool) -> Reach {
        if disp == 0 {
            self.asm.mov(reg::R9, base);
        } else {
            self.asm.lea(true, reg::R9, Mem::base(base, disp));
        }
        self.check(size, write);
        self.load_addend();
        Reach::Base { base, disp }
    }

    /// Checks the explicit memory operand. `homed`: how many registers in the state block the
    /// instruction needs besides. The flags have been given up.
    fn operand(&mut self, guest: &Guest, homed: usize) -> Result<Reach, NotEncodable> {
        let instruction = &guest.instruction;
        let Some(access) = guest.access else { return Err(NotEncodable) };
        let base = instruction.memory_base();
        let simple = base.is_gpr64()
            && !is_homed(number(base))
            && instruction.memory_index() == Register::None
            && !matches!(instruction.memory_segment(), Register::FS | Register::GS);
        if simple && homed <= 1 {
            let disp = instruction.memory_displacement64() as i32;
            return Ok(self.based(host_of(number(base)), disp, access.size, access.write));
        }
        self.address(instruction, reg::R9, true)?;
        match instruction.memory_segment() {
            Register::FS => self.add_segment(0),
            Register::GS => self.add_segment(1),
            _ => {}
        }
        self.check(access.size, access.write);
        self.add_host();
        Ok(Reach::Host)
    }
    fn add_segment(&mut self, which: usize) {
        self.asm.op_mem(true, &[0x03], reg::R9, Mem::state(at::segment_base(which)));
    }

    /// The effective address, without the segment's base, in `to`: all of it or the lower half.
    /// By way of R9 and R10. Leaves the flags alone.
    fn address(
        &mut self,
        instruction: &Instruction,
        to: u8,
        whole: bool,
    ) -> Result<(), NotEncodable> {
        let base = instruction.memory_base();
        let index = instruction.memory_index();
        let disp = instruction.memory_displacement64();
        if base == Register::RIP {
            self.asm.mov_imm(to, if whole { disp } else { disp & 0xFFFF_FFFF });
            return Ok(());
        }
        if base == Register::EIP {
            return Err(NotEncodable);
        }
        let wide = base.is_gpr64() || index.is_gpr64();
        let narrow = base.is_gpr32() || index.is_gpr32();
        if !wide && !narrow {
            // Sign-extended, or with a prefix for 32-bit addresses zero-extended: iced did that.
            self.asm.mov_imm(to, if whole { disp } else { disp & 0xFFFF_FFFF });
            return Ok(());
        }
        let base = self.part(base, reg::R9);
        let index = self.part(index, reg::R10);
        let shift = instruction.memory_index_scale().trailing_zeros() as u8;
        let mem = Mem { base, index: index.map(|index| (index, shift)), disp: disp as i32 };
        self.asm.lea(wide && whole, to, mem);
        Ok(())
    }
    /// The host register with this part of an address; `scratch` if it has to be loaded.
    fn part(&mut self, register: Register, scratch: u8) -> Option<u8> {
        if register == Register::None {
            return None;
        }
        let guest = number(register);
        if is_homed(guest) {
            self.asm.load(scratch, Mem::state(at::homed(guest)));
            return Some(scratch);
        }
        Some(host_of(guest))
    }

    // --- instructions ------------------------------------------------------------------------

    /// True if the code goes on behind it.
    fn instruction(&mut self, index: usize, guest: &Guest) -> Result<bool, NotEncodable> {
        match guest.kind {
            Kind::Plain => self.plain(index, guest)?,
            Kind::Nop => {}
            Kind::Lea => self.lea(guest)?,
            Kind::Push => self.push(index, guest)?,
            Kind::Pop => self.pop(index, guest),
            Kind::Leave => self.leave_frame(index),
            Kind::Branch(target) => {
                self.need_host_flags();
                let code = condition(guest.instruction.condition_code())?;
                let from = self.asm.jcc_code(code);
                self.later.push(Later::Branch { from, index, target, flags: self.flags });
            }
            Kind::Jump(target) => {
                if target == guest.instruction.next_ip() {
                    return Ok(true);
                }
                let live = self.live_at_target(index);
                self.go(target, live);
                return Ok(false);
            }
            Kind::Call(target) => {
                let live = self.live_at_target(index);
                self.give_up_flags(live);
                self.push_return_address(guest);
                self.go(target, live);
                return Ok(false);
            }
            Kind::Return(more) => {
                self.give_up_flags(ALL_FLAGS);
                let reach = self.based(reg::R15, 0, 8, false);
                self.asm.load(reg::R9, reach.mem());
                self.find_target();
                self.asm.lea(true, reg::R15, Mem::base(reg::R15, 8i32.wrapping_add(more.into())));
                self.asm.jmp_mem(Mem::table(at::jump_codes(self.source.class), reg::R10));
                return Ok(false);
            }
            Kind::JumpIndirect => {
                self.indirect_target(guest)?;
                self.find_target();
                self.asm.jmp_mem(Mem::table(at::jump_codes(self.source.class), reg::R10));
                return Ok(false);
            }
            Kind::CallIndirect => {
                self.indirect_target(guest)?;
                self.find_target();
                self.asm.load(reg::R11, Mem::table(at::jump_codes(self.source.class), reg::R10));
                self.push_return_address(guest);
                self.asm.jmp_reg(reg::R11);
                return Ok(false);
            }
            Kind::Interpreted => return Err(NotEncodable),
        }
        Ok(true)
    }

    fn live_at_target(&self, index: usize) -> u32 {
        self.source.live_at_target.get(index).copied().unwrap_or(ALL_FLAGS)
    }

    /// The flags have been given up. R11 is kept.
    fn push_return_address(&mut self, guest: &Guest) {
        let reach = self.based(reg::R15, -8, 8, true);
        self.asm.mov_imm(reg::R9, guest.instruction.next_ip());
        self.asm.store(reach.mem(), reg::R9);
        self.asm.lea(true, reg::R15, Mem::base(reg::R15, -8));
    }

    /// The target of an indirect jump or call in R9.
    fn indirect_target(&mut self, guest: &Guest) -> Result<(), NotEncodable> {
        self.give_up_flags(ALL_FLAGS);
        if guest.access.is_some() {
            let reach = self.operand(guest, 0)?;
            self.asm.load(reg::R9, reach.mem());
            return Ok(());
        }
        let guest_register = number(guest.instruction.op0_register());
        if is_homed(guest_register) {
            self.asm.load(reg::R9, Mem::state(at::homed(guest_register)));
        } else {
            self.asm.mov(reg::R9, host_of(guest_register));
        }
        Ok(())
    }

    /// Looks the target in R9 up: R10 is its index in the jump table. The interpreter does the
    /// instruction if it is not there. Nothing of the guest has changed yet.
    fn find_target(&mut self) {
        self.poll(0, Site::Interpret { rip: self.rip });
        self.asm.op_reg(false, &[0x89], reg::R9, reg::R10); // mov r10d, r9d
        self.asm.bytes(&[0x41, 0xC1, 0xEA, JUMP_SHIFT]); // shr r10d, 7
        self.asm.op_reg(false, &[0x31], reg::R9, reg::R10); // xor r10d, r9d
        self.asm.op_reg(false, &[0x81], 4, reg::R10); // and r10d, ..
        self.asm.bytes(&(JUMP_ENTRIES as u32).wrapping_sub(1).to_le_bytes());
        let rips = at::jump_rips(self.source.class);
        self.asm.op_mem(true, &[0x3B], reg::R9, Mem::table(rips, reg::R10));
        let missed = self.asm.jcc(Condition::NotEqual);
        self.leave_later(missed, Site::Interpret { rip: self.rip });
    }

    fn lea(&mut self, guest: &Guest) -> Result<(), NotEncodable> {
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

    fn push(&mut self, index: usize, guest: &Guest) -> Result<(), NotEncodable> {
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

    fn pop(&mut self, index: usize, guest: &Guest) {
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

    fn leave_frame(&mut self, index: usize) {
        self.give_up_flags(self.live(index));
        let rbp = 5;
        let reach = self.based(rbp, 0, 8, false);
        self.asm.load(reg::R11, reach.mem());
        self.asm.lea(true, reg::R15, Mem::base(rbp, 8));
        self.asm.mov(rbp, reg::R11);
    }

    /// The guest's own instruction with its operands renamed.
    fn plain(&mut self, index: usize, guest: &Guest) -> Result<(), NotEncodable> {
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
        let at_code = self.here();
        let done = self.encoder.encode(&renamed, 0);
        let encoded = self.encoder.take_buffer(); // also what an error left in it
        done.map_err(|_| NotEncodable)?;
        self.asm.bytes(&encoded);
        if guest.may_fault {
            let host_flags = self.flags.host;
            self.fault_points.push(FaultPoint { code: at_code, rip: self.rip, host_flags });
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
}

/// The registers in the state block that an instruction has as operands.
struct Homed {
    /// Guest register and the scratch register that stands for it.
    places: [(u8, u8); 4],
    count: usize,
    /// Bit n: guest register n is written.
    written: u16,
}

impl Homed {
    fn of(guest: &Guest) -> Self {
        let instruction = &guest.instruction;
        let mut homed = Self { places: [(0, 0); 4], count: 0, written: 0 };
        for n in 0..instruction.op_count().min(8) {
            let register = instruction.op_register(n);
            if instruction.op_kind(n) != OpKind::Register || !register.is_gpr() {
                continue;
            }
            let guest_register = number(register);
            if !is_homed(guest_register) {
                continue;
            }
            if guest.written_operands >> n & 1 != 0 {
                homed.written |= 1 << guest_register;
            }
            let known = homed.places().any(|(known, _)| known == guest_register);
            if !known && let Some(place) = homed.places.get_mut(homed.count) {
                place.0 = guest_register;
                homed.count = homed.count.wrapping_add(1);
            }
        }
        homed
    }
    fn assign(&mut self, free: &[u8]) -> Result<(), NotEncodable> {
        for (n, place) in self.places.iter_mut().take(self.count).enumerate() {
            place.1 = *free.get(n).ok_or(NotEncodable)?;
        }
        Ok(())
    }
    fn places(&self) -> impl Iterator<Item = (u8, u8)> + use<> {
        self.places.into_iter().take(self.count)
    }
    fn is_written(&self, guest_register: u8) -> bool {
        self.written >> guest_register & 1 != 0
    }
    fn host(&self, guest_register: u8) -> u8 {
        self.places()
            .find(|(known, _)| *known == guest_register)
            .map_or(host_of(guest_register), |(_, scratch)| scratch)
    }
}

fn rename_memory(instruction: &mut Instruction, reach: Reach) {
    instruction.set_segment_prefix(Register::None);
    let Mem { base, index, disp } = reach.mem();
    let register = |number: Option<(u8, u8)>| {
        number.map_or(Register::None, |(number, _)| Register::RAX + u32::from(number))
    };
    instruction.set_memory_base(register(base.map(|base| (base, 0))));
    instruction.set_memory_index(register(index));
    instruction.set_memory_index_scale(1);
    instruction.set_memory_displacement64(i64::from(disp) as u64);
    instruction.set_memory_displ_size(u32::from(disp != 0));
}

fn rename_registers(instruction: &mut Instruction, homed: &Homed) {
    for n in 0..instruction.op_count().min(8) {
        let register = instruction.op_register(n);
        if instruction.op_kind(n) == OpKind::Register && register.is_gpr() {
            let host = homed.host(number(register));
            instruction.set_op_register(n, with_number(register, host));
        }
    }
}

/// The register of the same width with another number.
fn with_number(register: Register, host: u8) -> Register {
    use Register::{AH, AL, AX, BH, CH, DH, EAX, R8L, RAX, SPL};
    let host_u32 = u32::from(host);
    match register {
        AH | CH | DH | BH => register,
        _ if register.is_gpr64() => RAX + host_u32,
        _ if register.is_gpr32() => EAX + host_u32,
        _ if register.is_gpr16() => AX + host_u32,
        _ => match host {
            0..=3 => AL + host_u32,
            4..=7 => SPL + host_u32.wrapping_sub(4),
            _ => R8L + host_u32.wrapping_sub(8),
        },
    }
}

/// The number of a condition in an opcode.
fn condition(code: ConditionCode) -> Result<u8, NotEncodable> {
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
