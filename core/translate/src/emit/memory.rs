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

use iced_x86::{Instruction, Register};

use super::names::{host_of, is_homed, number};
use super::{Emitter, NotEncodable, Site};
use crate::asm::{Condition, Mem, reg};
use crate::guest::Guest;
use crate::layout::{TLB_INDEX, at};

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
            Self::Base { base, disp } => Mem { base: Some(base), index: Some((reg::R10, 0)), disp },
            Self::Host => Mem::base(reg::R9, 0),
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
    pub(super) fn check(&mut self, size: u32, write: bool) {
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
    pub(super) fn add_host(&mut self) {
        let hosts = at::hosts(self.source.class);
        self.asm.op_mem(true, &[0x03], reg::R9, Mem::table(hosts, reg::R10));
    }
    pub(super) fn load_addend(&mut self) {
        self.asm.load(reg::R10, Mem::table(at::addends(self.source.class), reg::R10));
    }
    /// Checks `[base + disp]` and reaches it by its base. The flags have been given up.
    pub(super) fn based(&mut self, base: u8, disp: i32, size: u32, write: bool) -> Reach {
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
    pub(super) fn operand(&mut self, guest: &Guest, homed: usize) -> Result<Reach, NotEncodable> {
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
        self.add_segment_of(instruction);
        self.check(access.size, access.write);
        self.add_host();
        Ok(Reach::Host)
    }
    /// Adds the segment's base to R9.
    pub(super) fn add_segment_of(&mut self, instruction: &Instruction) {
        match instruction.memory_segment() {
            Register::FS => self.add_segment(0),
            Register::GS => self.add_segment(1),
            _ => {}
        }
    }
    fn add_segment(&mut self, which: usize) {
        self.asm.op_mem(true, &[0x03], reg::R9, Mem::state(at::segment_base(which)));
    }

    /// The effective address, without the segment's base, in `to`: all of it or the lower half.
    /// By way of R9 and R10. Leaves the flags alone.
    pub(super) fn address(
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
    pub(super) fn part(&mut self, register: Register, scratch: u8) -> Option<u8> {
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
}
