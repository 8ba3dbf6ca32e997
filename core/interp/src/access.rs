//! Memory accesses of instructions: segmentation, alignment, paging, MMIO.

use kasane_cpu::paging::{Access, Marking, Privilege, Translation};
use kasane_cpu::{AccessSize, Exit, Seg};
use kasane_memory::{Fill, GuestMemory, MarkedMemory, Scalar, SlotKind, Stored, TlbClass};
use kasane_spec_x86::descriptor::access as rights;
use kasane_spec_x86::vector;

use crate::cpu::{Cpu, Stop};
use crate::exec::system::structures::in_limit;

const OFFSET: u64 = 4095;
/// Bytes of a cache line.
const LINE: u64 = 64;

fn privilege(class: TlbClass) -> Privilege {
    match class {
        TlbClass::User => Privilege::User,
        TlbClass::Supervisor => Privilege::Supervisor,
        TlbClass::SupervisorAc => Privilege::SupervisorAc,
    }
}

impl Cpu {
    // --- operands: segment and offset --------------------------------------------------------

    /// Reads an operand of the current instruction.
    ///
    /// # Errors
    /// Any segment, alignment or page fault; an exit for MMIO.
    #[inline(always)]
    pub fn read<T: Scalar>(&mut self, seg: Seg, offset: u64) -> Result<T, Stop> {
        let va = self.linear(seg, offset, T::SIZE as u64, Access::Read)?;
        self.read_for(seg, va)
    }
    #[inline(always)]
    fn read_for<T: Scalar>(&mut self, seg: Seg, va: u64) -> Result<T, Stop> {
        match self.tlb.read(self.mode.data, va) {
            Some(value) => Ok(value),
            None => self.read_slow(seg, va, self.mode.data),
        }
    }
    /// Writes an operand of the current instruction. `Ok` also if it hit code: then the block is
    /// left after the instruction by a raised version (see `run`).
    ///
    /// # Errors
    /// As for `read`.
    #[inline(always)]
    pub fn write<T: Scalar>(&mut self, seg: Seg, offset: u64, value: T) -> Result<(), Stop> {
        let va = self.linear(seg, offset, T::SIZE as u64, Access::Write)?;
        self.write_for(seg, va, value)
    }
    #[inline(always)]
    fn write_for<T: Scalar>(&mut self, seg: Seg, va: u64, value: T) -> Result<(), Stop> {
        match self.tlb.write(self.mode.data, va, value) {
            Some(Stored::Data) => Ok(()),
            Some(Stored::Code) => {
                self.code_written = true;
                Ok(())
            }
            None => self.write_slow(seg, va, value, self.mode.data),
        }
    }
    /// Reads many bytes of an operand at once where nothing about them has to be looked at: one
    /// page that the TLB has, a segment without checks. Otherwise `None`, and nothing happens.
    pub(crate) fn read_plain(&self, seg: Seg, offset: u64, out: &mut [u8]) -> Option<()> {
        let va = self.plain(seg, offset, 1)?;
        self.tlb.read_bytes(self.mode.data, va, out)
    }
    /// Writes likewise.
    pub(crate) fn write_plain(&mut self, seg: Seg, offset: u64, bytes: &[u8]) -> Option<()> {
        let va = self.plain(seg, offset, 2)?;
        self.code_written |= self.tlb.write_bytes(self.mode.data, va, bytes)? == Stored::Code;
        Some(())
    }
    fn plain(&self, seg: Seg, offset: u64, access: u8) -> Option<u64> {
        let checked = self.mode.plain.get(seg as usize)? & access == 0;
        let base = self.mode.base.get(seg as usize)?;
        (self.code64() && !checked && self.debugger.watchpoints.is_empty())
            .then(|| base.wrapping_add(offset))
    }
    /// Checks that a write to an operand will succeed (or is MMIO), without writing.
    ///
    /// # Errors
    /// The fault that the write would get.
    pub fn probe_write(&mut self, seg: Seg, offset: u64, len: u64) -> Result<(), Stop> {
        let va = self.linear(seg, offset, len, Access::Write)?;
        self.probe_linear(seg, va, len, Access::Write, self.mode.data)
    }
    /// Read-modify-write of an operand: `f` gives the new value for the old one, and may be
    /// called several times. Atomic if `locked`. Gives old and new value.
    ///
    /// # Errors
    /// As for `write`.
    #[inline(always)]
    pub fn update<T: Scalar>(
        &mut self,
        seg: Seg,
        offset: u64,
        locked: bool,
        mut f: impl FnMut(T) -> T,
    ) -> Result<(T, T), Stop> {
        let va = self.linear(seg, offset, T::SIZE as u64, Access::Write)?;
        let class = self.mode.data;
        if !locked
            && let Some(old) = self.tlb.read(class, va)
            && let new = f(old)
            && let Some(stored) = self.tlb.write(class, va, new)
        {
            self.code_written |= stored == Stored::Code;
            return Ok((old, new));
        }
        self.update_slow(seg, va, class, locked, &mut f)
    }

