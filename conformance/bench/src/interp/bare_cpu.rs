//! A vCPU without a machine: flat 64-bit code at ring 0 over identity-mapped memory.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use kasane_cpu::apic::ApicBus;
use kasane_cpu::cpuid::{CpuModel, CpuModelName, VECTOR_FEATURES};
use kasane_cpu::{CpuState, Partition, StateSet, Vcpu};
use kasane_interp::{InterpConfig, InterpPartition};
use kasane_memory::{GuestMemory, Ram, RamSlot};
use kasane_ports::{Clock, Entropy, HeavyBarrier};
use kasane_spec_x86::control::{cr0, cr4, efer};
use kasane_spec_x86::paging;

struct HostClock(Instant);

impl Clock for HostClock {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
    fn wall_clock_s(&self) -> u64 {
        0
    }
}

struct NoEntropy;
impl Entropy for NoEntropy {
    fn fill(&self, buf: &mut [u8]) {
        buf.fill(0x5A);
    }
}

/// One vCPU: nothing to synchronize with.
struct OneThread;
impl HeavyBarrier for OneThread {
    fn synchronize(&self) {}
}

/// Where the code starts.
pub(super) const CODE: u64 = 0x10_0000;
/// Data, and above it the stack.
pub(super) const DATA: u64 = 0x20_0000;
const MEMORY: usize = 4 << 20;

/// A vCPU that is about to run `code` at [`CODE`].
pub(super) fn with_code(code: &[u8]) -> Result<Box<dyn Vcpu>> {
    let ram = Arc::new(Ram::new(vec![RamSlot::allocated(0, MEMORY)]));
    // PML4 at 0x1000, PDPT at 0x2000, page directory at 0x3000 with two 2 MiB pages.
    let table = paging::P | paging::RW;
    ram.store_u64(0x1000, 0x2000 | table)?;
    ram.store_u64(0x2000, 0x3000 | table)?;
    ram.store_u64(0x3000, paging::PS | table)?;
    ram.store_u64(0x3008, 0x20_0000 | paging::PS | table)?;
    ram.write(CODE, code)?;
    let partition = InterpPartition::new(InterpConfig {
        ram,
        apics: Arc::new(ApicBus::new(1)),
        clock: Arc::new(HostClock(Instant::now())),
        entropy: Arc::new(NoEntropy),
        barrier: Arc::new(OneThread),
        model: CpuModel::new(CpuModelName::Max, VECTOR_FEATURES),
        tsc_hz: 1_000_000_000,
        passthrough: Arc::new(|| None),
        accelerator: Arc::new(|_| None),
    });
    let mut vcpu = partition.new_vcpu(0)?;
    let mut state = CpuState::reset(true);
    state.cr0 = cr0::PE | cr0::PG | cr0::WP | cr0::ET | cr0::NE;
    state.cr3 = 0x1000;
    state.cr4 = cr4::PAE;
    state.efer = efer::LME | efer::LMA;
    state.cs.access = 0xA09B;
    state.cs.selector = 8;
    state.cs.base = 0;
    state.cs.limit = u32::MAX;
    for seg in [&mut state.ss, &mut state.ds, &mut state.es] {
        seg.access = 0xC093;
        seg.limit = u32::MAX;
    }
    state.rip = CODE;
    if let Some(rsp) = state.gpr.get_mut(4) {
        *rsp = DATA + 0x10_0000;
    }
    vcpu.write(StateSet::ALL, &state);
    Ok(vcpu)
}
