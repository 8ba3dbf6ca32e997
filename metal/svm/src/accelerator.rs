//! Running the guest between two of the interpreter's looks around.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use kasane_cpu::{Activity, EngineFault, InterruptShadow};
use kasane_interp::MakeAccelerator;
use kasane_interp::accelerator::{Accelerator, Ran, Step, step};
use kasane_interp::cpu::Cpu;
use kasane_memory::{GuestMemory, Ram};
use kasane_metal_cpu as cpu;
use kasane_metal_memory::{PAGE, physical};

use crate::exit::Reason;
use crate::fetch;
use crate::nested::Nested;
use crate::state;
use crate::support::host_page;
use crate::vectors::Vectors;
use crate::vmcb::{Vmcb, control, intercept_1, intercept_2, virtual_interrupt};

const ANYWHERE: core::ops::Range<u64> = 0x10_0000..u64::MAX;
const IO_MAP_LEN: u64 = 3 * PAGE;
const MSR_MAP_LEN: u64 = 2 * PAGE;
/// An event that was being delivered when the guest exited.
const EVENT_VALID: u64 = 1 << 31;
/// Flush the whole TLB at entry; nothing.
const FLUSH_ALL: u8 = 1;
const FLUSH_NOTHING: u8 = 0;
/// Guest time may differ so many ticks from the machine's clock.
const TICKS_APART: u64 = 20_000;

const INTERCEPTS_1: u32 = intercept_1::INTR
    | intercept_1::NMI
    | intercept_1::SMI
    | intercept_1::INIT
    | intercept_1::RDPMC
    | intercept_1::CPUID
    | intercept_1::RSM
    | intercept_1::INVD
    | intercept_1::HLT
    | intercept_1::INVLPGA
    | intercept_1::IO
    | intercept_1::MSR
    | intercept_1::FERR_FREEZE
    | intercept_1::SHUTDOWN;
const INTERCEPTS_2: u32 = intercept_2::VMRUN
    | intercept_2::VMMCALL
    | intercept_2::VMLOAD
    | intercept_2::VMSAVE
    | intercept_2::STGI
    | intercept_2::CLGI
    | intercept_2::SKINIT
    | intercept_2::RDTSCP
    | intercept_2::WBINVD
    | intercept_2::MONITOR
    | intercept_2::MWAIT
    | intercept_2::MWAIT_ARMED
    | intercept_2::XSETBV;
/// Writes of CR0 (caches, FERR), CR4 and CR8, and reads of CR8.
const CR_INTERCEPTS: u32 = 1 << 16 | 1 << 20 | 1 << 24 | 1 << 8;
/// All debug registers: with breakpoints the interpreter runs the guest.
const DR_INTERCEPTS: u32 = u32::MAX;
/// #UD: an instruction that this processor lacks may be one of the guest's.
const EXCEPTIONS: u32 = 1 << 6;

/// MSRs that the guest has to itself: SYSENTER's, and those of long mode (STAR to SFMASK, FS, GS
/// and kernel GS base). All are in the control block.
const OWN_MSRS: [u32; 10] = [
    0x174,
    0x175,
    0x176,
    0xC000_0081,
    0xC000_0082,
    0xC000_0083,
    0xC000_0084,
    0xC000_0100,
    0xC000_0101,
    0xC000_0102,
];

/// Permission maps, for all guests: nearly everything exits.
struct Maps {
    io: u64,
    msr: u64,
}

impl Maps {
    fn new() -> Option<Self> {
        let io = physical::take(IO_MAP_LEN, PAGE, ANYWHERE)?;
        let msr = physical::take(MSR_MAP_LEN, PAGE, ANYWHERE)?;
        // SAFETY: just taken, for ever.
        unsafe {
            fill(io, IO_MAP_LEN);
            fill(msr, MSR_MAP_LEN);
            OWN_MSRS.iter().for_each(|index| allow(msr, *index));
        }
        Some(Self { io, msr })
    }
}

unsafe fn fill(at: u64, len: u64) {
    let at: *mut u8 = core::ptr::with_exposed_provenance_mut(at as usize);
    // SAFETY: by the caller.
    unsafe { at.write_bytes(0xFF, len as usize) }
}

/// Clears the two bits of an MSR (APM vol. 2 §15.11).
unsafe fn allow(map: u64, index: u32) {
    let first = if index >= 0xC000_0000 { 0x800 } else { 0 };
    let number = index & 0x1FFF;
    let at: *mut u8 = core::ptr::with_exposed_provenance_mut((map + first) as usize);
    // SAFETY: by the caller; the byte is in the map's first 4 KiB.
    unsafe {
        let byte = at.add(number as usize / 4);
        byte.write(byte.read() & !(3 << (number % 4 * 2)));
    }
}

