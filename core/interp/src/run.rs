//! The run loop: blocks, and between them whatever wants attention.
//!
//! Priorities between instructions follow SDM vol. 3A §6.9 table 6-2: INIT, traps of the
//! previous instruction, NMI, maskable interrupts, code breakpoints, then faults of the next
//! instruction.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kasane_cpu::apic::events;
use kasane_cpu::engine::{CriticalCount, DebugControl};
use kasane_cpu::{Activity, CpuState, EngineFault, Entry, Exit, StateSet, Vcpu};
use kasane_ports::Kick;
use kasane_spec_x86::control::{dr6, dr7};
use kasane_spec_x86::flags;

use crate::accelerator::{Accelerator, Ran};
use crate::block::{Block, BlockCache};
use crate::cpu::{Cpu, Fault, Shadow, Stop};
use crate::deliver::Delivered;
use crate::op::Op;

/// A running vCPU looks at the clock once in so many instructions (for its APIC timer).
const CLOCK_INTERVAL: u64 = 2048;

/// What the machine was asked last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    /// By an instruction: the answer goes to the replay log.
    Instruction,
    /// `InterruptWindow`.
    PicVector,
}

/// One vCPU of the interpreter.
pub struct InterpVcpu {
    pub(crate) cpu: Cpu,
    cache: BlockCache,
    asked: Asked,
    kicked: bool,
    /// `retired` at which to stop.
    budget_end: Option<u64>,
    a20_mask: u64,
    /// After a stop at a breakpoint: run this instruction without stopping again.
    skip_breakpoint: bool,
    accelerator: Option<Box<dyn Accelerator>>,
    failed: Option<EngineFault>,
}

impl InterpVcpu {
    pub(crate) fn new(cpu: Cpu) -> Self {
        let a20_mask = cpu.mailbox.a20_mask();
        Self {
            cpu,
            cache: BlockCache::default(),
            asked: Asked::Nothing,
            kicked: false,
            budget_end: None,
            a20_mask,
            skip_breakpoint: false,
            accelerator: None,
            failed: None,
        }
    }
    pub(crate) fn accelerated(mut cpu: Cpu, accelerator: Option<Box<dyn Accelerator>>) -> Self {
        cpu.followers = accelerator.as_ref().and_then(|accelerator| accelerator.followers());
        let cache = if accelerator.is_some() { BlockCache::small() } else { BlockCache::default() };
        Self { accelerator, cache, ..Self::new(cpu) }
    }

    fn enter(&mut self, entry: Entry) -> Option<Exit> {
        match core::mem::replace(&mut self.asked, Asked::Nothing) {
            Asked::Nothing => {}
            Asked::Instruction => self.cpu.replay.answer(entry),
            Asked::PicVector => {
                if let Entry::ExternalInterrupt { vector } = entry {
                    self.cpu.state.activity = Activity::Running;
                    let delivered = self.cpu.deliver_interrupt(vector);
                    return self.after_delivery(delivered);
                }
            }
        }
        self.cpu.clock_check = 0;
        None
    }

    fn after_delivery(&mut self, delivered: Delivered) -> Option<Exit> {
        self.cpu.step_override = None;
        match delivered {
            Delivered::Done => None,
            Delivered::Shutdown => {
                self.cpu.state.activity = Activity::Shutdown;
                Some(Exit::TripleFault)
            }
        }
    }

    /// Takes over what other threads posted.
    fn collect(&mut self) {
        let cpu = &mut self.cpu;
        let posted = cpu.mailbox.take_events();
        if posted & events::KICK != 0 {
            self.kicked = true;
        }
        if posted & events::NMI != 0 {
            cpu.state.nmi_pending = true;
        }
        if posted & events::INTERRUPT != 0 {
            cpu.apic.collect();
        }
        if posted & events::INIT != 0 {
            cpu.init();
        }
        if posted & events::SIPI != 0 && cpu.state.activity == Activity::WaitForSipi {
            cpu.start_up(cpu.mailbox.sipi_vector());
        }
        if cpu.mailbox.a20_mask() != self.a20_mask {
            self.a20_mask = cpu.mailbox.a20_mask();
            cpu.tlb.flush_all();
        }
        cpu.tlb.refresh();
    }