    #[cold]
    fn update_slow<T: Scalar>(
        &mut self,
        seg: Seg,
        va: u64,
        class: TlbClass,
        locked: bool,
        f: &mut dyn FnMut(T) -> T,
    ) -> Result<(T, T), Stop> {
        let in_line = va & (LINE - 1) <= LINE - T::SIZE as u64;
        if locked
            && in_line
            && let Some(done) = self.update_locked(va, class, f)
        {
            return Ok(done);
        }
        self.probe_linear(seg, va, T::SIZE as u64, Access::Write, class)?;
        if locked && in_line {
            if let Some(done) = self.update_locked(va, class, f) {
                return Ok(done);
            }
            // Not RAM: nobody else knows what is there.
        } else if locked {
            let (exclusive, barrier) = (self.exclusive.clone(), self.barrier.clone());
            let (index, relax) = (self.index, || barrier.relax());
            return exclusive.alone(index, relax, || self.update_plainly(seg, va, class, f));
        }
        self.update_plainly(seg, va, class, f)
    }

    /// Read-modify-write by the host's own locked instruction, of RAM within a cache line that
    /// needs no walk.
    fn update_locked<T: Scalar>(
        &mut self,
        va: u64,
        class: TlbClass,
        f: &mut dyn FnMut(T) -> T,
    ) -> Option<(T, T)> {
        loop {
            let old = self.tlb.read::<T>(class, va)?;
            let new = f(old);
            let (found, stored) = self.tlb.compare_exchange(class, va, old, new)?;
            if found == old {
                self.code_written |= stored == Stored::Code;
                return Some((old, new));
            }
        }
    }

    fn update_plainly<T: Scalar>(
        &mut self,
        seg: Seg,
        va: u64,
        class: TlbClass,
        f: &mut dyn FnMut(T) -> T,
    ) -> Result<(T, T), Stop> {
        let old = self.read_slow(seg, va, class)?;
        let new = f(old);
        self.write_slow(seg, va, new, class)?;
        Ok((old, new))
    }

    /// Segment part of an access: offset to linear address, with all checks of SDM vol. 3A §5.3
    /// and §5.5 and the alignment check of §6.15 (#AC).
    ///
    /// # Errors
    /// #GP(0), #SS(0) or #AC(0).
    #[inline(always)]
    pub fn linear(&mut self, seg: Seg, offset: u64, len: u64, access: Access) -> Result<u64, Stop> {
        let n = seg as usize;
        let need = if matches!(access, Access::Write) { 2 } else { 1 };
        let base = self.mode.base.get(n).copied().unwrap_or(0);
        let va = base.wrapping_add(offset) & self.mode.linear_mask;
        if self.mode.plain.get(n).copied().unwrap_or(0) & need != 0 {
            return Ok(va);
        }
        self.linear_checked(seg, offset, len, access)?;
        self.check_alignment(seg, va, len)?;
        self.watch(va, len, matches!(access, Access::Write));
        Ok(va)
    }

