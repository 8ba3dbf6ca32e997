//! The processor's accesses to its own structures: descriptor tables, TSS, stacks.
//!
//! They are supervisor accesses whatever the CPL is (SDM vol. 3A §4.6.1 "implicit"), and they
//! never ask the machine: a table that lies in MMIO reads as all ones and writes to it are lost.
//! So delivery of an exception is never left half done.

use kasane_cpu::paging::Access;
use kasane_cpu::{Gpr, Seg, SegmentRegister};
use kasane_memory::{Scalar, Stored, TlbClass};
use kasane_spec_x86::descriptor::access as rights;

use crate::cpu::{Cpu, Stop};

const OFFSET: u64 = 4095;

/// Bytes of one item on a stack or of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Width {
    /// 16 bits.
    W16,
    /// 32 bits.
    W32,
    /// 64 bits.
    W64,
}

impl Width {
    pub(crate) const fn bytes(self) -> u64 {
        match self {
            Self::W16 => 2,
            Self::W32 => 4,
            Self::W64 => 8,
        }
    }
    pub(crate) const fn mask(self) -> u64 {
        match self {
            Self::W16 => 0xFFFF,
            Self::W32 => 0xFFFF_FFFF,
            Self::W64 => u64::MAX,
        }
    }
}

impl Cpu {
    /// Linear addresses of system structures: 64 bits wide in all of long mode.
    fn system_address(&mut self, va: u64) -> Result<u64, Stop> {
        if !self.long_mode() {
            return Ok(va & 0xFFFF_FFFF);
        }
        if Self::canonical(va) { Ok(va) } else { Err(self.gp(0)) }
    }
    /// Reads a system structure.
    pub(crate) fn system_read<T: Scalar>(&mut self, va: u64) -> Result<T, Stop> {
        self.structure_read(va, TlbClass::Supervisor)
    }
    /// Writes a system structure.
    pub(crate) fn system_write<T: Scalar>(&mut self, va: u64, value: T) -> Result<(), Stop> {
        self.structure_write(va, value, TlbClass::Supervisor)
    }
    fn structure_read<T: Scalar>(&mut self, va: u64, class: TlbClass) -> Result<T, Stop> {
        let va = self.system_address(va)?;
        if let Some(value) = self.tlb.read(class, va) {
            return Ok(value);
        }
        if (va & OFFSET).wrapping_add(T::SIZE as u64) <= 4096 {
            self.translate_fill(va, Access::Read, class)?;
            return Ok(self.tlb.read(class, va).unwrap_or(T::truncate(u128::MAX)));
        }
        let mut bytes = [0u8; 16];
        for (i, byte) in (0..T::SIZE as u64).zip(&mut bytes) {
            *byte = self.structure_read::<u8>(va.wrapping_add(i), class)?;
        }
        Ok(T::truncate(u128::from_le_bytes(bytes)))
    }
    fn structure_write<T: Scalar>(
        &mut self,
        va: u64,
        value: T,
        class: TlbClass,
    ) -> Result<(), Stop> {
        let va = self.system_address(va)?;
        if (va & OFFSET).wrapping_add(T::SIZE as u64) > 4096 {
            let last = va.wrapping_add(T::SIZE as u64).wrapping_sub(1);
            self.system_probe_class(last, 1, class)?;
            for (i, byte) in (0..T::SIZE as u64).zip(value.widen().to_le_bytes()) {
                self.structure_write(va.wrapping_add(i), byte, class)?;
            }
            return Ok(());
        }
        let mut stored = self.tlb.write(class, va, value);
        if stored.is_none() {
            self.translate_fill(va, Access::Write, class)?;
            stored = self.tlb.write(class, va, value);
        }
        self.code_written |= stored == Some(Stored::Code);
        Ok(())
    }
    /// Checks that `len` bytes (at most a page) of a system structure can be written.
    pub(crate) fn system_probe(&mut self, va: u64, len: u64) -> Result<(), Stop> {
        self.system_probe_class(va, len, TlbClass::Supervisor)
    }
    fn system_probe_class(&mut self, va: u64, len: u64, class: TlbClass) -> Result<(), Stop> {
        let first = self.system_address(va)?;
        self.translate_fill(first, Access::Write, class)?;
        let last = self.system_address(va.wrapping_add(len.wrapping_sub(1)))?;
        if (first ^ last) & !OFFSET != 0 {
            self.translate_fill(last, Access::Write, class)?;
        }
        Ok(())
    }
    /// Changes one byte of a system structure, atomically.
    pub(crate) fn system_update(&mut self, va: u64, change: impl Fn(u8) -> u8) -> Result<(), Stop> {
        let va = self.system_address(va)?;
        let class = TlbClass::Supervisor;
        self.translate_fill(va, Access::Write, class)?;
        while let Some(old) = self.tlb.read::<u8>(class, va) {
            match self.tlb.compare_exchange(class, va, old, change(old)) {
                Some((found, stored)) if found == old => {
                    self.code_written |= stored == Stored::Code;
                    break;
                }
                Some(_) => {}
                None => break,
            }
        }
        Ok(())
    }
}

/// Who uses a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// The program, by an instruction: all rules of operands.
    Program,
    /// The processor, while it delivers an event or changes stacks.
    Processor(TlbClass),
}

/// A stack that is written or read without moving RSP, until all has succeeded.
pub(crate) struct Stack {
    segment: SegmentRegister,
    /// 64-bit: no segment.
    flat: bool,
    mask: u64,
    /// Where it stands now.
    pub(crate) sp: u64,
    route: Route,
    /// Error code of a stack fault.
    error: u32,
}