    /// Stands still while another processor has to be alone.
    fn give_way(&self) {
        self.cpu.exclusive.give_way(self.cpu.index, || self.cpu.barrier.relax());
    }

    /// Handles what is pending between two instructions. `Some`: `run` returns.
    fn attend(&mut self) -> Option<Exit> {
        if self.cpu.mailbox.pending() != 0 {
            self.collect();
            self.give_way();
        }
        if self.cpu.retired >= self.cpu.clock_check {
            let now = self.cpu.clock.now_ns();
            self.cpu.apic.advance(now);
            self.cpu.clock_check = self.cpu.retired.wrapping_add(CLOCK_INTERVAL);
        }
        if let Some(vector) = self.cpu.apic.take_eoi() {
            return Some(Exit::Eoi { vector });
        }
        if self.kicked {
            // Not between the answers and the end of an instruction: a kick is where the state is
            // complete, and is saved.
            if self.cpu.replay.active() {
                self.cpu.clock_check = 0;
            } else {
                self.kicked = false;
                return Some(Exit::Kicked);
            }
        }
        match self.cpu.state.activity {
            Activity::Running | Activity::Halted => {}
            Activity::WaitForSipi => {
                self.cpu.clock_check = 0;
                return Some(Exit::Halt);
            }
            Activity::Shutdown => return Some(Exit::TripleFault),
        }
        if self.budget_end.is_some_and(|end| self.cpu.retired >= end) {
            self.budget_end = None;
            return Some(Exit::BudgetUsed);
        }
        if self.cpu.replay.active() || self.cpu.shadow == Shadow::MovSs {
            return None;
        }
        self.take_interrupt()
    }

    fn take_interrupt(&mut self) -> Option<Exit> {
        let cpu = &mut self.cpu;
        if cpu.state.nmi_pending && !cpu.state.nmi_blocked {
            cpu.state.nmi_pending = false;
            cpu.state.activity = Activity::Running;
            let delivered = cpu.deliver_nmi();
            return self.after_delivery(delivered);
        }
        let held = cpu.debugger.single_step && cpu.state.activity == Activity::Running;
        if cpu.state.rflags & flags::IF != 0 && cpu.shadow == Shadow::None && !held {
            if let Some(vector) = cpu.apic.ready() {
                cpu.apic.acknowledge(vector);
                cpu.state.activity = Activity::Running;
                let delivered = cpu.deliver_interrupt(vector);
                return self.after_delivery(delivered);
            }
            if cpu.mailbox.extint() && cpu.apic.passes_extint() {
                self.asked = Asked::PicVector;
                return Some(Exit::InterruptWindow);
            }
        }
        if self.cpu.state.activity == Activity::Halted {
            self.cpu.clock_check = 0;
            return Some(Exit::Halt);
        }
        None
    }

    /// Whether `attend` would find anything; cheap, asked between blocks.
    #[inline(always)]
    fn quiet(&self) -> bool {
        self.cpu.retired < self.cpu.clock_check && !self.cpu.has_business()
    }

    /// Until something needs the machine.
    fn run_guest(&mut self, entry: Entry) -> Exit {
        if let Some(exit) = self.enter(entry) {
            return exit;
        }
        loop {
            if !self.quiet() {
                self.cpu.attention = false;
                if let Some(exit) = self.attend() {
                    return exit;
                }
                if self.cpu.state.activity != Activity::Running {
                    self.cpu.attention = true;
                    continue;
                }
            }
            if let Some(exit) = self.run_block() {
                return exit;
            }
        }
    }