    /// `linear` for operands that never raise #AC (SDM vol. 2A §2.4, the classes without it).
    #[inline(always)]
    fn linear_unaligned(
        &mut self,
        seg: Seg,
        offset: u64,
        len: u64,
        access: Access,
    ) -> Result<u64, Stop> {
        let n = seg as usize;
        let need = if matches!(access, Access::Write) { 2 } else { 1 };
        let base = self.mode.base.get(n).copied().unwrap_or(0);
        let va = base.wrapping_add(offset) & self.mode.linear_mask;
        if self.mode.plain.get(n).copied().unwrap_or(0) & need != 0 {
            return Ok(va);
        }
        self.linear_checked(seg, offset, len, access)?;
        self.watch(va, len, matches!(access, Access::Write));
        Ok(va)
    }

    /// `read`, without #AC.
    ///
    /// # Errors
    /// As for `read`, less #AC.
    pub fn read_unaligned<T: Scalar>(&mut self, seg: Seg, offset: u64) -> Result<T, Stop> {
        let va = self.linear_unaligned(seg, offset, T::SIZE as u64, Access::Read)?;
        self.read_for(seg, va)
    }

    /// `write`, without #AC.
    ///
    /// # Errors
    /// As for `write`, less #AC.
    pub fn write_unaligned<T: Scalar>(
        &mut self,
        seg: Seg,
        offset: u64,
        value: T,
    ) -> Result<(), Stop> {
        let va = self.linear_unaligned(seg, offset, T::SIZE as u64, Access::Write)?;
        self.write_for(seg, va, value)
    }

    /// `probe_write`, without #AC.
    ///
    /// # Errors
    /// As for `probe_write`, less #AC.
    pub fn probe_write_unaligned(&mut self, seg: Seg, offset: u64, len: u64) -> Result<(), Stop> {
        let va = self.linear_unaligned(seg, offset, len, Access::Write)?;
        self.probe_linear(seg, va, len, Access::Write, self.mode.data)
    }

    #[cold]
    pub(crate) fn linear_checked(
        &mut self,
        seg: Seg,
        offset: u64,
        len: u64,
        access: Access,
    ) -> Result<(), Stop> {
        let write = matches!(access, Access::Write);
        if !self.code64() && !self.segment_allows(seg, offset, len, write) {
            return Err(self.segment_fault(seg));
        }
        Ok(())
    }

    /// #AC if it is on. Operands of 16 bytes and more either must be aligned, which is #GP, or
    /// need not be.
    #[cold]
    fn check_alignment(&mut self, seg: Seg, va: u64, len: u64) -> Result<(), Stop> {
        let aligned_to = if matches!(len, 2 | 4 | 8) { len } else { 1 };
        if !self.alignment_checked() || va & (aligned_to - 1) == 0 {
            return Ok(());
        }
        if self.code64() && !Self::canonical(va) {
            return Err(self.segment_fault(seg));
        }
        Err(self.raise(vector::AC, Some(0)))
    }

    /// #SS(0) for the stack segment, else #GP(0).
    #[cold]
    pub fn segment_fault(&mut self, seg: Seg) -> Stop {
        if seg == Seg::Ss { self.ss(0) } else { self.gp(0) }
    }

    /// Whether a legacy-mode segment allows the access (SDM vol. 3A §5.3, §5.5).
    fn segment_allows(&self, seg: Seg, offset: u64, len: u64, write: bool) -> bool {
        let s = self.seg(seg);
        let is_code = s.access & rights::CODE != 0;
        if self.protected() && !self.v86() {
            let rw = s.access & rights::RW != 0;
            let allowed = match (is_code, write) {
                (true, true) => false,
                (true, false) | (false, true) => rw,
                (false, false) => true,
            };
            if !s.present() || !allowed {
                return false;
            }
        }
        in_limit(s, offset, len)
    }

    /// Whether #AC is on.
    pub fn alignment_checked(&self) -> bool {
        use kasane_spec_x86::{control::cr0, flags};
        self.cpl() == 3 && self.flag(flags::AC) && self.state.cr0 & cr0::AM != 0
    }

    // --- linear addresses --------------------------------------------------------------------

