//! Descriptors and the checks that loading one makes (SDM vol. 3A §5).

use kasane_cpu::{DescriptorTable, Seg, SegmentRegister};
use kasane_spec_x86::descriptor::{access, system};
use kasane_spec_x86::vector;

use super::structures::Width;
use crate::cpu::{Cpu, Stop};

/// A descriptor as read from a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) low: u64,
    /// Upper half of a 16-byte descriptor, else 0.
    pub(crate) high: u64,
    /// Linear address.
    pub(crate) address: u64,
}

impl Descriptor {
    pub(crate) const fn access(&self) -> u16 {
        (self.low >> 40) as u16 & 0xF0FF
    }
    pub(crate) const fn kind(&self) -> u8 {
        (self.low >> 40) as u8 & 0xF
    }
    pub(crate) const fn dpl(&self) -> u8 {
        (self.low >> 45) as u8 & 3
    }
    pub(crate) const fn present(&self) -> bool {
        self.low >> 47 & 1 != 0
    }
    /// Code or data, not system.
    pub(crate) const fn is_segment(&self) -> bool {
        self.low >> 44 & 1 != 0
    }
    pub(crate) const fn is_code(&self) -> bool {
        self.is_segment() && self.access() & access::CODE != 0
    }
    pub(crate) const fn conforming(&self) -> bool {
        self.access() & access::DC != 0
    }
    /// Readable data or code.
    pub(crate) const fn readable(&self) -> bool {
        self.is_segment() && (!self.is_code() || self.access() & access::RW != 0)
    }
    /// Writable data.
    pub(crate) const fn writable(&self) -> bool {
        self.is_segment() && !self.is_code() && self.access() & access::RW != 0
    }
    /// 64-bit code as long mode wants it: L set, D clear.
    pub(crate) const fn is_code64(&self) -> bool {
        self.access() & (access::L | access::DB) == access::L
    }
    pub(crate) const fn base(&self) -> u64 {
        (self.low >> 16 & 0xFF_FFFF) | (self.low >> 56 << 24) | (self.high << 32)
    }
    /// Limit in bytes.
    pub(crate) const fn limit(&self) -> u32 {
        let raw = (self.low & 0xFFFF) as u32 | (self.low >> 32 & 0xF_0000) as u32;
        if self.access() & access::G != 0 { raw << 12 | 0xFFF } else { raw }
    }
    /// A segment register loaded with this descriptor. An expand-down limit counts too.
    pub(crate) const fn register(&self, selector: u16) -> SegmentRegister {
        SegmentRegister { selector, access: self.access(), limit: self.limit(), base: self.base() }
    }
    // --- gates ---
    pub(crate) const fn gate_selector(&self) -> u16 {
        (self.low >> 16) as u16
    }
    /// The entry point of a gate; 16-bit gates have no upper half.
    pub(crate) const fn gate_offset(&self) -> u64 {
        let low = self.low & 0xFFFF;
        if self.kind() & 8 == 0 {
            return low;
        }
        low | (self.low >> 32 & 0xFFFF_0000) | (self.high << 32)
    }
    /// Items that a call gate copies.
    pub(crate) const fn gate_parameters(&self) -> u64 {
        self.low >> 32 & 31
    }
    /// Interrupt stack table index.
    pub(crate) const fn gate_ist(&self) -> u64 {
        self.low >> 32 & 7
    }
    /// Width of what a gate pushes.
    pub(crate) const fn gate_width(&self) -> Width {
        if self.kind() & 8 != 0 { Width::W32 } else { Width::W16 }
    }
    /// An available or busy TSS: 32-bit (64-bit in long mode) or 16-bit.
    pub(crate) const fn tss_width(&self) -> Width {
        if self.kind() & 8 != 0 { Width::W32 } else { Width::W16 }
    }
}

/// The error code for a selector: the index with the LDT bit, and EXT.
pub(crate) const fn selector_error(selector: u16, ext: u32) -> u32 {
    (selector & !3) as u32 | ext
}

/// A null selector has index 0 of the GDT, whatever its RPL.
pub(crate) const fn is_null(selector: u16) -> bool {
    selector & !3 == 0
}

/// Requested privilege level.
pub(crate) const fn rpl(selector: u16) -> u8 {
    (selector & 3) as u8
}