    /// Runs one block, or one instruction where something wants to look after each.
    fn run_block(&mut self) -> Option<Exit> {
        // Of the delivery of an event: a data breakpoint on its frame, a task switch's T bit.
        if self.cpu.debug_hits != 0 && self.cpu.shadow != Shadow::MovSs {
            return self.after_instruction(false);
        }
        let single = self.cpu.stepping() || self.cpu.replay.active() || self.budget_end.is_some();
        if single && let Some(exit) = self.before_instruction() {
            return Some(exit);
        }
        if single {
            return self.run_single();
        }
        let mut most = usize::MAX;
        if let Some(accelerator) = &mut self.accelerator {
            let ran = accelerator.run(&mut self.cpu);
            if matches!(ran, Ran::Around | Ran::OneThenAround) {
                self.cpu.clock_check = 0;
            }
            match ran {
                Ran::Cold => {}
                Ran::Around => return None,
                Ran::Again => return self.after_instruction(false),
                Ran::Stopped(stop) => return self.stopped(stop),
                Ran::One | Ran::OneThenAround => most = 1,
                Ran::Failed => {
                    self.failed = Some(accelerator.fault());
                    return Some(Exit::Kicked); // which nobody sees
                }
            }
        }
        let block = match self.cache.find(&mut self.cpu) {
            Ok(block) => block,
            Err(stop) => return self.stopped(stop),
        };
        match run_ops(&mut self.cpu, block, most) {
            Ok(()) if self.cpu.debug_hits == 0 && self.cpu.step_override.is_none() => None,
            Ok(()) => self.after_instruction(false),
            Err(stop) => self.stopped(stop),
        }
    }

    fn run_single(&mut self) -> Option<Exit> {
        let kept = self.cpu.replay.kept(self.cpu.state.rip);
        let op = match kept {
            Some(op) => op,
            None => match self.cache.find(&mut self.cpu).map(|block| block.ops.first().copied()) {
                Ok(Some(op)) => op,
                Ok(None) => return None,
                Err(stop) => return self.stopped(stop),
            },
        };
        if kept.is_none() {
            self.cpu.replay.commit();
        }
        let op = &op;
        let cpu = &mut self.cpu;
        let stepped = cpu.state.rflags & flags::TF != 0;
        let shadow = core::mem::take(&mut cpu.shadow);
        let hits = cpu.debug_hits;
        cpu.replay.restart();
        cpu.watch_hits = 0;
        cpu.next_rip = op.next_rip;
        cpu.suppress_rf_clear = false;
        let result = (op.run)(cpu, op);
        if let Some(which) = op.critical
            && result != Err(Stop::Exit)
        {
            cpu.critical.trapped(which);
        }
        match result {
            Ok(()) | Err(Stop::Break) => {}
            Err(stop) => {
                cpu.shadow = Shadow::None;
                if stop == Stop::Exit {
                    cpu.replay.keep(cpu.state.rip, op);
                    // It runs again from its start and meets its breakpoints then.
                    cpu.shadow = shadow;
                    cpu.debug_hits = hits;
                }
                return self.stopped(stop);
            }
        }
        cpu.replay.commit();
        cpu.state.rip = cpu.next_rip;
        if !core::mem::take(&mut cpu.unfinished) {
            cpu.retired = cpu.retired.wrapping_add(1);
        }
        cpu.attention |= self.budget_end.is_some_and(|end| cpu.retired >= end);
        cpu.code_written = false;
        if !cpu.suppress_rf_clear {
            cpu.state.rflags &= !flags::RF;
        }
        self.after_instruction(stepped)
    }

