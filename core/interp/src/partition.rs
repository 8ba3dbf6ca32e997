//! One VM of the interpreter.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;

use kasane_cpu::apic::{ApicBus, ApicMode, LocalApic};
use kasane_cpu::cpuid::CpuModel;
use kasane_cpu::engine::{DebugControl, EngineCaps};
use kasane_cpu::{
    Activity, CpuState, EngineFault, Gpr, Partition, SegmentRegister, StateSet, Vcpu,
};
use kasane_memory::{Ram, SoftTlb, TlbClass};
use kasane_ports::{Clock, Entropy, HeavyBarrier};
use kasane_spec_x86::control::{cr0, dr6};

use crate::accelerator::Accelerator;
use crate::cpu::{CodeSize, Cpu, Fault, Mode, Shadow};
use crate::critical::Critical;
use crate::exclusive::Exclusive;
use crate::io::Replay;

/// Makes the passthrough of one vCPU, or says that the home has none.
pub type MakePassthrough = Arc<dyn Fn() -> Option<kasane_passthrough::Passthrough> + Send + Sync>;

/// Makes the accelerator of one vCPU, if it has one.
pub type MakeAccelerator = Arc<dyn Fn(u32) -> Option<Box<dyn Accelerator>> + Send + Sync>;

/// What a partition is made of.
#[derive(Clone)]
pub struct InterpConfig {
    /// Guest memory.
    pub ram: Arc<Ram>,
    /// The local APICs' mailboxes.
    pub apics: Arc<ApicBus>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Random numbers.
    pub entropy: Arc<dyn Entropy>,
    /// Barrier over the vCPU threads.
    pub barrier: Arc<dyn HeavyBarrier>,
    /// What CPUID says.
    pub model: CpuModel,
    /// TSC frequency in Hz.
    pub tsc_hz: u64,
    /// Makes each vCPU's passthrough.
    pub passthrough: MakePassthrough,
    /// Makes each vCPU's accelerator.
    pub accelerator: MakeAccelerator,
}

/// One VM of the interpreter.
pub struct InterpPartition {
    config: InterpConfig,
    model: Arc<CpuModel>,
    exclusive: Arc<Exclusive>,
}

impl InterpPartition {
    /// A partition for `config.apics.cpus()` vCPUs.
    #[must_use]
    pub fn new(config: InterpConfig) -> Self {
        let model = Arc::new(config.model.clone());
        let exclusive = Arc::new(Exclusive::new(config.apics.clone()));
        Self { config, model, exclusive }
    }
    /// A vCPU by its own type, for tests that look inside.
    ///
    /// # Errors
    /// If the partition has no vCPU `index`.
    pub fn new_cpu(&self, index: u32) -> Result<Cpu, EngineFault> {
        let c = &self.config;
        let Some(mailbox) = c.apics.mailbox(index) else {
            return Err(EngineFault { message: format!("there is no vCPU {index}") });
        };
        let apic = LocalApic::new(index, c.apics.clone(), mailbox.clone());
        let mut cpu = Cpu {
            state: CpuState::reset(index == 0),
            next_rip: 0,
            mode: NO_MODE,
            tlb: SoftTlb::new(c.ram.clone()),
            fault: Fault::default(),
            pending_exit: None,
            replay: Replay::default(),
            code_written: false,
            attention: true,
            suppress_rf_clear: false,
            unfinished: false,
            debug_hits: 0,
            step_override: None,
            shadow: Shadow::None,
            retired: 0,
            clock_check: 0,
            model: self.model.clone(),
            apic,
            mailbox,
            clock: c.clock.clone(),
            entropy: c.entropy.clone(),
            exclusive: self.exclusive.clone(),
            barrier: c.barrier.clone(),
            followers: None,
            tsc_hz: c.tsc_hz,
            index,
            cpus: c.apics.cpus(),
            debugger: DebugControl::default(),
            watch_hits: 0,
            missing: BTreeMap::new(),
            critical: Critical::default(),
            passthrough: (c.passthrough)(),
        };
        cpu.refresh_mode();
        Ok(cpu)
    }
}

/// What can be pending: breakpoints, single step, task switch.
const PENDING_DEBUG: u64 = 0xF | dr6::BS | dr6::BT;

const NO_MODE: Mode = Mode {
    code: CodeSize::Bits16,
    cpl: 0,
    stack_mask: 0xFFFF,
    linear_mask: 0xFFFF_FFFF,
    rip_mask: 0xFFFF_FFFF,
    data: TlbClass::Supervisor,
    fetch: TlbClass::Supervisor,
    base: [0; 6],
    plain: [0; 6],
};

