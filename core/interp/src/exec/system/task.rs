//! Hardware task switches (SDM vol. 3A §7.3).
//!
//! A switch has a point of no return: up to there nothing has changed; from there on faults are
//! the new task's, with its registers.

use kasane_cpu::paging::pdpte_reserved;
use kasane_cpu::{Seg, SegmentRegister};
use kasane_spec_x86::control::{cr0, cr4, dr6};
use kasane_spec_x86::descriptor::system;
use kasane_spec_x86::{flags, paging, vector};

use super::descriptor::{
    Blame, Descriptor, is_available_tss, is_null, null_segment, null_stack, rpl, selector_error,
    v86_segment,
};
use super::structures::{Stack, Width};
use crate::cpu::{Cpu, Stop};

/// Why a task is switched to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Jump,
    Call,
    /// IRET with NT set.
    Return,
    /// Through a task gate of the IDT.
    Event {
        error: Option<u32>,
        ext: u32,
    },
}

impl Cause {
    const fn ext(self) -> u32 {
        match self {
            Self::Event { ext, .. } => ext,
            Self::Jump | Self::Call | Self::Return => 0,
        }
    }
    /// The new task gets a link to the old one.
    const fn nests(self) -> bool {
        matches!(self, Self::Call | Self::Event { .. })
    }
}

/// A task switch that is agreed to.
pub(crate) struct Switch {
    pub(crate) selector: u16,
    pub(crate) tss: Descriptor,
    pub(crate) cause: Cause,
    /// EIP to save in the old task.
    pub(crate) rip: u64,
    /// EFLAGS to save in the old task.
    pub(crate) flags: u64,
}

/// Where the fields of a TSS are.
struct Layout {
    width: Width,
    min_limit: u32,
    eip: u64,
    /// Selectors ES, CS, SS, DS (FS, GS) in `width` steps.
    selectors: u64,
    segments: usize,
    ldt: u64,
}

const LAYOUT16: Layout = Layout {
    width: Width::W16,
    min_limit: 0x2B,
    eip: 0x0E,
    selectors: 0x22,
    segments: 4,
    ldt: 0x2A,
};
const LAYOUT32: Layout = Layout {
    width: Width::W32,
    min_limit: 0x67,
    eip: 0x20,
    selectors: 0x48,
    segments: 6,
    ldt: 0x60,
};
const ORDER: [Seg; 6] = [Seg::Es, Seg::Cs, Seg::Ss, Seg::Ds, Seg::Fs, Seg::Gs];
const CR3_OFFSET: u64 = 0x1C;
const TRAP_OFFSET: u64 = 0x64;
/// Flags that a TSS holds.
const FLAGS: u64 = 0x003F_7FD5;
/// Local enables of DR7, which a switch clears.
const LOCAL_ENABLES: u64 = 0x155;

fn layout(width: Width) -> &'static Layout {
    match width {
        Width::W16 => &LAYOUT16,
        Width::W32 | Width::W64 => &LAYOUT32,
    }
}

/// What is read from the new TSS.
struct Image {
    cr3: Option<u64>,
    eip: u64,
    flags: u64,
    gpr: [u64; 8],
    selectors: [u16; 6],
    ldt: u16,
    trap: bool,
}

impl Cpu {
    fn tss_field(&mut self, width: Width, va: u64) -> Result<u64, Stop> {
        Ok(match width {
            Width::W16 => u64::from(self.system_read::<u16>(va)?),
            Width::W32 | Width::W64 => u64::from(self.system_read::<u32>(va)?),
        })
    }
    fn set_tss_field(&mut self, width: Width, va: u64, value: u64) -> Result<(), Stop> {
        match width {
            Width::W16 => self.system_write(va, value as u16),
            Width::W32 | Width::W64 => self.system_write(va, value as u32),
        }
    }

    fn read_tss(&mut self, base: u64, l: &Layout) -> Result<Image, Stop> {
        let step = l.width.bytes();
        let wide = l.width == Width::W32;
        let cr3 = if wide && self.state.cr0 & cr0::PG != 0 {
            Some(self.tss_field(l.width, base.wrapping_add(CR3_OFFSET))?)
        } else {
            None
        };
        let at = |offset: u64| base.wrapping_add(offset);
        let eip = self.tss_field(l.width, at(l.eip))?;
        let image_flags = self.tss_field(l.width, at(l.eip + step))?;
        let mut gpr = [0; 8];
        for (n, slot) in (0u64..).zip(&mut gpr) {
            *slot = self.tss_field(l.width, at(l.eip + step * (2 + n)))?;
        }
        let mut selectors = [0; 6];
        for (n, slot) in (0u64..).zip(&mut selectors).take(l.segments) {
            *slot = self.system_read(at(l.selectors + step * n))?;
        }
        let ldt = self.system_read(at(l.ldt))?;
        let trap = wide && self.system_read::<u16>(at(TRAP_OFFSET))? & 1 != 0;
        Ok(Image { cr3, eip, flags: image_flags, gpr, selectors, ldt, trap })
    }