    /// Reads at a linear address as the processor does for its own structures (descriptor
    /// tables, TSS): supervisor rights, no segment. `class` may also be given for other uses.
    ///
    /// # Errors
    /// #PF, or an exit for MMIO.
    pub fn read_linear<T: Scalar>(&mut self, va: u64, class: TlbClass) -> Result<T, Stop> {
        match self.tlb.read(class, va) {
            Some(value) => Ok(value),
            None => self.read_slow(Seg::Ds, va, class),
        }
    }
    /// Writes at a linear address; see `read_linear`.
    ///
    /// # Errors
    /// #PF, or an exit for MMIO.
    pub fn write_linear<T: Scalar>(
        &mut self,
        va: u64,
        value: T,
        class: TlbClass,
    ) -> Result<(), Stop> {
        match self.tlb.write(class, va, value) {
            Some(stored) => {
                self.code_written |= stored == Stored::Code;
                Ok(())
            }
            None => self.write_slow(Seg::Ds, va, value, class),
        }
    }
    /// Checks that all bytes of a linear range may be accessed, and enters their pages in the
    /// TLB (RAM; MMIO passes).
    ///
    /// # Errors
    /// The fault that the access would get.
    pub fn probe_linear(
        &mut self,
        seg: Seg,
        va: u64,
        len: u64,
        access: Access,
        class: TlbClass,
    ) -> Result<(), Stop> {
        self.check_canonical(seg, va, len)?;
        self.translate_fill(va, access, class)?;
        let last = va.wrapping_add(len.wrapping_sub(1)) & self.mode.linear_mask;
        if (last ^ va) & !OFFSET != 0 {
            self.translate_fill(last & !OFFSET, access, class)?;
        }
        Ok(())
    }

    fn check_canonical(&mut self, seg: Seg, va: u64, len: u64) -> Result<(), Stop> {
        let last = va.wrapping_add(len.wrapping_sub(1));
        if self.code64() && !(Self::canonical(va) && Self::canonical(last)) {
            return Err(self.segment_fault(seg));
        }
        Ok(())
    }

    /// Walks for one page and enters it in the TLB.
    ///
    /// # Errors
    /// #PF.
    pub fn translate_fill(
        &mut self,
        va: u64,
        access: Access,
        class: TlbClass,
    ) -> Result<Translation, Stop> {
        let context = self.paging();
        let recorded = self.tlb.is_recorded();
        let walk = if recorded {
            let memory = MarkedMemory::new(self.tlb.memory());
            let walk = context.walk(&memory, va, access, privilege(class), Marking::Set);
            let marks = memory.into_marks();
            self.tlb.note_marks(&marks);
            walk
        } else {
            context.walk(self.tlb.memory(), va, access, privilege(class), Marking::Set)
        };
        match walk {
            Ok(found) => {
                if found.gpa & !OFFSET != self.apic.mmio_page() {
                    let fill = Fill {
                        gpa: found.gpa,
                        read: found.readable,
                        write: found.writable && (!recorded || access == Access::Write),
                        exec: found.executable,
                        global: found.global,
                        page_bits: found.page_bits,
                    };
                    self.tlb.fill(class, va, fill);
                }
                Ok(found)
            }
            Err(fault) => Err(self.page_fault(fault.error, va)),
        }
    }

    #[cold]
    #[inline(never)]
    fn read_slow<T: Scalar>(&mut self, seg: Seg, va: u64, class: TlbClass) -> Result<T, Stop> {
        let len = T::SIZE as u64;
        self.check_canonical(seg, va, len)?;
        if (va & OFFSET) + len <= 4096 {
            let found = self.translate_fill(va, Access::Read, class)?;
            if let Some(value) = self.tlb.read(class, va) {
                return Ok(value);
            }
            return self.physical_read(found.gpa);
        }
        // Across pages: both are checked before the first byte is read, and each part is read
        // as a unit, so that an MMIO register isn't asked twice.
        let split = 4096 - (va & OFFSET);
        let second = va.wrapping_add(split) & self.mode.linear_mask;
        let mut bytes = [0u8; 16];
        if let Some((low, high)) =
            bytes.get_mut(..T::SIZE).and_then(|all| all.split_at_mut_checked(split as usize))
            && self.tlb.read_bytes(class, va, low).is_some()
            && self.tlb.read_bytes(class, second, high).is_some()
        {
            return Ok(T::truncate(u128::from_le_bytes(bytes)));
        }
        let a = self.translate_fill(va, Access::Read, class)?.gpa;
        let b = self.translate_fill(second, Access::Read, class)?.gpa;
        for i in 0..len {
            let gpa = if i < split { a.wrapping_add(i) } else { b.wrapping_add(i - split) };
            let byte: u8 = self.physical_read(gpa)?;
            if let Some(slot) = bytes.get_mut(i as usize) {
                *slot = byte;
            }
        }
        Ok(T::truncate(u128::from_le_bytes(bytes)))
    }