    /// Traps of a finished instruction: single step and data breakpoints, the debugger's wishes.
    fn after_instruction(&mut self, stepped: bool) -> Option<Exit> {
        let cpu = &mut self.cpu;
        let stepped = cpu.step_override.take().unwrap_or(stepped);
        let mut bits = if cpu.shadow == Shadow::MovSs { 0 } else { cpu.debug_hits };
        if stepped && cpu.shadow != Shadow::MovSs {
            bits |= dr6::BS;
        }
        if bits != 0 {
            cpu.debug_hits = 0;
            let fault = Fault { vector: 1, error: None, address: 0, dr6: bits };
            let delivered = cpu.deliver_exception(fault);
            if let Some(exit) = self.after_delivery(delivered) {
                return Some(exit);
            }
        }
        let cpu = &mut self.cpu;
        let watched = core::mem::take(&mut cpu.watch_hits);
        if watched != 0 {
            return Some(Exit::Debug { rip: cpu.state.rip, dr6: watched });
        }
        if cpu.debugger.single_step {
            return Some(Exit::Debug { rip: cpu.state.rip, dr6: dr6::BS as u32 });
        }
        None
    }

    /// Breakpoints on the instruction at RIP: the debugger's, then DR0-DR3 (a fault, held back
    /// by RF).
    fn before_instruction(&mut self) -> Option<Exit> {
        let cpu = &mut self.cpu;
        let base = cpu.mode.base.get(1).copied().unwrap_or(0);
        let va = base.wrapping_add(cpu.state.rip) & cpu.mode.linear_mask;
        let skip = core::mem::take(&mut self.skip_breakpoint);
        if !skip && !cpu.replay.active() && cpu.debugger.breakpoints.contains(&va) {
            self.skip_breakpoint = true;
            return Some(Exit::Debug { rip: cpu.state.rip, dr6: 0 });
        }
        if cpu.state.dr7 & dr7::ENABLES == 0
            || cpu.state.rflags & flags::RF != 0
            || cpu.replay.active()
            || cpu.shadow == Shadow::MovSs
        {
            return None;
        }
        let mut hits = 0;
        for n in 0..4u32 {
            let enabled = cpu.state.dr7 >> (n * 2) & 3 != 0;
            let kind = cpu.state.dr7 >> (16 + n * 4) & 3;
            if enabled && kind == 0 && cpu.state.dr.get(n as usize) == Some(&va) {
                hits |= 1u64 << n;
            }
        }
        if hits == 0 {
            return None;
        }
        let stop = cpu.debug_fault(hits);
        self.stopped(stop)
    }

    /// An instruction stopped before it was done.
    fn stopped(&mut self, stop: Stop) -> Option<Exit> {
        let cpu = &mut self.cpu;
        cpu.code_written = false;
        match stop {
            Stop::Break => None,
            Stop::Fault => {
                cpu.replay.commit();
                let fault = cpu.fault;
                let delivered = cpu.deliver_exception(fault);
                // A handler whose first instruction faults retires none, for ever: a fault counts
                // as an instruction for the clock and the budget.
                self.cpu.clock_check = self.cpu.clock_check.saturating_sub(1);
                self.budget_end = self.budget_end.map(|end| end.saturating_sub(1));
                self.cpu.attention |= self.budget_end.is_some();
                self.after_delivery(delivered)
            }
            Stop::Exit => {
                cpu.replay.restart();
                self.asked = Asked::Instruction;
                cpu.pending_exit.take()
            }
        }
    }
}

/// Runs the instructions of a block, `most` of them, until one branches, stops or changes code.
#[inline]
fn run_ops(cpu: &mut Cpu, block: &Block, most: usize) -> Result<(), Stop> {
    let mut done = 0u64;
    let mut result = Ok(());
    for op in block.ops.iter().take(most) {
        cpu.next_rip = op.next_rip;
        match (op.run)(cpu, op) {
            Ok(()) => {
                cpu.state.rip = cpu.next_rip;
                done = done.wrapping_add(1);
                if cpu.code_written {
                    cpu.code_written = false;
                    break;
                }
            }
            Err(Stop::Break) => {
                cpu.state.rip = cpu.next_rip;
                done = done.wrapping_add(u64::from(!core::mem::take(&mut cpu.unfinished)));
                cpu.code_written = false;
                break;
            }
            Err(stop) => {
                if stop == Stop::Exit {
                    cpu.replay.keep(cpu.state.rip, op);
                }
                result = Err(stop);
                break;
            }
        }
    }
    cpu.retired = cpu.retired.wrapping_add(done);
    if block.has_critical {
        // Those that are done, and the one that faulted. What asks the machine runs again.
        let faulted = result == Err(Stop::Fault);
        let count = (done as usize).saturating_add(faulted.into());
        count_critical(cpu, block.ops.get(..count).unwrap_or_default());
    }
    result
}