    fn save_tss(&mut self, base: u64, l: &Layout, rip: u64, image: u64) -> Result<(), Stop> {
        let step = l.width.bytes();
        let at = |offset: u64| base.wrapping_add(offset);
        self.set_tss_field(l.width, at(l.eip), rip)?;
        self.set_tss_field(l.width, at(l.eip + step), image)?;
        for n in 0..8u8 {
            let value = self.gpr(n);
            self.set_tss_field(l.width, at(l.eip + step * (2 + u64::from(n))), value)?;
        }
        for (n, seg) in (0u64..).zip(ORDER).take(l.segments) {
            let selector = self.seg(seg).selector;
            self.system_write(at(l.selectors + step * n), selector)?;
        }
        Ok(())
    }

    /// Switches to another task. `rip`, `next_rip` and everything else are the new task's then.
    ///
    /// # Errors
    /// A fault of the old task (nothing changed) or of the new one (its state is there).
    pub(crate) fn task_switch(&mut self, s: &Switch) -> Result<(), Stop> {
        let ext = s.cause.ext();
        let new = layout(s.tss.tss_width());
        if s.tss.limit() < new.min_limit {
            return Err(self.ts(selector_error(s.selector, ext)));
        }
        let tr = self.state.tr;
        let old = layout(if tr.kind() & 8 != 0 { Width::W32 } else { Width::W16 });
        let image = self.read_tss(s.tss.base(), new)?;
        let old_descriptor = self.state.gdtr.base.wrapping_add(u64::from(tr.selector & !7));
        let saved = old.selectors + old.width.bytes() * old.segments as u64 - old.eip;
        self.system_probe(tr.base.wrapping_add(old.eip), saved)?;
        self.system_probe(old_descriptor.wrapping_add(5), 1)?;
        self.system_probe(s.tss.address.wrapping_add(5), 1)?;
        if s.cause.nests() {
            self.system_probe(s.tss.base(), 2)?;
        }
        let pdpte = match image.cr3 {
            Some(cr3) if self.cr4(cr4::PAE) => Some(self.read_pdptes(cr3)?),
            _ => None,
        };
        // Everything was checked: nothing up to the end of `commit_task` faults any more.
        self.save_and_mark(s, old, tr.base, old_descriptor)?;
        if let Some(cr3) = image.cr3 {
            self.state.cr3 = cr3;
            self.state.pdpte = pdpte.unwrap_or(self.state.pdpte);
            self.tlb.flush_non_global();
        }
        self.commit_task(s, &image);
        self.load_task_segments(&image, s.cause)?;
        self.finish_task(s, &image, new.width)
    }

    fn save_and_mark(
        &mut self,
        s: &Switch,
        old: &Layout,
        old_base: u64,
        old_descriptor: u64,
    ) -> Result<(), Stop> {
        let flags = if s.cause == Cause::Return { s.flags & !flags::NT } else { s.flags };
        if matches!(s.cause, Cause::Jump | Cause::Return) {
            self.mark_busy(old_descriptor, false)?;
        }
        self.save_tss(old_base, old, s.rip, flags)?;
        if s.cause.nests() {
            let link = self.state.tr.selector;
            self.system_write(s.tss.base(), link)?;
        }
        if s.cause != Cause::Return {
            self.mark_busy(s.tss.address, true)?;
        }
        Ok(())
    }

    /// The four entries that PAE paging keeps in registers.
    pub(crate) fn read_pdptes(&mut self, cr3: u64) -> Result<[u64; 4], Stop> {
        use kasane_memory::GuestMemory;
        let mut entries = [0; 4];
        let table = cr3 & 0xFFFF_FFE0;
        let reserved = pdpte_reserved(self.model.physical_bits());
        for (n, slot) in (0u64..).zip(&mut entries) {
            let gpa = table.wrapping_add(8 * n) & self.mailbox.a20_mask();
            *slot = self.tlb.memory().load_u64(gpa).unwrap_or(u64::MAX);
            if *slot & paging::P != 0 && *slot & reserved != 0 {
                return Err(self.gp(0));
            }
        }
        Ok(entries)
    }

    fn commit_task(&mut self, s: &Switch, image: &Image) {
        let mut rflags = image.flags & FLAGS | flags::FIXED;
        if s.cause.nests() {
            rflags |= flags::NT;
        }
        let state = &mut self.state;
        state.tr = s.tss.register(s.selector);
        state.tr.access |= 2;
        state.cr0 |= cr0::TS;
        state.dr7 &= !LOCAL_ENABLES;
        state.rflags = rflags;
        state.rip = image.eip;
        for (to, from) in state.gpr.iter_mut().zip(image.gpr) {
            *to = from;
        }
        state.ldtr = null_segment(image.ldt);
        let v86 = rflags & flags::VM != 0;
        let cpl = rpl(image.selectors[1]);
        for (seg, selector) in ORDER.into_iter().zip(image.selectors) {
            *state.seg_mut(seg) = match seg {
                _ if v86 => v86_segment(selector),
                Seg::Ss => null_stack(selector, cpl),
                _ => null_segment(selector),
            };
        }
        self.next_rip = image.eip;
        self.suppress_rf_clear = true;
        self.step_override = Some(false);
        self.attention = true;
        self.refresh_mode();
    }

