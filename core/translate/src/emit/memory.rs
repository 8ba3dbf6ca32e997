//! # A memory access
//! ```text
//!     lea   r9, [operand]            ; RBASE+disp, or whatever the guest's address is
//!     rorx  r10d, r9d, 7
//!     and   r10d, 4095 << 5          ; the TLB entry's offset
//!     sub   r9, [rsp + r10 + tag]    ; offset in the page if the tag is the page's
//!     cmp   r9, 4096 - size          ; both constants stand in the state block
//!     ja    slow                     ; other page, across pages, MMIO, not writable, code
//!     mov   r10, [rsp + r10 + addend]
//!     OP    [rbase + r10 + disp]     ; the guest's own instruction
//! ```
//! `slow` leaves translated code. Either the TLB is filled and the check is made again, or the
//! interpreter does the whole instruction. So nothing of the guest may have changed at a check.
//!
//! # 32-bit and 16-bit code
//! Its addresses wrap, and the upper halves of its registers are no part of them. So the operand
//! is not reached by the guest's own registers, but always by its host address in R9. Between the
//! effective address and the inline TLB stands the segment, unless it is flat:
//! ```text
//!     lea   r10, [r9 + size - 1]
//!     cmp   r10, [limit]             ; -1 where the interpreter has to look at it
//!     jg    refused
//!     add   r9d, [base]
//! ```

use iced_x86::{Instruction, Register};
use kasane_interp::op::segment;

use super::names::{host_of, is_homed, number};
use super::{Emitter, Later, NotEncodable, Site, Way};
use crate::asm::{Condition, Mem, reg};
use crate::checks::{Reached, is_within};
use crate::guest::Guest;
use crate::layout::{TlbEntry, at, tlb_index};

/// Bytes of the explicit operand's effective address.
pub(super) fn address_size(instruction: &Instruction) -> u32 {
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    match (base.size().max(index.size()), instruction.memory_displ_size()) {
        (0, 0) => 8,
        (0, displacement) => displacement,
        (register, _) => register as u32,
    }
}

/// The address of an operand without registers, but RIP, in 64-bit code.
fn constant_address(instruction: &Instruction) -> Option<u64> {
    let base = instruction.memory_base();
    let fixed =
        base == Register::RIP || base == Register::None && instruction.memory_displ_size() == 8;
    (fixed && instruction.memory_index() == Register::None)
        .then(|| instruction.memory_displacement64())
}

fn mask(bytes: u32) -> u64 {
    u64::MAX.checked_shr(64u32.saturating_sub(bytes.saturating_mul(8))).unwrap_or(0)
}

/// How a checked operand is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// By its own base plus the addend in R10.
    Base { base: u8, disp: i32 },
    /// By its host address in R9.
    Host,
}

impl Reach {
    pub(super) fn mem(self) -> Mem {
        match self {
            Self::Base { base, disp } => Mem::new(Some(base), Some((reg::R10, 0)), disp),
            Self::Host => Mem::base(reg::R9, 0),
        }
    }
    /// The one of R9 and R10 that is free now.
    pub(super) fn spare(self) -> u8 {
        match self {
            Self::Base { .. } => reg::R9,
            Self::Host => reg::R10,
        }
    }
    /// Scratch registers that are free now.
    pub(super) fn free(self) -> &'static [u8] {
        match self {
            Self::Base { .. } => &[reg::R11],
            Self::Host => &[reg::R11, reg::R10],
        }
    }
}