/// An unusable segment register.
pub(crate) const fn null_segment(selector: u16) -> SegmentRegister {
    SegmentRegister { selector, access: 0, limit: 0, base: 0 }
}

/// A null SS, which still carries the CPL.
pub(crate) const fn null_stack(selector: u16, cpl: u8) -> SegmentRegister {
    SegmentRegister { selector, access: (cpl as u16) << access::DPL_SHIFT, limit: 0, base: 0 }
}

/// A segment in virtual-8086 mode.
pub(crate) const fn v86_segment(selector: u16) -> SegmentRegister {
    SegmentRegister { selector, access: 0xF3, limit: 0xFFFF, base: (selector as u64) << 4 }
}

/// What a failed check raises: #GP for programs, #TS where the selector comes from a TSS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blame {
    pub(crate) vector: u8,
    pub(crate) ext: u32,
}

impl Blame {
    pub(crate) const PROGRAM: Self = Self { vector: vector::GP, ext: 0 };
}

impl Cpu {
    pub(crate) fn np(&mut self, error: u32) -> Stop {
        self.raise(vector::NP, Some(error))
    }
    pub(crate) fn ts(&mut self, error: u32) -> Stop {
        self.raise(vector::TS, Some(error))
    }
    pub(crate) fn blame(&mut self, blame: Blame, selector: u16) -> Stop {
        self.raise(blame.vector, Some(selector_error(selector, blame.ext)))
    }

    fn table(&self, selector: u16) -> Option<DescriptorTableWide> {
        if selector & 4 == 0 {
            let DescriptorTable { base, limit } = self.state.gdtr;
            return Some(DescriptorTableWide { base, limit: u64::from(limit) });
        }
        let ldt = &self.state.ldtr;
        ldt.present().then(|| DescriptorTableWide { base: ldt.base, limit: u64::from(ldt.limit) })
    }
    /// The 8-byte descriptor of a selector; `None` outside of its table.
    pub(crate) fn descriptor(&mut self, selector: u16) -> Result<Option<Descriptor>, Stop> {
        let index = u64::from(selector & !7);
        let Some(table) = self.table(selector) else { return Ok(None) };
        if index.wrapping_add(7) > table.limit {
            return Ok(None);
        }
        let address = table.base.wrapping_add(index);
        let low = self.system_read(address)?;
        Ok(Some(Descriptor { low, high: 0, address }))
    }
    /// Reads the second half of a system descriptor in long mode (16 bytes); the type field
    /// there must be zero. `None` if that is not so or the table ends before.
    pub(crate) fn widen_descriptor(
        &mut self,
        selector: u16,
        found: Descriptor,
    ) -> Result<Option<Descriptor>, Stop> {
        if !self.long_mode() {
            return Ok(Some(found));
        }
        let index = u64::from(selector & !7);
        let Some(table) = self.table(selector) else { return Ok(None) };
        if index.wrapping_add(15) > table.limit {
            return Ok(None);
        }
        let high: u64 = self.system_read(found.address.wrapping_add(8))?;
        if high >> 40 & 0x1F != 0 {
            return Ok(None);
        }
        Ok(Some(Descriptor { high: high & 0xFFFF_FFFF, ..found }))
    }
    /// Sets the accessed bit of a code or data descriptor.
    pub(crate) fn mark_accessed(&mut self, d: &Descriptor) -> Result<(), Stop> {
        if d.low >> 40 & 1 != 0 {
            return Ok(());
        }
        self.system_update(d.address.wrapping_add(5), |old| old | 1)
    }
    /// Sets or clears the busy bit of a TSS descriptor.
    pub(crate) fn mark_busy(&mut self, address: u64, busy: bool) -> Result<(), Stop> {
        let bit = 2;
        let change = move |old: u8| if busy { old | bit } else { old & !bit };
        self.system_update(address.wrapping_add(5), change)
    }