    #[cold]
    #[inline(never)]
    fn write_slow<T: Scalar>(
        &mut self,
        seg: Seg,
        va: u64,
        value: T,
        class: TlbClass,
    ) -> Result<(), Stop> {
        let len = T::SIZE as u64;
        self.check_canonical(seg, va, len)?;
        if (va & OFFSET) + len <= 4096 {
            let found = self.translate_fill(va, Access::Write, class)?;
            if let Some(stored) = self.tlb.write(class, va, value) {
                self.code_written |= stored == Stored::Code;
                return Ok(());
            }
            return self.physical_write(found.gpa, value);
        }
        let split = 4096 - (va & OFFSET);
        let second = va.wrapping_add(split) & self.mode.linear_mask;
        let writable = |va| self.tlb.host_page(class, va).is_some_and(|page| page.write);
        let bytes = value.widen().to_le_bytes();
        if writable(va)
            && writable(second)
            && let Some((low, high)) =
                bytes.get(..T::SIZE).and_then(|all| all.split_at_checked(split as usize))
        {
            for (va, part) in [(va, low), (second, high)] {
                self.code_written |= self.tlb.write_bytes(class, va, part) == Some(Stored::Code);
            }
            return Ok(());
        }
        let a = self.translate_fill(va, Access::Write, class)?.gpa;
        let b = self.translate_fill(second, Access::Write, class)?.gpa;
        // What needs the machine comes first: it makes the instruction run again, and a
        // read-modify-write must then find in RAM what was there before.
        for to_ram in [false, true] {
            for (i, byte) in (0..len).zip(value.widen().to_le_bytes()) {
                let gpa = if i < split { a.wrapping_add(i) } else { b.wrapping_add(i - split) };
                if self.takes_writes(gpa) == to_ram {
                    self.physical_write(gpa, byte)?;
                }
            }
        }
        Ok(())
    }

    /// Whether a write there ends in RAM.
    fn takes_writes(&self, gpa: u64) -> bool {
        let slot = self.tlb.memory().find(gpa);
        gpa & !OFFSET != self.apic.mmio_page()
            && slot.is_some_and(|(slot, _)| slot.kind() == SlotKind::Ram)
    }

    // --- physical addresses ------------------------------------------------------------------

    /// Reads at a guest-physical address, within a page: RAM, the local APIC, or the machine.
    fn physical_read<T: Scalar>(&mut self, gpa: u64) -> Result<T, Stop> {
        let mut bytes = [0u8; 16];
        let len = T::SIZE;
        if gpa & !OFFSET != self.apic.mmio_page()
            && let Some(part) = bytes.get_mut(..len)
            && self.tlb.memory().read(gpa, part).is_ok()
        {
            return Ok(T::truncate(u128::from_le_bytes(bytes)));
        }
        if gpa & !OFFSET == self.apic.mmio_page() {
            return Ok(T::from_u64(self.apic_mmio_read(gpa & OFFSET, len as u64)));
        }
        if let Some(size) = AccessSize::from_bytes(len) {
            return Ok(T::from_u64(self.ask(Exit::MmioRead { gpa, size })?));
        }
        let low = self.ask(Exit::MmioRead { gpa, size: AccessSize::Qword })?;
        let high =
            self.ask(Exit::MmioRead { gpa: gpa.wrapping_add(8), size: AccessSize::Qword })?;
        Ok(T::truncate(u128::from(low) | u128::from(high) << 64))
    }

