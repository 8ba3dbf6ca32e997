//! Delivery in long mode (SDM vol. 3A §6.14).

use kasane_cpu::Gpr;
use kasane_spec_x86::descriptor::system;

use super::Event;
use crate::cpu::{Cpu, Stop};
use crate::exec::system::descriptor::{Descriptor, null_stack};
use crate::exec::system::structures::{Stack, Width};

impl Cpu {
    pub(super) fn enter_long(&mut self, event: &Event) -> Result<(), Stop> {
        let ext = event.source.ext();
        let at = u64::from(event.vector) * 16;
        if at + 15 > u64::from(self.state.idtr.limit) {
            return Err(self.gp(event.idt_error()));
        }
        let address = self.state.idtr.base.wrapping_add(at);
        let low = self.system_read(address)?;
        let high: u64 = self.system_read(address.wrapping_add(8))?;
        let gate = Descriptor { low, high: high & 0xFFFF_FFFF, address };
        let known = matches!(gate.kind(), system::INTERRUPT_GATE32 | system::TRAP_GATE32);
        if gate.is_segment() || !known || high >> 40 & 0x1F != 0 {
            return Err(self.gp(event.idt_error()));
        }
        if event.source.is_software() && gate.dpl() < self.cpl() {
            return Err(self.gp(event.idt_error()));
        }
        if !gate.present() {
            return Err(self.np(event.idt_error()));
        }
        let selector = gate.gate_selector();
        let (d, cpl) = self.handler_code(selector, ext)?;
        let cs = self.code_register(selector, &d, cpl)?;
        let changes = cpl < self.cpl();
        let rsp = match gate.gate_ist() {
            0 if changes => self.tss_rsp(4 + 8 * u64::from(cpl), ext)?,
            0 => self.reg(Gpr::Rsp),
            ist => self.tss_rsp(0x1C + 8 * ist, ext)?,
        };
        let mut stack = Stack::long(self, rsp & !15, cpl, ext);
        let old_ss = u64::from(self.state.ss.selector);
        stack.push(self, Width::W64, old_ss)?;
        stack.push(self, Width::W64, self.reg(Gpr::Rsp))?;
        stack.push(self, Width::W64, event.flags)?;
        stack.push(self, Width::W64, u64::from(self.state.cs.selector))?;
        stack.push(self, Width::W64, event.rip)?;
        if let Some(error) = event.error {
            stack.push(self, Width::W64, u64::from(error))?;
        }
        self.check_target(&cs, gate.gate_offset(), ext)?;
        if changes {
            self.state.ss = null_stack(u16::from(cpl), cpl);
        }
        stack.commit(self);
        self.handler_flags(gate.kind() & 1 == 0);
        self.enter_code(cs, gate.gate_offset());
        Ok(())
    }
}