    fn load_task_segments(&mut self, image: &Image, cause: Cause) -> Result<(), Stop> {
        let blame = Blame { vector: vector::TS, ext: cause.ext() };
        if !is_null(image.ldt) {
            self.state.ldtr = self.load_ldt(image.ldt, blame)?;
        }
        if self.v86() {
            return Ok(());
        }
        let [es, cs, ss, ds, fs, gs] = image.selectors;
        if is_null(cs) {
            return Err(self.blame(blame, 0));
        }
        let Some(d) = self.descriptor(cs)? else { return Err(self.blame(blame, cs)) };
        let cpl = rpl(cs);
        let allowed = if d.conforming() { d.dpl() <= cpl } else { d.dpl() == cpl };
        self.check_code(cs, &d, allowed, blame)?;
        let code = self.code_register(cs, &d, cpl)?;
        let stack = self.load_stack(ss, cpl, blame)?;
        self.state.cs = code;
        self.state.ss = stack;
        self.refresh_mode();
        for (seg, selector) in [(Seg::Ds, ds), (Seg::Es, es), (Seg::Fs, fs), (Seg::Gs, gs)] {
            let register = self.load_data(selector, blame)?;
            *self.state.seg_mut(seg) = register;
        }
        self.refresh_mode();
        Ok(())
    }

    fn finish_task(&mut self, s: &Switch, image: &Image, width: Width) -> Result<(), Stop> {
        let ext = s.cause.ext();
        if let Cause::Event { error: Some(error), .. } = s.cause {
            let mut stack = Stack::current(self, ext);
            stack.push(self, width, u64::from(error))?;
            stack.commit(self);
        }
        if image.trap {
            self.debug_hits |= dr6::BT;
        }
        let cs = self.state.cs;
        self.check_target(&cs, image.eip, ext)
    }

    /// A checked LDT descriptor; null gives an unusable one.
    pub(crate) fn load_ldt(
        &mut self,
        selector: u16,
        blame: Blame,
    ) -> Result<SegmentRegister, Stop> {
        if is_null(selector) {
            return Ok(null_segment(selector));
        }
        let found = if selector & 4 != 0 { None } else { self.descriptor(selector)? };
        let Some(d) = found.filter(|d| !d.is_segment() && d.kind() == system::LDT) else {
            return Err(self.blame(blame, selector));
        };
        let Some(d) = self.widen_descriptor(selector, d)? else {
            return Err(self.blame(blame, selector));
        };
        if !d.present() {
            let error = selector_error(selector, blame.ext);
            return Err(if blame.vector == vector::TS { self.ts(error) } else { self.np(error) });
        }
        Ok(d.register(selector))
    }

    /// JMP or CALL to a TSS or through a task gate.
    pub(super) fn far_task(
        &mut self,
        selector: u16,
        d: &Descriptor,
        cause: Cause,
    ) -> Result<(), Stop> {
        let error = selector_error(selector, 0);
        if d.dpl() < self.cpl().max(rpl(selector)) {
            return Err(self.gp(error));
        }
        let (tss_selector, tss) = if d.kind() == system::TASK_GATE {
            if !d.present() {
                return Err(self.np(error));
            }
            let inner = d.gate_selector();
            let found = if inner & 4 != 0 { None } else { self.descriptor(inner)? };
            match found.filter(is_available_tss) {
                Some(tss) => (inner, tss),
                None => return Err(self.gp(selector_error(inner, 0))),
            }
        } else {
            (selector, *d)
        };
        if !is_available_tss(&tss) || tss_selector & 4 != 0 {
            return Err(self.gp(selector_error(tss_selector, 0)));
        }
        if !tss.present() {
            return Err(self.np(selector_error(tss_selector, 0)));
        }
        let (rip, flags) = (self.next_rip, self.state.rflags);
        self.task_switch(&Switch { selector: tss_selector, tss, cause, rip, flags })
    }

    /// IRET with NT set: back to the task that the TSS links to.
    pub(super) fn return_to_linked_task(&mut self) -> Result<(), Stop> {
        let selector: u16 = self.system_read(self.state.tr.base)?;
        let found = if selector & 4 != 0 { None } else { self.descriptor(selector)? };
        let busy = |d: &Descriptor| {
            !d.is_segment() && matches!(d.kind(), system::TSS16_BUSY | system::TSS32_BUSY)
        };
        let Some(tss) = found.filter(busy) else {
            return Err(self.ts(selector_error(selector, 0)));
        };
        if !tss.present() {
            return Err(self.np(selector_error(selector, 0)));
        }
        let (rip, flags) = (self.next_rip, self.state.rflags);
        self.task_switch(&Switch { selector, tss, cause: Cause::Return, rip, flags })
    }
}
