//! Running the guest between two of the interpreter's looks around.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use iced_x86::Mnemonic;
use kasane_cpu::{Activity, EngineFault};
use kasane_interp::accelerator::{Accelerator, Ran, Step, step};
use kasane_interp::cpu::{Cpu, Stop};
use kasane_metal_cpu as cpu;

use crate::fetch;
use crate::hardware::{Hardware, Look, Reason, Translations};
use crate::vectors::Vectors;

/// Guest time may differ so many ticks from the machine's clock.
const TICKS_APART: u64 = 20_000;

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    exits: u64,
    instructions: u64,
    host: u64,
    windows: u64,
    refused: u64,
}

/// The accelerator of one virtual processor.
pub struct Assisted<H> {
    hardware: H,
    vectors: Vectors,
    tlb: Translations,
    tsc_offset: u64,
    last: Last,
    fault: String,
    counts: Counts,
}

/// The guest when it last ran natively: what the interpreter did to it since shows by that.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    retired: u64,
    /// Instructions that were begun.
    unfinished: u64,
    paging: [u64; 4],
}

/// How a run of the guest goes on.
enum Then {
    Enter,
    Return(Ran),
}

impl<H: Hardware + 'static> Assisted<H> {
    /// For one virtual processor.
    #[must_use]
    pub fn boxed(hardware: H) -> Box<dyn Accelerator> {
        Box::new(Self {
            hardware,
            vectors: Vectors::new(),
            tlb: Translations::Flush,
            tsc_offset: 0,
            last: Last::default(),
            fault: String::new(),
            counts: Counts::default(),
        })
    }
}

impl<H: Hardware> Assisted<H> {
    /// Runs the guest once.
    fn enter(&mut self, cpu: &mut Cpu) -> Reason {
        let offset = cpu.tsc().wrapping_sub(cpu::tsc());
        if (offset.wrapping_sub(self.tsc_offset) as i64).unsigned_abs() > TICKS_APART {
            self.tsc_offset = offset;
        }
        if let Some(deadline) = cpu.apic.deadline_ns() {
            let left = deadline.saturating_sub(cpu.clock.now_ns());
            cpu::arm_timer_no_later_ns(cpu::now_ns().saturating_add(left));
        }
        let look = if cpu.interrupt_waits() { Look::AtWindow } else { Look::No };
        let tlb = core::mem::replace(&mut self.tlb, Translations::Keep);
        self.counts.exits += 1;
        self.hardware.enter(cpu, look, tlb, self.tsc_offset)
    }

    /// The guest's state comes back.
    fn get(&mut self, cpu: &mut Cpu) {
        self.vectors.store(&mut cpu.state.vector);
        self.hardware.get(cpu);
        cpu.tlb.flush_all();
        cpu.refresh_mode();
    }

    /// The interpreter does the instruction at RIP.
    fn emulate(&mut self, cpu: &mut Cpu) -> Then {
        self.counts.instructions += 1;
        let op = match fetch::instruction(cpu) {
            Ok(op) => op,
            Err(stop) => return Then::Return(Ran::Stopped(stop)),
        };
        if changes_translations(op.instr.mnemonic()) {
            self.tlb = Translations::Flush;
        }
        let shadow = core::mem::take(&mut cpu.shadow);
        match step(cpu, &op) {
            Step::Done => Then::Enter,
            Step::Look => Then::Return(Ran::Again),
            Step::Stopped(stop) => {
                cpu.shadow = shadow;
                Then::Return(Ran::Stopped(stop))
            }
        }
    }

    fn after_exit(&mut self, cpu: &mut Cpu, reason: Reason) -> Then {
        match reason {
            Reason::Host => {
                self.counts.host += 1;
                Then::Enter
            }
            Reason::Window => {
                self.counts.windows += 1;
                Then::Return(Ran::Around)
            }
            Reason::Instruction | Reason::NestedFault => self.emulate(cpu),
            Reason::Shutdown => {
                cpu.state.activity = Activity::Shutdown;
                cpu.attention = true;
                Then::Return(Ran::Around)
            }
            // Each make refuses some states that guests can be in (SDM vol. 3C §26.3.1).
            Reason::Invalid => {
                self.counts.refused += 1;
                Then::Return(Ran::One)
            }
            Reason::Unknown => {
                let exit = self.hardware.describe();
                let (rip, cr0, cr4) = (cpu.state.rip, cpu.state.cr0, cpu.state.cr4);
                let name = H::NAME;
                self.fault = format!("{name}: {exit} at {rip:#x}, CR0 {cr0:#x}, CR4 {cr4:#x}");
                Then::Return(Ran::Failed)
            }
        }
    }

