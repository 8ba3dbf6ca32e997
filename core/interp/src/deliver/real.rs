//! Real-mode delivery (SDM vol. 3A §20.1.4), also for INT n redirected in virtual-8086 mode.

use kasane_cpu::Seg;
use kasane_memory::TlbClass;
use kasane_spec_x86::flags;

use super::Event;
use crate::cpu::{Cpu, Stop};
use crate::exec::system::structures::{Stack, Width};

impl Cpu {
    pub(super) fn enter_real(&mut self, event: &Event) -> Result<(), Stop> {
        let at = u64::from(event.vector) * 4;
        if at + 3 > u64::from(self.state.idtr.limit) {
            return Err(self.gp(event.idt_error()));
        }
        let entry: u32 = self.system_read(self.state.idtr.base.wrapping_add(at))?;
        self.enter_ivt(event, entry, event.flags)?;
        self.set_flags(flags::IF | flags::TF | flags::AC | flags::RF, 0);
        self.refresh_mode();
        Ok(())
    }

    /// Pushes FLAGS, CS and IP and goes to a real-mode handler. Leaves the flags alone.
    pub(super) fn enter_ivt(&mut self, event: &Event, entry: u32, image: u64) -> Result<(), Stop> {
        let mut stack = Stack::current(self, 0);
        stack.push(self, Width::W16, image)?;
        stack.push(self, Width::W16, u64::from(self.state.cs.selector))?;
        stack.push(self, Width::W16, event.rip)?;
        let cs = self.real_segment(Seg::Cs, (entry >> 16) as u16);
        let rip = u64::from(entry & 0xFFFF);
        if rip > u64::from(cs.limit) {
            return Err(self.gp(0));
        }
        stack.commit(self);
        self.enter_code(cs, rip);
        Ok(())
    }

    /// The IVT entry for INT n redirected in virtual-8086 mode: at linear address 0.
    pub(super) fn ivt_entry_v86(&mut self, vector: u8) -> Result<u32, Stop> {
        self.read_linear(u64::from(vector) * 4, TlbClass::User)
    }
}