    /// Checks for loading DS, ES, FS or GS (SDM vol. 3A §5.5), and the value to load.
    pub(crate) fn load_data(
        &mut self,
        selector: u16,
        blame: Blame,
    ) -> Result<SegmentRegister, Stop> {
        if is_null(selector) {
            return Ok(null_segment(selector));
        }
        let Some(d) = self.descriptor(selector)? else {
            return Err(self.blame(blame, selector));
        };
        let outside = d.dpl() < self.cpl().max(rpl(selector));
        if !d.readable() || (!(d.is_code() && d.conforming()) && outside) {
            return Err(self.blame(blame, selector));
        }
        if !d.present() {
            return Err(self.np(selector_error(selector, blame.ext)));
        }
        self.mark_accessed(&d)?;
        let mut register = d.register(selector);
        register.access |= access::ACCESSED;
        Ok(register)
    }
    /// Checks for loading SS at privilege level `cpl` (SDM vol. 3A §5.7); null is not allowed.
    pub(crate) fn load_stack(
        &mut self,
        selector: u16,
        cpl: u8,
        blame: Blame,
    ) -> Result<SegmentRegister, Stop> {
        if is_null(selector) {
            return Err(self.raise(blame.vector, Some(blame.ext)));
        }
        let Some(d) = self.descriptor(selector)? else {
            return Err(self.blame(blame, selector));
        };
        if rpl(selector) != cpl || d.dpl() != cpl || !d.writable() {
            return Err(self.blame(blame, selector));
        }
        if !d.present() {
            return Err(self.ss(selector_error(selector, blame.ext)));
        }
        self.mark_accessed(&d)?;
        let mut register = d.register(selector);
        register.access |= access::ACCESSED;
        Ok(register)
    }
    /// Checks that a code segment may be entered; `allowed` is the privilege check's answer.
    pub(crate) fn check_code(
        &mut self,
        selector: u16,
        d: &Descriptor,
        allowed: bool,
        blame: Blame,
    ) -> Result<(), Stop> {
        let both = access::L | access::DB;
        let bad_long = self.long_mode() && d.access() & both == both;
        if !d.is_code() || !allowed || bad_long {
            return Err(self.blame(blame, selector));
        }
        if !d.present() {
            return Err(self.np(selector_error(selector, blame.ext)));
        }
        Ok(())
    }
    /// The CS value for a checked code descriptor at privilege level `cpl`.
    pub(crate) fn code_register(
        &mut self,
        selector: u16,
        d: &Descriptor,
        cpl: u8,
    ) -> Result<SegmentRegister, Stop> {
        self.mark_accessed(d)?;
        let mut register = d.register(selector & !3 | u16::from(cpl));
        register.access |= access::ACCESSED;
        Ok(register)
    }
    /// Checks an entry point: canonical in 64-bit code, else inside the limit.
    pub(crate) fn check_target(
        &mut self,
        cs: &SegmentRegister,
        rip: u64,
        ext: u32,
    ) -> Result<(), Stop> {
        let good = if self.long_mode() && cs.long() {
            Self::canonical(rip)
        } else {
            rip <= u64::from(cs.limit)
        };
        if good { Ok(()) } else { Err(self.gp(ext)) }
    }
    /// Goes to code: CS, and RIP after this instruction.
    pub(crate) fn enter_code(&mut self, cs: SegmentRegister, rip: u64) {
        self.state.cs = cs;
        self.next_rip = rip;
        self.refresh_mode();
    }
    /// A selector load in real mode: limit and size stay ("unreal" mode), type is plain data.
    pub(crate) fn real_segment(&self, seg: Seg, selector: u16) -> SegmentRegister {
        if self.v86() {
            return v86_segment(selector);
        }
        let old = self.seg(seg);
        let kept = old.access & (access::DB | access::G);
        // Also CS is writable data: after a switch to protected mode that lasts until the first
        // far jump.
        SegmentRegister {
            selector,
            access: 0x93 | kept,
            limit: old.limit,
            base: u64::from(selector) << 4,
        }
    }
    /// Nulls the data segments that an outer privilege level must not keep (SDM RET, IRET).
    pub(crate) fn drop_inner_segments(&mut self, cpl: u8) {
        for seg in [Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs] {
            let s = self.state.seg_mut(seg);
            let conforming = s.access & access::CODE != 0 && s.access & access::DC != 0;
            if s.present() && !conforming && s.dpl() < cpl {
                *s = null_segment(0);
            }
        }
    }
}

struct DescriptorTableWide {
    base: u64,
    limit: u64,
}

/// Whether a system descriptor is a TSS that can be switched to.
pub(crate) const fn is_available_tss(d: &Descriptor) -> bool {
    !d.is_segment() && matches!(d.kind(), system::TSS16_AVAILABLE | system::TSS32_AVAILABLE)
}