impl Stack {
    /// The current stack, for an instruction.
    pub(crate) fn program(cpu: &Cpu) -> Self {
        Self {
            segment: cpu.state.ss,
            flat: cpu.code64(),
            mask: cpu.mode.stack_mask,
            sp: cpu.stack_pointer(),
            route: Route::Program,
            error: 0,
        }
    }
    /// The current stack, for the delivery of an event.
    pub(crate) fn current(cpu: &Cpu, error: u32) -> Self {
        Self { route: Route::Processor(cpu.mode.data), error, ..Self::program(cpu) }
    }
    /// A stack that is switched to, with supervisor rights or, for ring 3, the user's.
    pub(crate) fn legacy(cpu: &Cpu, segment: SegmentRegister, sp: u64, error: u32) -> Self {
        let mask = if segment.big() { 0xFFFF_FFFF } else { 0xFFFF };
        let class = if segment.dpl() == 3 { TlbClass::User } else { inner(cpu) };
        let route = Route::Processor(class);
        Self { segment, flat: false, mask, sp: sp & mask, route, error }
    }
    /// A 64-bit stack that is switched to.
    pub(crate) fn long(cpu: &Cpu, rsp: u64, cpl: u8, error: u32) -> Self {
        let class = if cpl == 3 { TlbClass::User } else { inner(cpu) };
        Self {
            segment: SegmentRegister::default(),
            flat: true,
            mask: u64::MAX,
            sp: rsp,
            route: Route::Processor(class),
            error,
        }
    }

    fn address(&self, cpu: &mut Cpu, offset: u64, len: u64) -> Result<u64, Stop> {
        if self.flat {
            let last = offset.wrapping_add(len.wrapping_sub(1));
            if Cpu::canonical(offset) && Cpu::canonical(last) {
                return Ok(offset);
            }
            return Err(cpu.ss(self.error));
        }
        let present = !cpu.protected() || self.segment.present();
        if !present || !in_limit(&self.segment, offset, len) {
            return Err(cpu.ss(self.error));
        }
        Ok(self.segment.base.wrapping_add(offset) & 0xFFFF_FFFF)
    }
    fn write<T: Scalar>(&self, cpu: &mut Cpu, offset: u64, value: T) -> Result<(), Stop> {
        match self.route {
            Route::Program => cpu.write(Seg::Ss, offset, value),
            Route::Processor(class) => {
                let va = self.address(cpu, offset, T::SIZE as u64)?;
                cpu.structure_write(va, value, class)?;
                cpu.watch(va, T::SIZE as u64, true);
                Ok(())
            }
        }
    }
    fn read<T: Scalar>(&self, cpu: &mut Cpu, offset: u64) -> Result<T, Stop> {
        match self.route {
            Route::Program => cpu.read(Seg::Ss, offset),
            Route::Processor(class) => {
                let va = self.address(cpu, offset, T::SIZE as u64)?;
                cpu.structure_read(va, class)
            }
        }
    }
    /// Pushes the low bits of `value`.
    pub(crate) fn push(&mut self, cpu: &mut Cpu, width: Width, value: u64) -> Result<(), Stop> {
        let sp = self.sp.wrapping_sub(width.bytes()) & self.mask;
        match width {
            Width::W16 => self.write(cpu, sp, value as u16)?,
            Width::W32 => self.write(cpu, sp, value as u32)?,
            Width::W64 => self.write(cpu, sp, value)?,
        }
        self.sp = sp;
        Ok(())
    }
    /// Pops, zero-extended.
    pub(crate) fn pop(&mut self, cpu: &mut Cpu, width: Width) -> Result<u64, Stop> {
        let value = match width {
            Width::W16 => u64::from(self.read::<u16>(cpu, self.sp)?),
            Width::W32 => u64::from(self.read::<u32>(cpu, self.sp)?),
            Width::W64 => self.read::<u64>(cpu, self.sp)?,
        };
        self.skip(width.bytes());
        Ok(value)
    }
    /// Moves up.
    pub(crate) fn skip(&mut self, bytes: u64) {
        self.sp = self.sp.wrapping_add(bytes) & self.mask;
    }
    /// Makes this stack's pointer the stack pointer, in this stack's width.
    pub(crate) fn commit(&self, cpu: &mut Cpu) {
        if self.mask == 0xFFFF {
            cpu.set_masked(Gpr::Rsp, 0xFFFF, self.sp);
        } else {
            cpu.set_reg(Gpr::Rsp, self.sp & self.mask);
        }
    }
}

/// Rights of accesses to an inner stack: EFLAGS.AC lifts SMAP only for a supervisor's own.
fn inner(cpu: &Cpu) -> TlbClass {
    match cpu.mode.data {
        TlbClass::SupervisorAc => TlbClass::SupervisorAc,
        TlbClass::Supervisor | TlbClass::User => TlbClass::Supervisor,
    }
}

/// Whether a range lies inside a segment's limit (SDM vol. 3A §5.3), for programs and for the
/// processor's own accesses alike. In a flat segment a range may go around.
pub(crate) fn in_limit(s: &SegmentRegister, offset: u64, len: u64) -> bool {
    let last = offset.wrapping_add(len.wrapping_sub(1));
    let limit = u64::from(s.limit);
    let is_code = s.access & rights::CODE != 0;
    if !is_code && s.access & rights::DC != 0 {
        let top = if s.big() { 0xFFFF_FFFF } else { 0xFFFF };
        offset > limit && last <= top && last >= offset
    } else {
        s.limit == u32::MAX || last <= limit && last >= offset
    }
}