impl Emitter<'_> {
    /// The TLB check of an access to the address in R9.
    pub(super) fn check(&mut self, size: u32, way: Way, reached: Reached) {
        self.held = None;
        let class = self.source.mode.class();
        let retry = self.here();
        let slow = self.checks.emit(&mut self.asm, (class, way.writes(), size), reached);
        self.leave_later(slow, Site::Access { rip: self.rip, retry, way });
    }
    pub(super) fn load_addend(&mut self) {
        self.asm.load(reg::R10, Mem::indexed(at::addends(self.source.mode.class()), reg::R10));
    }
    /// Checks `[base + disp]` and reaches it by its base. The flags have been given up.
    pub(super) fn based(&mut self, base: u8, disp: i32, size: u32, write: bool) -> Reach {
        self.based_by(base, disp, size, Way::of(write, write))
    }
    pub(super) fn based_by(&mut self, base: u8, disp: i32, size: u32, way: Way) -> Reach {
        self.address_of(base, disp);
        self.check(size, way, Reached::ByAddend);
        Reach::Base { base, disp }
    }
    /// `base + disp` in R9.
    pub(super) fn address_of(&mut self, base: u8, disp: i32) {
        if disp == 0 {
            self.asm.mov(reg::R9, base);
        } else {
            self.asm.lea(true, reg::R9, Mem::base(base, disp));
        }
    }

    /// Checks `[base + disp]` on the stack. The flags have been given up.
    pub(super) fn on_stack(&mut self, base: u8, disp: i32, size: u32, write: bool) -> Reach {
        let width = self.source.mode.stack_pointer();
        if width == 8 && base == reg::R15 {
            return self.in_run(disp, size, write);
        }
        if width == 8 {
            return self.based(base, disp, size, write);
        }
        self.asm.lea(false, reg::R9, Mem::base(base, disp));
        self.wrap(width);
        self.reach_host(Register::SS, size, write)
    }
    /// RSP becomes `base + disp`, as wide as the stack pointer is.
    pub(super) fn set_stack_pointer(&mut self, base: u8, disp: i32) {
        let width = self.source.mode.stack_pointer();
        self.asm.lea_sized(width, reg::R15, Mem::base(base, disp));
    }
    /// Makes an address of 16 bits of the sum in R9.
    fn wrap(&mut self, bytes: u32) {
        if bytes == 2 {
            self.asm.zero_extend(2, reg::R9, reg::R9);
        }
    }

    /// Checks the explicit memory operand. `kept`: how many scratch registers the instruction
    /// needs besides. The flags have been given up.
    pub(super) fn operand(&mut self, guest: &Guest, kept: usize) -> Result<Reach, NotEncodable> {
        let instruction = &guest.instruction;
        let Some(access) = guest.access else { return Err(NotEncodable) };
        let base = instruction.memory_base();
        let flat = self.source.mode.is_flat(segment(instruction.memory_segment()));
        let simple = base.is_gpr64()
            && !is_homed(number(base))
            && instruction.memory_index() == Register::None
            && flat;
        if simple && kept <= 1 {
            let (base, disp) = (host_of(number(base)), instruction.memory_displacement64() as i32);
            self.anchored(guest, access, base);
            return Ok(Reach::Base { base, disp });
        }
        if flat && let Some(va) = constant_address(instruction) {
            self.check_constant(va, access.size, access.write);
        } else {
            self.address(instruction, reg::R9, 8)?;
            self.reach_host(instruction.memory_segment(), access.size, access.write);
        }
        self.hold_host(guest, access);
        Ok(Reach::Host)
    }
    /// The check of an address that is known now, and so is its entry in the TLB:
    ///
    /// ```text
    ///     mov   r9, va
    ///     sub   r9, [rsp + tag]
    ///     cmp   r9, 4096 - size
    ///     ja    slow                     ; which puts the index into r10
    ///     add   r9, [rsp + host]
    /// ```
    fn check_constant(&mut self, va: u64, size: u32, write: bool) {
        self.held = None;
        let class = self.source.mode.class();
        let tags = if write { at::write_tags(class) } else { at::read_tags(class) };
        let index = tlb_index(va).wrapping_mul(size_of::<TlbEntry>());
        let entry = |table: usize| Mem::state(table.wrapping_add(index));
        self.asm.mov_imm(reg::R9, va);
        let retry = self.here();
        self.asm.op_mem(true, &[0x2B], reg::R9, entry(tags)); // sub
        is_within(&mut self.asm, reg::R9, size, 0);
        let slow = self.asm.jcc(Condition::Above);
        let site = Site::Access { rip: self.rip, retry, way: Way::of(write, write) };
        let flags = self.flags;
        self.later.push(Later::LeaveIndexed { from: slow, index: index as u32, site, flags });
        self.asm.op_mem(true, &[0x03], reg::R9, entry(at::hosts(class))); // add
    }
    /// Checks the operand whose effective address is in R9.
    pub(super) fn reach_host(&mut self, segment: Register, size: u32, write: bool) -> Reach {
        self.add_segment(segment, size, write);
        self.check(size, Way::of(write, write), Reached::ByHost);
        Reach::Host
    }
    /// From the effective address in R9 to the linear one, by way of R10.
    fn add_segment(&mut self, register: Register, size: u32, write: bool) {
        let seg = segment(register);
        if self.source.mode.is_flat(seg) {
            return;
        }
        let wide = self.source.mode.bits() == 64;
        if !wide {
            self.asm.lea(true, reg::R10, Mem::base(reg::R9, size.wrapping_sub(1) as i32));
            let limit = Mem::state(at::segment_limit(seg, write));
            self.asm.op_mem(true, &[0x3B], reg::R10, limit); // cmp
            let refused = self.asm.jcc(Condition::Greater);
            self.leave_later(refused, Site::Refused { rip: self.rip });
        }
        self.asm.op_mem(wide, &[0x03], reg::R9, Mem::state(at::segment_base(seg))); // add
    }

    /// The effective address, without the segment's base, in `to`: its lower 8, 4 or 2 bytes, the
    /// rest of the 8 bytes zero. By way of R9 and R10. Leaves the flags alone.
    pub(super) fn address(
        &mut self,
        instruction: &Instruction,
        to: u8,
        bytes: u32,
    ) -> Result<(), NotEncodable> {
        let base = instruction.memory_base();
        let index = instruction.memory_index();
        let disp = instruction.memory_displacement64();
        if base == Register::EIP {
            return Err(NotEncodable);
        }
        if base == Register::RIP || !(base.is_gpr() || index.is_gpr()) {
            // Sign-extended, or with a prefix for 32-bit addresses zero-extended: iced did that.
            self.asm.mov_imm(to, disp & mask(bytes.min(address_size(instruction))));
            return Ok(());
        }
        let own = address_size(instruction);
        let base = self.part(base, reg::R9);
        let index = self.part(index, reg::R10);
        let shift = instruction.memory_index_scale().trailing_zeros() as u8;
        let mem = Mem::new(base, index.map(|index| (index, shift)), disp as i32);
        let bytes = bytes.min(own);
        self.asm.lea(bytes == 8, to, mem);
        if bytes == 2 {
            self.asm.zero_extend(2, to, to);
        }
        Ok(())
    }
    /// The host register with this part of an address; `scratch` if it has to be loaded.
    pub(super) fn part(&mut self, register: Register, scratch: u8) -> Option<u8> {
        if register == Register::None {
            return None;
        }
        let guest = number(register);
        if is_homed(guest) {
            self.overwrites(scratch);
            self.asm.load(scratch, Mem::state(at::homed(guest)));
            return Some(scratch);
        }
        Some(host_of(guest))
    }
}