static MAPS: spin::Once<Option<Maps>> = spin::Once::new();
/// Address spaces are given out in turn; who shares one flushes.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Makes the accelerators of a machine's processors; none where there is no memory for tables.
pub fn accelerators(ram: &Arc<Ram>) -> MakeAccelerator {
    let nested = Nested::new(ram).ok().map(Arc::new);
    let ram = Arc::clone(ram);
    Arc::new(move |_| {
        let maps = MAPS.call_once(Maps::new).as_ref()?;
        let svm = Svm::new(Arc::clone(nested.as_ref()?), Arc::clone(&ram), maps);
        Some(Box::new(svm))
    })
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    exits: u64,
    instructions: u64,
    host: u64,
    windows: u64,
}

struct Svm {
    vmcb: Box<Vmcb>,
    vectors: Vectors,
    /// What the control block points to.
    _nested: Arc<Nested>,
    ram: Arc<Ram>,
    flush: bool,
    fault: String,
    counts: Counts,
}

/// How a run of the guest goes on.
enum Then {
    Enter,
    Return(Ran),
}

impl Svm {
    fn new(nested: Arc<Nested>, ram: Arc<Ram>, maps: &Maps) -> Self {
        let mut vmcb: Box<Vmcb> = Box::default();
        let [_, spaces, ..] = cpu::cpuid(0x8000_000A, 0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        vmcb.set_u32(control::CR_INTERCEPTS, CR_INTERCEPTS);
        vmcb.set_u32(control::DR_INTERCEPTS, DR_INTERCEPTS);
        vmcb.set_u32(control::EXCEPTION_INTERCEPTS, EXCEPTIONS);
        vmcb.set_u32(control::INTERCEPTS_1, INTERCEPTS_1);
        vmcb.set_u32(control::INTERCEPTS_2, INTERCEPTS_2);
        vmcb.set_u64(control::IO_MAP, maps.io);
        vmcb.set_u64(control::MSR_MAP, maps.msr);
        vmcb.set_u32(control::ASID, 1 + number % spaces.saturating_sub(1).max(1));
        vmcb.set_u64(control::NESTED_PAGING, 1);
        vmcb.set_u64(control::NESTED_CR3, nested.root());
        let (vectors, fault, counts) = (Vectors::new(), String::new(), Counts::default());
        Self { vmcb, vectors, _nested: nested, ram, flush: true, fault, counts }
    }

    /// Interrupts that wait until the guest can take them, the APIC's timer, and the counter.
    fn prepare(&mut self, cpu: &mut Cpu) {
        let waiting = cpu.interrupt_waits();
        let (pending, window) = if waiting {
            let bits = virtual_interrupt::PENDING | virtual_interrupt::IGNORE_PRIORITY;
            (bits, intercept_1::VINTR)
        } else {
            (0, 0)
        };
        let iret = if cpu.state.nmi_blocked { intercept_1::IRET } else { 0 };
        self.vmcb.set_u32(control::INTERCEPTS_1, INTERCEPTS_1 | window | iret);
        let virtual_interrupt = virtual_interrupt::MASKING | pending;
        self.vmcb.set_u64(control::VIRTUAL_INTERRUPT, virtual_interrupt);
        self.vmcb.set_u64(control::EVENT_INJECTION, 0);
        let flush = if self.flush { FLUSH_ALL } else { FLUSH_NOTHING };
        self.vmcb.set_u8(control::TLB_CONTROL, flush);
        self.flush = false;
        let offset = cpu.tsc().wrapping_sub(cpu::tsc());
        let old = self.vmcb.u64(control::TSC_OFFSET);
        if (offset.wrapping_sub(old) as i64).unsigned_abs() > TICKS_APART {
            self.vmcb.set_u64(control::TSC_OFFSET, offset);
        }
        if let Some(deadline) = cpu.apic.deadline_ns() {
            let left = deadline.saturating_sub(cpu.clock.now_ns());
            cpu::arm_timer_no_later_ns(cpu::now_ns().saturating_add(left));
        }
    }

    fn put(&mut self, cpu: &Cpu) {
        state::put(&mut self.vmcb, &cpu.state, cpu.mode.cpl, cpu.shadow);
    }

    fn get(&mut self, cpu: &mut Cpu) {
        let shadow = state::get(&self.vmcb, &mut cpu.state);
        // A shadow that was there before is the same one as long as nothing ran.
        if shadow == InterruptShadow::None || cpu.shadow == InterruptShadow::None {
            cpu.shadow =
                if shadow == InterruptShadow::None { shadow } else { InterruptShadow::Sti };
        }
        if state::wants_pdptes(&cpu.state) {
            let at = cpu.state.cr3 & 0xFFFF_FFE0;
            for (entry, at) in cpu.state.pdpte.iter_mut().zip((at..).step_by(8)) {
                *entry = self.ram.load_u64(at).unwrap_or(0);
            }
        }
        cpu.tlb.flush_all();
        cpu.refresh_mode();
    }

    /// Runs the guest once. The processor's state is in the control block before and after, but for
    /// the general registers.
    fn enter(&mut self, cpu: &mut Cpu, host: u64) -> Reason {
        self.prepare(cpu);
        let guest = core::ptr::from_mut(&mut *self.vmcb).expose_provenance() as u64;
        // SAFETY: the block is complete by `new` and `put`, its tables and maps live as long as it;
        // the hypervisor is identity-mapped, so its address is physical.
        unsafe { crate::enter::enter(&mut cpu.state.gpr, guest, host) }
        self.counts.exits += 1;
        Reason::from_code(self.vmcb.u64(control::EXIT_CODE))
    }

    /// The interpreter does the instruction at RIP.
    fn emulate(&mut self, cpu: &mut Cpu) -> Then {
        self.counts.instructions += 1;
        self.flush = true;
        let op = match fetch::instruction(cpu) {
            Ok(op) => op,
            Err(stop) => return Then::Return(Ran::Stopped(stop)),
        };
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
            Reason::Instruction => self.emulate(cpu),
            Reason::NestedFault if !self.was_delivering() => self.emulate(cpu),
            Reason::Shutdown => {
                cpu.state.activity = Activity::Shutdown;
                cpu.attention = true;
                Then::Return(Ran::Around)
            }
            Reason::NestedFault | Reason::Invalid | Reason::Unknown => {
                let exit = self.vmcb.u64(control::EXIT_CODE);
                let info = self.vmcb.u64(control::EXIT_INFO_2);
                let (rip, cr0, cr4) = (cpu.state.rip, cpu.state.cr0, cpu.state.cr4);
                self.fault = format!(
                    "AMD-V: {reason:?}, exit {exit:#x} ({info:#x}) at {rip:#x}, CR0 {cr0:#x}, CR4 {cr4:#x}"
                );
                Then::Return(Ran::Failed)
            }
        }
    }

