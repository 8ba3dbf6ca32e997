//! Delivery through the protected-mode IDT (SDM vol. 3A §6.12).

use kasane_cpu::{Seg, SegmentRegister};
use kasane_spec_x86::descriptor::system;
use kasane_spec_x86::vector;

use super::Event;
use crate::cpu::{Cpu, Stop};
use crate::exec::system::descriptor::{
    Blame, Descriptor, is_available_tss, is_null, null_segment, selector_error,
};
use crate::exec::system::structures::{Stack, Width};
use crate::exec::system::task::{Cause, Switch};

/// The way into a handler that all checks have agreed to.
struct Way {
    cs: SegmentRegister,
    rip: u64,
    width: Width,
    interrupt_gate: bool,
}

impl Cpu {
    pub(super) fn enter_gate(&mut self, event: &Event) -> Result<(), Stop> {
        let ext = event.source.ext();
        let at = u64::from(event.vector) * 8;
        if at + 7 > u64::from(self.state.idtr.limit) {
            return Err(self.gp(event.idt_error()));
        }
        let address = self.state.idtr.base.wrapping_add(at);
        let gate = Descriptor { low: self.system_read(address)?, high: 0, address };
        let known = matches!(
            gate.kind(),
            system::TASK_GATE
                | system::INTERRUPT_GATE16
                | system::TRAP_GATE16
                | system::INTERRUPT_GATE32
                | system::TRAP_GATE32
        );
        if gate.is_segment() || !known {
            return Err(self.gp(event.idt_error()));
        }
        if event.source.is_software() && gate.dpl() < self.cpl() {
            return Err(self.gp(event.idt_error()));
        }
        if !gate.present() {
            return Err(self.np(event.idt_error()));
        }
        if gate.kind() == system::TASK_GATE {
            return self.enter_task_gate(event, &gate);
        }
        let selector = gate.gate_selector();
        let (d, cpl) = self.handler_code(selector, ext)?;
        let way = Way {
            cs: self.code_register(selector, &d, cpl)?,
            rip: gate.gate_offset(),
            width: gate.gate_width(),
            interrupt_gate: gate.kind() & 1 == 0,
        };
        if cpl < self.cpl() {
            self.enter_inner(event, &way, cpl)
        } else {
            self.enter_same(event, &way)
        }
    }

    /// The checked code segment of a handler and the privilege level it runs at.
    pub(super) fn handler_code(
        &mut self,
        selector: u16,
        ext: u32,
    ) -> Result<(Descriptor, u8), Stop> {
        if is_null(selector) {
            return Err(self.gp(ext));
        }
        let blame = Blame { vector: vector::GP, ext };
        let Some(d) = self.descriptor(selector)? else {
            return Err(self.blame(blame, selector));
        };
        let allowed = d.dpl() <= self.cpl();
        self.check_code(selector, &d, allowed, blame)?;
        if self.long_mode() && !d.is_code64() {
            return Err(self.blame(blame, selector));
        }
        let cpl = if d.conforming() { self.cpl() } else { d.dpl() };
        // Only ring 0 may handle what happens in virtual-8086 mode.
        if self.v86() && cpl != 0 {
            return Err(self.blame(blame, selector));
        }
        Ok((d, cpl))
    }

    fn enter_task_gate(&mut self, event: &Event, gate: &Descriptor) -> Result<(), Stop> {
        let ext = event.source.ext();
        let selector = gate.gate_selector();
        let error = selector_error(selector, ext);
        let found = if selector & 4 != 0 { None } else { self.descriptor(selector)? };
        let Some(tss) = found.filter(is_available_tss) else {
            return Err(self.gp(error));
        };
        if !tss.present() {
            return Err(self.np(error));
        }
        let cause = Cause::Event { error: event.error, ext };
        self.task_switch(&Switch { selector, tss, cause, rip: event.rip, flags: event.flags })
    }

    fn push_frame(&mut self, stack: &mut Stack, event: &Event, width: Width) -> Result<(), Stop> {
        stack.push(self, width, event.flags)?;
        stack.push(self, width, u64::from(self.state.cs.selector))?;
        stack.push(self, width, event.rip)?;
        if let Some(error) = event.error {
            stack.push(self, width, u64::from(error))?;
        }
        Ok(())
    }

    fn enter_same(&mut self, event: &Event, way: &Way) -> Result<(), Stop> {
        let ext = event.source.ext();
        let mut stack = Stack::current(self, ext);
        self.push_frame(&mut stack, event, way.width)?;
        self.check_target(&way.cs, way.rip, ext)?;
        stack.commit(self);
        self.handler_flags(way.interrupt_gate);
        self.enter_code(way.cs, way.rip);
        Ok(())
    }

    fn enter_inner(&mut self, event: &Event, way: &Way, cpl: u8) -> Result<(), Stop> {
        let ext = event.source.ext();
        let (ss, mut stack) = self.inner_stack(cpl, ext)?;
        let from_v86 = self.v86();
        if from_v86 {
            for seg in [Seg::Gs, Seg::Fs, Seg::Ds, Seg::Es] {
                let selector = u64::from(self.seg(seg).selector);
                stack.push(self, way.width, selector)?;
            }
        }
        stack.push(self, way.width, u64::from(self.state.ss.selector))?;
        stack.push(self, way.width, self.reg(kasane_cpu::Gpr::Rsp))?;
        self.push_frame(&mut stack, event, way.width)?;
        self.check_target(&way.cs, way.rip, ext)?;
        if from_v86 {
            for seg in [Seg::Gs, Seg::Fs, Seg::Ds, Seg::Es] {
                *self.state.seg_mut(seg) = null_segment(0);
            }
        }
        self.state.ss = ss;
        stack.commit(self);
        self.handler_flags(way.interrupt_gate);
        self.enter_code(way.cs, way.rip);
        Ok(())
    }
}