impl Partition for InterpPartition {
    fn caps(&self) -> EngineCaps {
        EngineCaps { name: "interp", max_vcpus: 8, exact_budget: true }
    }
    fn new_vcpu(&self, index: u32) -> Result<Box<dyn Vcpu>, EngineFault> {
        Ok(crate::run::boxed(self.new_cpu(index)?, (self.config.accelerator)(index)))
    }
}

impl Cpu {
    /// INIT (SDM vol. 3A table 9-1): as RESET, but the vector state, the TSC, the MTRRs and the
    /// other MSRs stay. An application processor then waits for a start-up IPI.
    pub fn init(&mut self) {
        let bootstrap = self.index == 0;
        let mut fresh = CpuState::reset(bootstrap);
        if let Some(rdx) = fresh.gpr.get_mut(Gpr::Rdx as usize) {
            *rdx = u64::from(self.signature());
        }
        fresh.vector = self.state.vector.clone();
        fresh.msrs = self.state.msrs.clone();
        fresh.xcr0 = self.state.xcr0;
        const CACHES: u64 = cr0::CD | cr0::NW;
        fresh.cr0 = fresh.cr0 & !CACHES | self.state.cr0 & CACHES;
        if !bootstrap {
            fresh.activity = Activity::WaitForSipi;
        }
        self.state = fresh;
        self.apic.init();
        self.shadow = Shadow::None;
        self.debug_hits = 0;
        self.step_override = None;
        self.suppress_rf_clear = false;
        self.replay.commit();
        self.pending_exit = None;
        self.tlb.flush_all();
        self.refresh_mode();
    }
    /// Start-up IPI: real mode at `vector` * 4096.
    pub fn start_up(&mut self, vector: u8) {
        self.state.cs = SegmentRegister::real_mode(u16::from(vector) << 8);
        self.state.rip = 0;
        self.state.activity = Activity::Running;
        self.refresh_mode();
    }
    /// Copies parts of the state out.
    pub(crate) fn copy_out(&mut self, set: StateSet, to: &mut CpuState) {
        self.state.apic = if set.contains(StateSet::PLATFORM) {
            self.apic.save()
        } else {
            alloc::vec::Vec::new()
        };
        self.state.interrupt_shadow = self.shadow;
        self.state.pending_debug = self.debug_hits;
        copy_parts(set, &self.state, to);
    }
    /// Takes parts of the state over.
    pub(crate) fn copy_in(&mut self, set: StateSet, from: &CpuState) {
        copy_parts(set, from, &mut self.state);
        if set.contains(StateSet::PLATFORM) {
            let base = self.state.msrs.apic_base;
            if self.state.apic.is_empty() {
                self.apic.init();
            } else {
                self.apic.restore(&self.state.apic);
            }
            self.apic.set_base(apic_mode(base), base & 0x000F_FFFF_FFFF_F000);
            self.shadow = from.interrupt_shadow;
            self.debug_hits = from.pending_debug & PENDING_DEBUG;
        }
        self.tlb.flush_all();
        self.refresh_mode();
    }
}

/// The mode that IA32_APIC_BASE switches to.
#[must_use]
pub fn apic_mode(base: u64) -> ApicMode {
    match base >> 10 & 3 {
        3 => ApicMode::X2Apic,
        2 => ApicMode::XApic,
        _ => ApicMode::Disabled,
    }
}

fn copy_parts(set: StateSet, from: &CpuState, to: &mut CpuState) {
    if set.contains(StateSet::GENERAL) {
        to.gpr = from.gpr;
        to.rip = from.rip;
        to.rflags = from.rflags;
    }
    if set.contains(StateSet::SYSTEM) {
        to.es = from.es;
        to.cs = from.cs;
        to.ss = from.ss;
        to.ds = from.ds;
        to.fs = from.fs;
        to.gs = from.gs;
        to.ldtr = from.ldtr;
        to.tr = from.tr;
        to.gdtr = from.gdtr;
        to.idtr = from.idtr;
        to.cr0 = from.cr0;
        to.cr2 = from.cr2;
        to.cr3 = from.cr3;
        to.cr4 = from.cr4;
        to.efer = from.efer;
        to.dr = from.dr;
        to.dr6 = from.dr6;
        to.dr7 = from.dr7;
        to.pdpte = from.pdpte;
    }
    if set.contains(StateSet::VECTOR) {
        to.vector = from.vector.clone();
        to.xcr0 = from.xcr0;
    }
    if set.contains(StateSet::PLATFORM) {
        to.msrs = from.msrs.clone();
        to.activity = from.activity;
        to.interrupt_shadow = from.interrupt_shadow;
        to.pending_debug = from.pending_debug;
        to.nmi_blocked = from.nmi_blocked;
        to.nmi_pending = from.nmi_pending;
        to.smm = from.smm;
        to.smbase = from.smbase;
        to.apic = from.apic.clone();
    }
}
