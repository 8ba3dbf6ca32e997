//! A processor for unit tests: a little RAM, code at a fixed place, one instruction at a time,
//! and faults seen instead of delivered.

use alloc::sync::Arc;
use alloc::vec;

use kasane_cpu::apic::ApicBus;
use kasane_cpu::cpuid::{CpuModel, CpuModelName, VECTOR_FEATURES};
use kasane_cpu::{CpuState, Gpr, SegmentRegister};
use kasane_memory::{GuestMemory, Ram, RamSlot};
use kasane_ports::{Clock, Entropy, HeavyBarrier};
use kasane_spec_x86::control::{cr0, cr4, efer};
use kasane_spec_x86::paging;

use crate::block::BlockCache;
use crate::cpu::{Cpu, Fault, Stop};
use crate::op::Op;
use crate::partition::{InterpConfig, InterpPartition};
use crate::run::InterpVcpu;

/// Where the code is, in 64- and 32-bit code.
pub(crate) const CODE: u64 = 0x10_0000;
/// Where the code is in real mode.
pub(crate) const CODE16: u64 = 0x7000;
/// Free for data.
pub(crate) const DATA: u64 = 0x20_0000;
/// Top of the stack.
pub(crate) const STACK: u64 = 0x30_0000;
const MEMORY: usize = 4 << 20;

struct Quiet;
impl Clock for Quiet {
    fn now_ns(&self) -> u64 {
        1_000_000
    }
    fn wall_clock_s(&self) -> u64 {
        0
    }
}
impl Entropy for Quiet {
    fn fill(&self, buf: &mut [u8]) {
        buf.fill(0x5A);
    }
}
impl HeavyBarrier for Quiet {
    fn synchronize(&self) {}
    fn relax(&self) {
        std::thread::yield_now();
    }
}

/// A processor with memory.
pub(crate) struct TestCpu {
    pub(crate) cpu: Cpu,
    pub(crate) ram: Arc<Ram>,
    pub(crate) apics: Arc<ApicBus>,
    cache: BlockCache,
    partition: InterpPartition,
}

fn flat(access: u16) -> SegmentRegister {
    SegmentRegister { selector: 0x10, access, limit: u32::MAX, base: 0 }
}

fn partition(ram: &Arc<Ram>, apics: &Arc<ApicBus>) -> InterpPartition {
    InterpPartition::new(InterpConfig {
        ram: ram.clone(),
        apics: apics.clone(),
        clock: Arc::new(Quiet),
        entropy: Arc::new(Quiet),
        barrier: Arc::new(Quiet),
        model: CpuModel::new(CpuModelName::Max, VECTOR_FEATURES),
        tsc_hz: 1_000_000_000,
        passthrough: Arc::new(|| None),
        accelerator: Arc::new(|_| None),
    })
}