    fn physical_write<T: Scalar>(&mut self, gpa: u64, value: T) -> Result<(), Stop> {
        let len = T::SIZE;
        let bytes = value.widen().to_le_bytes();
        let in_apic = gpa & !OFFSET == self.apic.mmio_page();
        self.tlb.about_to_write(gpa);
        if !in_apic
            && let Some(part) = bytes.get(..len)
            && self.tlb.memory().write(gpa, part).is_ok()
        {
            // The bytes may be code that this very block was made from.
            self.code_written = true;
            return Ok(());
        }
        if in_apic {
            return self.apic_mmio_write(gpa & OFFSET, len as u64, value.to_u64());
        }
        if let Some(size) = AccessSize::from_bytes(len) {
            self.ask(Exit::MmioWrite { gpa, size, value: value.to_u64() })?;
            return Ok(());
        }
        let (low, high) = (value.widen() as u64, (value.widen() >> 64) as u64);
        self.ask(Exit::MmioWrite { gpa, size: AccessSize::Qword, value: low })?;
        let gpa = gpa.wrapping_add(8);
        self.ask(Exit::MmioWrite { gpa, size: AccessSize::Qword, value: high })?;
        Ok(())
    }

    // --- stack -------------------------------------------------------------------------------

    /// The stack pointer in the stack's width.
    #[inline(always)]
    #[must_use]
    pub fn stack_pointer(&self) -> u64 {
        self.reg(kasane_cpu::Gpr::Rsp) & self.mode.stack_mask
    }
    /// Sets the stack pointer in the stack's width.
    #[inline(always)]
    pub fn set_stack_pointer(&mut self, value: u64) {
        let mask = self.mode.stack_mask;
        self.set_masked(kasane_cpu::Gpr::Rsp, mask, value);
    }
    /// Pushes: writes below the stack pointer and moves it. Nothing moves if the write faults.
    ///
    /// # Errors
    /// As for `write`.
    #[inline(always)]
    pub fn push<T: Scalar>(&mut self, value: T) -> Result<(), Stop> {
        let sp = self.stack_pointer().wrapping_sub(T::SIZE as u64) & self.mode.stack_mask;
        self.write(Seg::Ss, sp, value)?;
        self.set_stack_pointer(sp);
        Ok(())
    }
    /// Reads the top of the stack plus `skip` bytes without moving the pointer.
    ///
    /// # Errors
    /// As for `read`.
    #[inline(always)]
    pub fn peek<T: Scalar>(&mut self, skip: u64) -> Result<T, Stop> {
        let at = self.stack_pointer().wrapping_add(skip) & self.mode.stack_mask;
        self.read(Seg::Ss, at)
    }
    /// Moves the stack pointer up after `peek`s.
    #[inline(always)]
    pub fn drop_stack(&mut self, bytes: u64) {
        self.set_stack_pointer(self.stack_pointer().wrapping_add(bytes));
    }

    // --- debug -------------------------------------------------------------------------------

    /// Notes data breakpoints (DR0-DR3) and the debugger's watchpoints that an access hits.
    pub(crate) fn watch(&mut self, va: u64, len: u64, write: bool) {
        let last = va.wrapping_add(len.wrapping_sub(1));
        for n in 0..4u32 {
            let enabled = self.state.dr7 >> (n * 2) & 3 != 0;
            let kind = self.state.dr7 >> (16 + n * 4) & 3;
            let matches_kind = kind == 3 || (kind == 1 && write);
            if !enabled || !matches_kind {
                continue;
            }
            let size = match self.state.dr7 >> (18 + n * 4) & 3 {
                0 => 1,
                1 => 2,
                2 => 8,
                _ => 4,
            };
            let at = self.state.dr.get(n as usize).copied().unwrap_or(0) & !(size - 1);
            if at <= last && va < at.wrapping_add(size) {
                self.debug_hits |= 1 << n;
            }
        }
        for (n, point) in self.debugger.watchpoints.iter().enumerate() {
            let wanted = if write { point.on_write } else { point.on_read };
            if wanted && point.address <= last && va < point.address.wrapping_add(point.len) {
                self.watch_hits |= 1 << n.min(3);
            }
        }
    }
}