#[cold]
fn count_critical(cpu: &mut Cpu, ops: &[Op]) {
    ops.iter().filter_map(|op| op.critical).for_each(|which| cpu.critical.trapped(which));
}

impl Vcpu for InterpVcpu {
    fn run(&mut self, entry: Entry) -> Result<Exit, EngineFault> {
        let (exclusive, barrier) = (self.cpu.exclusive.clone(), self.cpu.barrier.clone());
        exclusive.enter(self.cpu.index, || barrier.relax());
        let exit = self.run_guest(entry);
        exclusive.leave(self.cpu.index);
        self.failed.take().map_or(Ok(exit), Err)
    }
    fn read(&mut self, set: StateSet, state: &mut CpuState) {
        if set.contains(StateSet::PLATFORM) {
            // What others posted meanwhile belongs to the state.
            self.collect();
        }
        self.cpu.copy_out(set, state);
    }
    fn write(&mut self, set: StateSet, state: &CpuState) {
        self.cpu.copy_in(set, state);
        self.cpu.attention = true;
    }
    fn kicker(&self) -> Arc<dyn Kick> {
        self.cpu.mailbox.clone()
    }
    fn set_budget(&mut self, instructions: Option<u64>) {
        self.budget_end = instructions.map(|n| self.cpu.retired.saturating_add(n));
        self.cpu.attention = true;
    }
    fn instructions(&self) -> u64 {
        self.cpu.retired
    }
    fn next_deadline_ns(&self) -> Option<u64> {
        self.cpu.apic.deadline_ns()
    }
    fn has_work(&mut self) -> bool {
        if self.cpu.mailbox.pending() != 0 {
            return true;
        }
        if self.cpu.state.activity == Activity::WaitForSipi {
            // Only INIT and a start-up IPI end this, and they come by the mailbox. An NMI waits
            // (SDM vol. 3C §25.2 "wait-for-SIPI").
            return false;
        }
        let now = self.cpu.clock.now_ns();
        self.cpu.apic.advance(now);
        let interrupts = self.cpu.state.rflags & flags::IF != 0;
        self.cpu.state.nmi_pending && !self.cpu.state.nmi_blocked
            || interrupts && self.cpu.interrupt_waits()
    }
    fn set_debug(&mut self, debug: &DebugControl) {
        self.cpu.debugger = debug.clone();
        self.cpu.refresh_mode();
        self.skip_breakpoint = false;
    }
    fn counts(&self) -> Vec<(alloc::string::String, u64)> {
        self.accelerator.as_ref().map_or_else(Vec::new, |accelerator| accelerator.counts())
    }
    fn critical_instructions(&self) -> Vec<CriticalCount> {
        let places = self.accelerator.as_ref().map(|accelerator| accelerator.critical());
        self.cpu.critical.named(&places.unwrap_or_default())
    }
    fn missing_instructions(&self) -> Vec<(alloc::string::String, u64)> {
        self.cpu.missing_instructions()
    }
}

/// For the partition: boxes a vCPU.
pub(crate) fn boxed(cpu: Cpu, accelerator: Option<Box<dyn Accelerator>>) -> Box<dyn Vcpu> {
    Box::new(InterpVcpu::accelerated(cpu, accelerator))
}