impl TestCpu {
    fn with_memory() -> Self {
        let ram = Arc::new(Ram::new(vec![RamSlot::allocated(0, MEMORY)]));
        let apics = Arc::new(ApicBus::new(2));
        let partition = partition(&ram, &apics);
        let mut cpu = partition.new_cpu(0).unwrap();
        cpu.state = CpuState::reset(true);
        Self { cpu, ram, apics, cache: BlockCache::default(), partition }
    }
    /// 64-bit code at ring 0, memory mapped where it is.
    pub(crate) fn code64(code: &[u8]) -> Self {
        let mut it = Self::with_memory();
        let table = paging::P | paging::RW;
        it.ram.store_u64(0x1000, 0x2000 | table).unwrap();
        it.ram.store_u64(0x2000, 0x3000 | table).unwrap();
        it.ram.store_u64(0x3000, paging::PS | table).unwrap();
        it.ram.store_u64(0x3008, 0x20_0000 | paging::PS | table).unwrap();
        let state = &mut it.cpu.state;
        state.cr0 = cr0::PE | cr0::PG | cr0::WP | cr0::ET | cr0::NE;
        state.cr3 = 0x1000;
        state.cr4 = cr4::PAE;
        state.efer = efer::LME | efer::LMA;
        state.cs = flat(0xA09B);
        it.start(CODE, code)
    }
    /// 32-bit protected-mode code at ring 0 with flat segments, no paging.
    pub(crate) fn code32(code: &[u8]) -> Self {
        let mut it = Self::with_memory();
        it.cpu.state.cr0 = cr0::PE | cr0::ET | cr0::NE;
        it.cpu.state.cs = flat(0xC09B);
        it.start(CODE, code)
    }
    /// Real-mode code with all segments at 0.
    pub(crate) fn code16(code: &[u8]) -> Self {
        let mut it = Self::with_memory();
        it.ram.write(CODE16, code).unwrap();
        let state = &mut it.cpu.state;
        state.cs = SegmentRegister::real_mode(0);
        state.rip = CODE16;
        state.gpr[Gpr::Rsp as usize] = 0x6000;
        it.cpu.refresh_mode();
        it
    }
    fn start(mut self, at: u64, code: &[u8]) -> Self {
        self.ram.write(at, code).unwrap();
        let state = &mut self.cpu.state;
        state.ss = flat(0xC093);
        state.ds = flat(0xC093);
        state.es = flat(0xC093);
        state.rip = at;
        state.gpr[Gpr::Rsp as usize] = STACK;
        self.cpu.refresh_mode();
        self
    }
    /// With a register set.
    pub(crate) fn with(mut self, r: Gpr, value: u64) -> Self {
        self.cpu.set_reg(r, value);
        self
    }
    /// With flags set.
    pub(crate) fn with_flags(mut self, bits: u64) -> Self {
        self.cpu.state.rflags |= bits;
        self
    }
    /// With memory written.
    pub(crate) fn with_memory_at(self, at: u64, bytes: &[u8]) -> Self {
        self.ram.write(at, bytes).unwrap();
        self
    }
    /// The other processor of the machine, in the same state but with other code.
    pub(crate) fn other(&self, at: u64, code: &[u8]) -> InterpVcpu {
        let mut cpu = self.partition.new_cpu(1).unwrap();
        cpu.state = self.cpu.state.clone();
        cpu.state.rip = at;
        self.ram.write(at, code).unwrap();
        cpu.refresh_mode();
        InterpVcpu::new(cpu)
    }
    /// The same processor with its run loop.
    pub(crate) fn vcpu(self) -> InterpVcpu {
        InterpVcpu::new(self.cpu)
    }
    /// Runs one instruction; the fault if it has one.
    pub(crate) fn step(&mut self) -> Result<(), Fault> {
        let cpu = &mut self.cpu;
        let result = match self.cache.find(cpu) {
            Ok(block) => {
                let op = block.ops.first().unwrap();
                cpu.next_rip = op.next_rip;
                (op.run)(cpu, op)
            }
            Err(stop) => Err(stop),
        };
        match result {
            Ok(()) | Err(Stop::Break) => {
                cpu.state.rip = cpu.next_rip;
                Ok(())
            }
            Err(Stop::Fault) => Err(cpu.fault),
            Err(Stop::Exit) => panic!("exit {:?}", cpu.pending_exit),
        }
    }
    /// The instruction at RIP, for tests that run its handler themselves.
    pub(crate) fn decode(&mut self) -> Op {
        let mut block = BlockCache::default();
        let found = block.find(&mut self.cpu).unwrap();
        let op = found.ops.first().unwrap();
        Op { ..*op }
    }
    /// Runs `n` instructions, none of which faults.
    pub(crate) fn steps(&mut self, n: usize) {
        for _ in 0..n {
            self.step().unwrap();
        }
    }
    /// A register.
    pub(crate) fn reg(&self, r: Gpr) -> u64 {
        self.cpu.reg(r)
    }
    /// Eight bytes of memory.
    pub(crate) fn memory(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.ram.read(at, &mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    }
}