    fn run_natively(&mut self, cpu: &mut Cpu) -> Ran {
        loop {
            self.hardware.put(cpu);
            self.vectors.load(&cpu.state.vector, cpu.state.xcr0);
            let mut reason = self.enter(cpu);
            // An interrupt of the host alone is no reason to copy the state; what came in for the
            // guest meanwhile is in its mailbox.
            while reason == Reason::Host && !is_wanted(cpu) {
                self.counts.host += 1;
                reason = self.enter(cpu);
            }
            if reason == Reason::Invalid {
                // What is in there may not even be the guest's.
                self.vectors.store(&mut cpu.state.vector);
            } else {
                self.get(cpu);
            }
            match self.after_exit(cpu, reason) {
                Then::Enter if is_wanted(cpu) || cpu.attention => return Ran::Around,
                Then::Enter => {}
                Then::Return(ran) => return ran,
            }
        }
    }
}

/// What translations depend on.
fn paging(cpu: &Cpu) -> [u64; 4] {
    [cpu.state.cr0, cpu.state.cr3, cpu.state.cr4, cpu.state.efer]
}

/// Whether an instruction that the interpreter does may make translations wrong that the processor
/// keeps. Most that exit are known not to.
const fn changes_translations(mnemonic: Mnemonic) -> bool {
    !matches!(
        mnemonic,
        Mnemonic::In
            | Mnemonic::Out
            | Mnemonic::Insb
            | Mnemonic::Insw
            | Mnemonic::Insd
            | Mnemonic::Outsb
            | Mnemonic::Outsw
            | Mnemonic::Outsd
            | Mnemonic::Cpuid
            | Mnemonic::Hlt
            | Mnemonic::Pause
            | Mnemonic::Rdmsr
            | Mnemonic::Rdtscp
            | Mnemonic::Movsb
            | Mnemonic::Movsw
            | Mnemonic::Movsd
            | Mnemonic::Movsq
            | Mnemonic::Stosb
            | Mnemonic::Stosw
            | Mnemonic::Stosd
            | Mnemonic::Stosq
    )
}

/// Whether somebody left something, or the APIC's timer is due.
fn is_wanted(cpu: &Cpu) -> bool {
    let due = cpu.apic.deadline_ns().is_some_and(|at| at <= cpu.clock.now_ns());
    due || cpu.mailbox.pending() != 0
}

impl<H: Hardware> Accelerator for Assisted<H> {
    fn run(&mut self, cpu: &mut Cpu) -> Ran {
        // A closed A20 gate is nothing that nested tables know.
        if cpu.mailbox.a20_mask() != u64::MAX || cpu.state.smm {
            return Ran::Cold;
        }
        let Some(tlb) = self.hardware.begin() else { return Ran::Cold };
        let done = cpu.retired.wrapping_sub(self.last.retired);
        if tlb == Translations::Flush
            || done > self.last.unfinished
            || self.last.paging != paging(cpu)
        {
            self.tlb = Translations::Flush;
        }
        let ran = self.run_natively(cpu);
        self.hardware.end();
        // What exits to the machine is done by it, and counted then.
        let unfinished = u64::from(ran == Ran::Stopped(Stop::Exit));
        self.last = Last { retired: cpu.retired, unfinished, paging: paging(cpu) };
        ran
    }

    fn fault(&mut self) -> EngineFault {
        EngineFault { message: core::mem::take(&mut self.fault) }
    }

    fn counts(&self) -> Vec<(String, u64)> {
        let Counts { exits, instructions, host, windows, refused } = self.counts;
        let counts = [
            ("exits", exits),
            ("instructions", instructions),
            ("host interrupts", host),
            ("windows", windows),
            ("refused states", refused),
        ];
        counts.into_iter().map(|(what, count)| (format!("{} {what}", H::NAME), count)).collect()
    }
}