    fn was_delivering(&self) -> bool {
        self.vmcb.u64(control::EXIT_INTERRUPT_INFO) & EVENT_VALID != 0
    }

    fn run_natively(&mut self, cpu: &mut Cpu, host: u64) -> Ran {
        loop {
            self.put(cpu);
            self.vectors.load(&cpu.state.vector, cpu.state.xcr0);
            let mut reason = self.enter(cpu, host);
            // An interrupt of the host alone is no reason to copy the state; what came in for the
            // guest meanwhile is in its mailbox.
            while reason == Reason::Host && !is_wanted(cpu) && !self.was_delivering() {
                self.counts.host += 1;
                reason = self.enter(cpu, host);
            }
            self.vectors.store(&mut cpu.state.vector);
            self.get(cpu);
            match self.after_exit(cpu, reason) {
                Then::Enter if is_wanted(cpu) || cpu.attention => return Ran::Around,
                Then::Enter => {}
                Then::Return(ran) => return ran,
            }
        }
    }
}

/// Whether somebody left something, or the APIC's timer is due.
fn is_wanted(cpu: &Cpu) -> bool {
    let due = cpu.apic.deadline_ns().is_some_and(|at| at <= cpu.clock.now_ns());
    due || cpu.mailbox.pending() != 0
}

impl Accelerator for Svm {
    fn run(&mut self, cpu: &mut Cpu) -> Ran {
        let Some(host) = host_page() else { return Ran::Cold };
        // A closed A20 gate is nothing that nested tables know.
        if cpu.mailbox.a20_mask() != u64::MAX || cpu.state.smm {
            return Ran::Cold;
        }
        // Another processor, or another guest on this one, may have been in between.
        self.flush = true;
        self.run_natively(cpu, host)
    }

    fn fault(&mut self) -> EngineFault {
        EngineFault { message: core::mem::take(&mut self.fault) }
    }

    fn counts(&self) -> Vec<(String, u64)> {
        let Counts { exits, instructions, host, windows } = self.counts;
        let counts = [
            ("svm exits", exits),
            ("svm instructions", instructions),
            ("svm host interrupts", host),
            ("svm windows", windows),
        ];
        counts.into_iter().map(|(name, count)| (String::from(name), count)).collect()
    }
}
