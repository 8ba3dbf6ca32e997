//! What a block is made for: all that its code depends on and that its bytes don't say.
//!
//! | bits | what |
//! |---|---|
//! | 0, 1 | privilege class of data accesses |
//! | 2, 3 | SSE, AVX are on and wanted |
//! | 4, 5 | code size: 64, 32, 16 bits |
//! | 6 | the stack pointer has 32 bits, not 16 (outside 64-bit code) |
//! | 7, 8, 9 | ES, SS, DS: base 0, the whole 4 GiB, readable and writable (outside 64-bit code) |
//! | 10 | SYSCALL is on (in 64-bit code) |
//! | 11 | SMAP is on (in 64-bit code) |
//! | 12 | RDFSBASE and its like are on (in 64-bit code) |
//! | 13 | CS has base 0 |
//!
//! Other segments, and these three where they are not flat, have base and limits in the state
//! block, so that blocks don't depend on them. Where CS has a base, it is in no mode:
//! a block knows its RIP and its physical address, and jumps between blocks without a look-up stay
//! within a page.

use kasane_cpu::{Seg, SegmentRegister};
use kasane_interp::cpu::{CodeSize, Cpu};
use kasane_memory::TlbClass;
use kasane_spec_x86::control::{cr0, cr4, efer};
use kasane_spec_x86::descriptor::access;

use crate::guest::System;

const SSE: u16 = 1 << 2;
const AVX: u16 = 1 << 3;
const CODE: u16 = 3 << 4;
const CODE32: u16 = 1 << 4;
const CODE16: u16 = 2 << 4;
const STACK32: u16 = 1 << 6;
const SYSCALL: u16 = 1 << 10;
const SMAP: u16 = 1 << 11;
const FSGSBASE: u16 = 1 << 12;
const FLAT_CODE: u16 = 1 << 13;
const FLAT: [(Seg, u16); 3] = [(Seg::Es, 1 << 7), (Seg::Ss, 1 << 8), (Seg::Ds, 1 << 9)];

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Mode(u16);

impl Mode {
    /// As it is hashed.
    pub(crate) fn number(self) -> u64 {
        self.0.into()
    }
    /// What no block is made for.
    pub(crate) const NONE: Self = Self(u16::MAX);

    /// The processor's mode; `None` if the interpreter has to do it: while alignment is checked,
    /// in rings 1 and 2, in virtual-8086 mode, and where the code segment has an unusual limit.
    /// `vectors`: vector instructions are to be translated where they are on.
    pub(crate) fn of(cpu: &Cpu, vectors: bool) -> Option<Self> {
        if cpu.alignment_checked() || !matches!(cpu.mode.cpl, 0 | 3) {
            return None;
        }
        let mut mode = cpu.mode.data as u16;
        mode |= if linear(cpu, 0) == 0 { FLAT_CODE } else { 0 };
        let s = &cpu.state;
        if vectors && s.cr0 & (cr0::EM | cr0::TS) == 0 && s.cr4 & cr4::OSFXSR != 0 {
            mode |= SSE;
            if s.cr4 & cr4::OSXSAVE != 0 && s.xcr0 & 6 == 6 {
                mode |= AVX;
            }
        }
        let (code, end) = match cpu.mode.code {
            CodeSize::Bits64 => {
                mode |= if s.efer & efer::SCE != 0 { SYSCALL } else { 0 };
                mode |= if s.cr4 & cr4::SMAP != 0 { SMAP } else { 0 };
                mode |= if s.cr4 & cr4::FSGSBASE != 0 { FSGSBASE } else { 0 };
                return Some(Self(mode));
            }
            CodeSize::Bits32 => (CODE32, u32::MAX),
            CodeSize::Bits16 => (CODE16, 0xFFFF),
        };
        if cpu.v86() || s.cs.limit < end {
            return None;
        }
        mode |= code;
        if s.ss.big() {
            mode |= STACK32;
        }
        for (seg, bit) in FLAT {
            let n = seg as usize;
            if cpu.mode.plain.get(n) == Some(&3) && cpu.mode.base.get(n) == Some(&0) {
                mode |= bit;
            }
        }
        Some(Self(mode))
    }

