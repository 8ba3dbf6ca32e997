//! The TSC, its deadline, and KVM's clock (Linux `Documentation/virt/kvm/x86/msr.rst`).

use kasane_cpu::Gpr;
use kasane_cpu::cpuid::Feature;
use kasane_memory::GuestMemory;
use kasane_spec_x86::control::cr4;

use super::segments::write_register;
use crate::cpu::{Cpu, Stop};
use crate::op::Op;

const NS_PER_S: u64 = 1_000_000_000;
/// The structure's page is in use.
const ENABLED: u64 = 1;
/// The clock is monotonic over all CPUs.
const STABLE: u8 = 1;

/// Multiplier and shift that turn TSC ticks into nanoseconds:
/// `ns = ((ticks << shift) * multiplier) >> 32` (a negative shift goes right).
pub(crate) fn clock_scale(tsc_hz: u64) -> (u32, i8) {
    let mut hz = u128::from(tsc_hz.max(1));
    let mut shift = 0i8;
    // The multiplier is a 32-bit fraction below 1: bring the frequency to (1, 2] GHz.
    while hz > 2 * u128::from(NS_PER_S) && shift > -31 {
        hz >>= 1;
        shift -= 1;
    }
    while hz <= u128::from(NS_PER_S) && shift < 31 {
        hz <<= 1;
        shift += 1;
    }
    // Recomputed from the exact frequency, which the halving may have rounded.
    let ticks = u128::from(tsc_hz.max(1));
    let scaled = (u128::from(NS_PER_S) << 64) / ticks;
    let multiplier = if shift < 0 { scaled << -shift } else { scaled >> shift } >> 32;
    (multiplier.min(u128::from(u32::MAX)) as u32, shift)
}

/// RDTSC and RDTSCP.
pub(super) fn rdtsc(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    if cpu.cr4(cr4::TSD) && cpu.cpl() != 0 {
        return Err(cpu.gp(0));
    }
    let tsc = cpu.tsc();
    cpu.set_reg(Gpr::Rax, tsc & 0xFFFF_FFFF);
    cpu.set_reg(Gpr::Rdx, tsc >> 32);
    Ok(())
}

/// RDTSCP.
pub(super) fn rdtscp(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    if !cpu.model.has(Feature::Rdtscp) {
        return Err(cpu.ud());
    }
    rdtsc(cpu, op)?;
    cpu.set_reg(Gpr::Rcx, cpu.state.msrs.tsc_aux & 0xFFFF_FFFF);
    Ok(())
}

/// RDPID.
pub(super) fn rdpid(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    if !cpu.model.has(Feature::Rdpid) {
        return Err(cpu.ud());
    }
    let value = cpu.state.msrs.tsc_aux & 0xFFFF_FFFF;
    write_register(cpu, op.instr.op0_register(), value);
    Ok(())
}

/// RDPMC: the four counters that every AMD CPU has, which never count here.
pub(super) fn rdpmc(cpu: &mut Cpu, _op: &Op) -> Result<(), Stop> {
    let allowed = cpu.cpl() == 0 || cpu.cr4(cr4::PCE);
    if !allowed || cpu.reg(Gpr::Rcx) as u32 > 3 {
        return Err(cpu.gp(0));
    }
    cpu.set_reg(Gpr::Rax, 0);
    cpu.set_reg(Gpr::Rdx, 0);
    Ok(())
}

impl Cpu {
    pub(super) fn write_tsc(&mut self, value: u64) {
        let change = value.wrapping_sub(self.tsc());
        let m = &mut self.state.msrs;
        m.tsc_offset = m.tsc_offset.wrapping_add(change);
        m.tsc_adjust = m.tsc_adjust.wrapping_add(change);
        self.publish_system_time();
        // The deadline is a TSC: the moment at which that comes has moved.
        let now = self.clock.now_ns();
        self.apic.advance(now);
        let deadline = self.apic.tsc_deadline();
        if deadline != 0 {
            self.arm_tsc_deadline(deadline);
        }
    }

    /// The deadline is an absolute TSC; 0 disarms.
    pub(super) fn arm_tsc_deadline(&mut self, value: u64) {
        let now = self.clock.now_ns();
        let ticks = u128::from(value.saturating_sub(self.tsc()));
        let wait = (ticks * u128::from(NS_PER_S)).div_ceil(u128::from(self.tsc_hz.max(1)));
        let at = now.saturating_add(u64::try_from(wait).unwrap_or(u64::MAX));
        self.apic.set_tsc_deadline(value, at);
        self.attention = true;
    }

    pub(super) fn write_system_time(&mut self, value: u64) {
        self.state.msrs.kvm_system_time = value;
        self.publish_system_time();
    }

    /// Writes `pvclock_vcpu_time_info`. Its values never change while the TSC runs on.
    fn publish_system_time(&mut self) {
        let value = self.state.msrs.kvm_system_time;
        if value & ENABLED == 0 {
            return;
        }
        let gpa = value & !ENABLED;
        let system_time = self.clock.now_ns();
        let ticks = u128::from(system_time) * u128::from(self.tsc_hz) / u128::from(NS_PER_S);
        let tsc = (ticks as u64).wrapping_add(self.state.msrs.tsc_offset);
        let (multiplier, shift) = clock_scale(self.tsc_hz);
        let mut version = [0; 4];
        let memory = self.tlb.memory();
        // A page that isn't there is the guest's mistake and nothing is told about it.
        let _ = memory.read(gpa, &mut version);
        let version = (u32::from_le_bytes(version) | 1).wrapping_add(1);
        let mut bytes = [0u8; 32];
        let parts: [(usize, &[u8]); 5] = [
            (8, &tsc.to_le_bytes()),
            (16, &system_time.to_le_bytes()),
            (24, &multiplier.to_le_bytes()),
            (28, &shift.to_le_bytes()),
            (29, &[STABLE]),
        ];
        for (at, part) in parts {
            if let Some(place) = bytes.get_mut(at..at + part.len()) {
                place.copy_from_slice(part);
            }
        }
        let odd = version.wrapping_sub(1);
        let _ = memory.write(gpa, &odd.to_le_bytes());
        let _ = memory.write(gpa.wrapping_add(4), bytes.get(4..).unwrap_or_default());
        let _ = memory.write(gpa, &version.to_le_bytes());
    }

    /// Writes `pvclock_wall_clock`: the time of day at system time 0.
    pub(super) fn write_wall_clock(&mut self, value: u64) {
        self.state.msrs.kvm_wall_clock = value;
        let up = self.clock.now_ns();
        let boot = self.clock.wall_clock_s().saturating_mul(NS_PER_S).saturating_sub(up);
        let (seconds, nanoseconds) = (boot / NS_PER_S, boot % NS_PER_S);
        let mut bytes = [0u8; 12];
        let words = [2u32, seconds as u32, nanoseconds as u32];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let _ = self.tlb.memory().write(value, &bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::clock_scale;

    fn nanoseconds(ticks: u64, hz: u64) -> u64 {
        let (multiplier, shift) = clock_scale(hz);
        let shifted = if shift < 0 { ticks >> -shift } else { ticks << shift };
        ((u128::from(shifted) * u128::from(multiplier)) >> 32) as u64
    }

    #[test]
    fn a_second_of_ticks_is_a_second() {
        for hz in
            [400_000_000, 999_999_999, 1_000_000_000, 2_000_000_000, 2_445_123_456, 5_000_000_000]
        {
            let ns = nanoseconds(hz, hz);
            assert!((999_999_990..=1_000_000_010).contains(&ns), "{hz} Hz: {ns} ns");
        }
    }
}
