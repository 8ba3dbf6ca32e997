//! The processor's way to its local APIC: memory-mapped registers and x2APIC MSRs.

use kasane_cpu::apic::{ApicMode, registers};

use crate::cpu::{Cpu, Stop};

impl Cpu {
    /// A read inside the APIC's page. Registers are 32 bits wide at 16-byte steps; anything else
    /// is undefined by the manual and reads as the part of the register that it covers.
    pub(crate) fn apic_mmio_read(&mut self, offset: u64, len: u64) -> u64 {
        let now = self.clock.now_ns();
        let value = u64::from(self.apic.read(offset & !15, now).unwrap_or(0));
        let shift = (offset & 15) * 8;
        let mask = if len >= 8 { u64::MAX } else { (1 << (len * 8)) - 1 };
        if shift >= 32 { 0 } else { value >> shift & mask }
    }
    /// A write inside the APIC's page; only aligned 32-bit writes do anything.
    pub(crate) fn apic_mmio_write(
        &mut self,
        offset: u64,
        len: u64,
        value: u64,
    ) -> Result<(), Stop> {
        if offset & 15 == 0 && len >= 4 {
            let now = self.clock.now_ns();
            self.apic.write(offset, value as u32, now);
            self.attention = true;
            // What it brought about comes before the next instruction: the rest of the block waits.
            self.code_written = true;
        }
        Ok(())
    }
    /// RDMSR of 0x800-0x8FF (SDM vol. 3A §11.12.1.2).
    ///
    /// # Errors
    /// #GP(0) outside x2APIC mode and for what can't be read.
    pub fn x2apic_read(&mut self, index: u32) -> Result<u64, Stop> {
        let offset = u64::from(index & 0xFF) << 4;
        let write_only = matches!(offset, registers::EOI | registers::SELF_IPI);
        let absent = matches!(offset, registers::DFR | registers::ICR_HIGH | registers::APR);
        if self.apic.mode() != ApicMode::X2Apic || write_only || absent {
            return Err(self.gp(0));
        }
        if offset == registers::ICR_LOW {
            return Ok(self.apic.icr());
        }
        let now = self.clock.now_ns();
        match self.apic.read(offset, now) {
            Some(value) => Ok(u64::from(value)),
            None => Err(self.gp(0)),
        }
    }
    /// WRMSR of 0x800-0x8FF.
    ///
    /// # Errors
    /// #GP(0) outside x2APIC mode, for read-only registers and for reserved bits.
    pub fn x2apic_write(&mut self, index: u32, value: u64) -> Result<(), Stop> {
        let offset = u64::from(index & 0xFF) << 4;
        if self.apic.mode() != ApicMode::X2Apic || !x2apic_writable(offset, value) {
            return Err(self.gp(0));
        }
        self.attention = true;
        if offset == registers::ICR_LOW {
            self.apic.write_icr(value);
        } else {
            let now = self.clock.now_ns();
            self.apic.write(offset, value as u32, now);
        }
        Ok(())
    }
}

/// Whether a value may be written to a register in x2APIC mode: the register exists and is
/// writable, and no reserved bit is set.
fn x2apic_writable(offset: u64, value: u64) -> bool {
    let allowed: u64 = match offset {
        registers::TPR | registers::SELF_IPI => 0xFF,
        registers::EOI | registers::ESR => 0,
        registers::SVR => 0x1FF,
        registers::ICR_LOW => 0xFFFF_FFFF_000C_CFFF,
        registers::LVT_TIMER => 0x0007_00FF,
        registers::LVT_THERMAL | registers::LVT_PERF => 0x0001_07FF,
        // Remote IRR is read-only and ignored when written, as is delivery status below.
        registers::LVT_LINT0 | registers::LVT_LINT1 => 0x0001_E7FF,
        registers::LVT_ERROR => 0x0001_00FF,
        registers::INITIAL_COUNT => 0xFFFF_FFFF,
        registers::DIVIDE => 0xB,
        _ => return false,
    };
    // Delivery status is read-only and ignored when written.
    value & !(allowed | 1 << 12) == 0
}