    /// By the bits in the module's table.
    #[cfg(test)]
    pub(crate) fn of_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// Whether a sensitive instruction can be done in place.
    pub(crate) fn takes(self, system: System) -> bool {
        let ring0 = self.class() != TlbClass::User as usize;
        let wide = self.bits() == 64;
        match system {
            System::Syscall => wide && !ring0 && self.0 & SYSCALL != 0,
            System::Sysret => wide && ring0 && self.0 & SYSCALL != 0,
            System::Stac | System::Clac => wide && ring0 && self.0 & SMAP != 0,
            System::Swapgs => wide && ring0,
            System::ReadBase(_) | System::WriteBase(_) => wide && self.0 & FSGSBASE != 0,
            System::Cli | System::Sti | System::Popf => ring0,
            System::ReadControl(_) => wide && ring0,
            System::Pushf
            | System::ReadSelector(_)
            | System::ReadSelector16(_)
            | System::StoreSelector(_)
            | System::ReadTime(_)
            | System::Direction(_) => true,
        }
    }
    /// Whether both are 64-bit code that differs in its privilege class and the use of vectors
    /// only.
    pub(crate) fn is_beside(self, other: Self) -> bool {
        let class_and_vectors = 3 | SSE | AVX;
        self != Self::NONE && self.bits() == 64 && (self.0 ^ other.0) & !class_and_vectors == 0
    }

    /// Privilege class of data accesses, by [`kasane_memory::TlbClass`].
    pub(crate) fn class(self) -> usize {
        usize::from(self.0 & 3)
    }
    /// What its code is decoded as: 64, 32 or 16.
    pub(crate) fn bits(self) -> u32 {
        match self.0 & CODE {
            CODE32 => 32,
            CODE16 => 16,
            _ => 64,
        }
    }
    /// Bytes of a near return address.
    pub(crate) fn word(self) -> u32 {
        self.bits() / 8
    }
    /// Bytes of the stack pointer.
    pub(crate) fn stack_pointer(self) -> u32 {
        match (self.bits(), self.0 & STACK32) {
            (64, _) => 8,
            (_, 0) => 2,
            _ => 4,
        }
    }
    /// Whether accesses by a segment need neither its base nor its limit.
    pub(crate) fn is_flat(self, seg: Seg) -> bool {
        match self.bits() {
            64 => !matches!(seg, Seg::Fs | Seg::Gs),
            _ => FLAT.iter().any(|(flat, bit)| *flat == seg && self.0 & bit != 0),
        }
    }
    /// Whether a RIP is a linear address.
    pub(crate) fn has_flat_code(self) -> bool {
        self.0 & FLAT_CODE != 0
    }
    /// First RIP that no code is translated for. The last byte of the 4 GiB is left out, so that
    /// the address behind an instruction needs no wrapping.
    pub(crate) fn code_end(self) -> u64 {
        match self.bits() {
            64 => u64::MAX,
            32 => 0xFFFF_FFFF,
            _ => 0x1_0000,
        }
    }
    /// Whether the guest's vector registers are in the host's.
    pub(crate) fn has_vectors(self) -> bool {
        self.0 & SSE != 0
    }
    /// Whether instructions with a VEX prefix, or other vector instructions, may run.
    pub(crate) fn runs_vectors(self, vex: bool) -> bool {
        self.0 & if vex { AVX } else { SSE } != 0
    }
}

/// The last byte of a segment that may be read, and written, outside 64-bit code (SDM vol. 3A
/// §5.3, §5.5); -1 where none may, and for segments that expand down, which are rare.
pub(crate) fn segment_limits(cpu: &Cpu, segment: &SegmentRegister) -> [i64; 2] {
    let has = |bit: u16| segment.access & bit != 0;
    let is_code = has(access::CODE);
    if !segment.present() || !is_code && has(access::DC) {
        return [-1; 2];
    }
    let (readable, writable) = match (cpu.protected(), is_code) {
        (false, _) => (true, true),
        (true, true) => (has(access::RW), false),
        (true, false) => (true, has(access::RW)),
    };
    let limit = i64::from(segment.limit);
    [if readable { limit } else { -1 }, if writable { limit } else { -1 }]
}

/// The linear address of code.
pub(crate) fn linear(cpu: &Cpu, rip: u64) -> u64 {
    let base = cpu.mode.base.get(1).copied().unwrap_or(0);
    base.wrapping_add(rip) & cpu.mode.linear_mask
}
