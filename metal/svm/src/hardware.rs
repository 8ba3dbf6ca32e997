//! A virtual processor: its control block and what the block points to.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use kasane_cpu::InterruptShadow;
use kasane_interp::MakeAccelerator;
use kasane_interp::cpu::Cpu;
use kasane_memory::{GuestMemory, Ram};
use kasane_metal_assist::{Assisted, Hardware, Look, Nested, Reason, Translations};
use kasane_metal_cpu as cpu;
use kasane_metal_memory::tables::Format;
use kasane_metal_memory::{PAGE, PageFrames, physical};

use crate::exit::reason;
use crate::state;
use crate::support::host_page;
use crate::vmcb::{Vmcb, control, intercept_1, intercept_2, virtual_interrupt};

const ANYWHERE: core::ops::Range<u64> = 0x10_0000..u64::MAX;
const IO_MAP_LEN: u64 = 3 * PAGE;
const MSR_MAP_LEN: u64 = 2 * PAGE;
/// Flush at entry: nothing, the whole TLB, this guest's.
const FLUSH_NOTHING: u8 = 0;
const FLUSH_ALL: u8 = 1;
const FLUSH_GUEST: u8 = 3;
/// CPUID 8000_000AH EDX: a guest's translations can be flushed alone.
const FLUSH_BY_ASID: u32 = 1 << 6;

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
    let nested = Nested::new(ram, PageFrames::default(), Format::Paging).ok().map(Arc::new);
    let ram = Arc::clone(ram);
    Arc::new(move |_| {
        let maps = MAPS.call_once(Maps::new).as_ref()?;
        let svm = Svm::new(Arc::clone(nested.as_ref()?), Arc::clone(&ram), maps);
        Some(Assisted::boxed(svm))
    })
}

struct Svm {
    vmcb: Box<Vmcb>,
    /// What the control block points to.
    _nested: Arc<Nested<PageFrames>>,
    ram: Arc<Ram>,
    /// What of a TLB is flushed for it.
    flush: u8,
    /// Address spaces that the processor knows.
    spaces: u32,
    /// The processor it ran on last, and that one's page for VMSAVE.
    processor: Option<u32>,
    host: u64,
}

impl Svm {
    fn new(nested: Arc<Nested<PageFrames>>, ram: Arc<Ram>, maps: &Maps) -> Self {
        let mut vmcb: Box<Vmcb> = Box::default();
        let [_, spaces, _, features] = cpu::cpuid(0x8000_000A, 0);
        let spaces = spaces.saturating_sub(1).max(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        vmcb.set_u32(control::CR_INTERCEPTS, CR_INTERCEPTS);
        vmcb.set_u32(control::DR_INTERCEPTS, DR_INTERCEPTS);
        vmcb.set_u32(control::EXCEPTION_INTERCEPTS, EXCEPTIONS);
        vmcb.set_u32(control::INTERCEPTS_1, INTERCEPTS_1);
        vmcb.set_u32(control::INTERCEPTS_2, INTERCEPTS_2);
        vmcb.set_u64(control::IO_MAP, maps.io);
        vmcb.set_u64(control::MSR_MAP, maps.msr);
        vmcb.set_u32(control::ASID, 1 + number % spaces);
        vmcb.set_u64(control::NESTED_PAGING, 1);
        vmcb.set_u64(control::NESTED_CR3, nested.root());
        let flush = if features & FLUSH_BY_ASID != 0 { FLUSH_GUEST } else { FLUSH_ALL };
        Self { vmcb, _nested: nested, ram, flush, spaces, processor: None, host: 0 }
    }
}

impl Hardware for Svm {
    const NAME: &'static str = "svm";

    fn begin(&mut self) -> Option<Translations> {
        self.host = host_page()?;
        let processor = Some(cpu::current());
        let same = core::mem::replace(&mut self.processor, processor) == processor;
        let own = NEXT.load(Ordering::Relaxed) <= self.spaces;
        Some(if same && own { Translations::Keep } else { Translations::Flush })
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
    }

    fn enter(&mut self, cpu: &mut Cpu, look: Look, tlb: Translations, offset: u64) -> Reason {
        let (pending, window) = match look {
            Look::AtWindow => {
                let bits = virtual_interrupt::PENDING | virtual_interrupt::IGNORE_PRIORITY;
                (bits, intercept_1::VINTR)
            }
            Look::No => (0, 0),
        };
        let iret = if cpu.state.nmi_blocked { intercept_1::IRET } else { 0 };
        self.vmcb.set_u32(control::INTERCEPTS_1, INTERCEPTS_1 | window | iret);
        let virtual_interrupt = virtual_interrupt::MASKING | pending;
        self.vmcb.set_u64(control::VIRTUAL_INTERRUPT, virtual_interrupt);
        self.vmcb.set_u64(control::EVENT_INJECTION, 0);
        self.vmcb.set_u64(control::TSC_OFFSET, offset);
        let flush = if tlb == Translations::Flush { self.flush } else { FLUSH_NOTHING };
        self.vmcb.set_u8(control::TLB_CONTROL, flush);
        let guest = core::ptr::from_mut(&mut *self.vmcb).expose_provenance() as u64;
        // SAFETY: the block is complete by `new` and `put`, its tables and maps live as long as it;
        // the hypervisor is identity-mapped, so its address is physical. The page is this
        // processor's by `begin`.
        unsafe { crate::enter::enter(&mut cpu.state.gpr, guest, self.host) }
        reason(self.vmcb.u64(control::EXIT_CODE))
    }

    fn describe(&self) -> String {
        let exit = self.vmcb.u64(control::EXIT_CODE);
        format!("exit {exit:#x} ({:#x})", self.vmcb.u64(control::EXIT_INFO_2))
    }
}
