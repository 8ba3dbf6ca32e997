//! A virtual processor: its control structure and what that points to.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU16, Ordering};

use kasane_interp::MakeAccelerator;
use kasane_interp::cpu::Cpu;
use kasane_memory::Ram;
use kasane_metal_assist::{Assisted, Hardware, Look, Nested, Reason, Translations};
use kasane_metal_cpu as cpu;
use kasane_metal_memory::tables::Format;
use kasane_metal_memory::{PAGE, PageFrames, physical};
use kasane_spec_x86::control::cr0;

use crate::controls::{Capabilities, exit as exit_controls, pin, primary, secondary};
use crate::current::{self, Current};
use crate::enter::{Beside, Launched, enter, raise_nmi};
use crate::exit::{Exit, exit};
use crate::msrs::{Bitmap, LISTED, List};
use crate::support::{capabilities, is_on, region};
use crate::vmcs::{self, Fields, control, guest};
use crate::{host, state};

/// The extended page tables' pointer: write-back, four levels.
const EPT_FORM: u64 = 6 | 3 << 3;
/// #UD: an instruction that this processor lacks may be one of the guest's. #MF: the guest may want
/// numeric errors by FERR#.
const UD: u32 = 1 << 6;
const MF: u32 = 1 << 16;
/// A guest exits after so many nanoseconds in any case: emulators hold interrupts of the host back
/// from one that was entered with its own off.
const LONGEST_NS: u64 = 4_000_000;

static BITMAP: spin::Once<Box<Bitmap>> = spin::Once::new();
/// Tags are given out in turn; 0 is the hypervisor's.
static NEXT: AtomicU16 = AtomicU16::new(1);

/// Makes the accelerators of a machine's processors; none where there is no memory for tables.
pub fn accelerators(ram: &Arc<Ram>) -> MakeAccelerator {
    let nested = Nested::new(ram, PageFrames::default(), Format::Extended).ok().map(Arc::new);
    Arc::new(move |_| Some(Assisted::boxed(Vmx::new(Arc::clone(nested.as_ref()?))?)))
}

struct Vmx {
    can: Capabilities,
    /// Physical address of the control structure.
    structure: u64,
    nested: Arc<Nested<PageFrames>>,
    msrs: Box<List>,
    tag: Option<u16>,
    timer_count: u64,
    launched: Launched,
    /// The processor it ran on last.
    processor: Option<u32>,
    /// Its fields that never change are written.
    set_up: bool,
}

impl Vmx {
    fn new(nested: Arc<Nested<PageFrames>>) -> Option<Self> {
        let can = capabilities();
        let structure = region(can.revision)?;
        let tag = NEXT.fetch_add(1, Ordering::Relaxed).max(1);
        let ticks = u128::from(LONGEST_NS) * u128::from(cpu::ticks_per_second()) / 1_000_000_000;
        Some(Self {
            can,
            structure,
            nested,
            msrs: Box::default(),
            tag: can.tags().then_some(tag),
            timer_count: (ticks as u64) >> can.timer_shift,
            launched: Launched::No,
            processor: None,
            set_up: false,
        })
    }

    /// What never changes.
    fn set_up(&mut self) {
        let can = &self.can;
        let timer = if can.has_timer() { pin::PREEMPTION_TIMER } else { 0 };
        let tags = if self.tag.is_some() { secondary::VPID } else { 0 };
        let invpcid = if can.secondary.has(secondary::INVPCID) { secondary::INVPCID } else { 0 };
        let count = LISTED.len() as u64;
        let [store, store_count] = control::EXIT_MSR_STORE;
        let [load, load_count] = control::ENTRY_MSR_LOAD;
        let bitmap = BITMAP.call_once(Box::default).address();
        for (field, value) in [
            (control::PIN_BASED, can.pin.word(pin::NEEDED | timer).into()),
            (control::SECONDARY, can.secondary.word(secondary::NEEDED | tags | invpcid).into()),
            (control::EXIT, can.exit.word(exit_controls::NEEDED).into()),
            (control::VPID, self.tag.unwrap_or(0).into()),
            (control::MSR_BITMAP, bitmap),
            (store, self.msrs.address()),
            (store_count, count),
            (load, self.msrs.address()),
            (load_count, count),
            (control::EXIT_MSR_LOAD_COUNT, 0),
            (control::EPT_POINTER, self.nested.root() | EPT_FORM),
            (control::CR3_TARGETS, 0),
            (control::ENTRY_EVENT, 0),
            (guest::LINK, u64::MAX),
            (guest::DEBUGCTL, 0),
        ] {
            Current.write(field, value);
        }
        self.set_up = true;
    }

    fn after(&self) -> Reason {
        let reason = Current.read(vmcs::exit::REASON) as u32;
        match exit(reason, Current.read(vmcs::exit::EVENT) as u32) {
            Exit::Nmi => {
                raise_nmi();
                Reason::Host
            }
            Exit::For(reason) => reason,
        }
    }
}

impl Hardware for Vmx {
    const NAME: &'static str = "vmx";

    fn begin(&mut self) -> Option<Translations> {
        if !is_on() {
            return None;
        }
        // SAFETY: VT-x is on; the structure is this virtual processor's and no processor's now.
        let loaded = unsafe { current::clear(self.structure) && current::load(self.structure) };
        if !loaded {
            return None;
        }
        self.launched = Launched::No;
        if !self.set_up {
            self.set_up();
        }
        let processor = Some(cpu::current());
        let same = core::mem::replace(&mut self.processor, processor) == processor;
        if !same {
            host::put(&mut Current);
        }
        Some(if same { Translations::Keep } else { Translations::Flush })
    }

    fn end(&mut self) {
        // SAFETY: VT-x is on, and this is the current structure.
        unsafe { current::clear(self.structure) };
    }

    fn put(&mut self, cpu: &Cpu) {
        state::put(&mut Current, (&cpu.state, cpu.mode.cpl, cpu.shadow), &self.can);
        let msrs = &cpu.state.msrs;
        self.msrs.put([msrs.star, msrs.lstar, msrs.cstar, msrs.fmask, msrs.kernel_gs_base]);
        let errors = if cpu.state.cr0 & cr0::NE == 0 { MF } else { 0 };
        Current.write(control::EXCEPTIONS, (UD | errors).into());
    }

    fn get(&mut self, cpu: &mut Cpu) {
        cpu.shadow = state::get(&Current, &mut cpu.state);
        let msrs = &mut cpu.state.msrs;
        [msrs.star, msrs.lstar, msrs.cstar, msrs.fmask, msrs.kernel_gs_base] = self.msrs.get();
    }

    fn enter(&mut self, cpu: &mut Cpu, look: Look, tlb: Translations, offset: u64) -> Reason {
        let window = if look == Look::AtWindow { primary::INTERRUPT_WINDOW } else { 0 };
        let wanted = primary::NEEDED & !primary::INTERRUPT_WINDOW | window;
        Current.write(control::PROCESSOR_BASED, self.can.primary.word(wanted).into());
        Current.write(control::TSC_OFFSET, offset);
        if self.can.has_timer() {
            Current.write(guest::PREEMPTION_TIMER, self.timer_count);
        }
        if let (Translations::Flush, Some(tag)) = (tlb, self.tag) {
            // SAFETY: tags are only used where INVVPID is there.
            unsafe { current::flush(tag) }
        }
        let state = &mut cpu.state;
        let beside = Beside { general: &mut state.gpr, cr2: &mut state.cr2, dr6: &mut state.dr6 };
        // SAFETY: the structure is current since `begin` and complete by `set_up`, `host::put` and
        // `put`; tables, bitmap and list live as long as this.
        if !unsafe { enter(beside, self.launched) } {
            return Reason::Unknown;
        }
        self.launched = Launched::Yes;
        let reason = self.after();
        if reason == Reason::Invalid {
            // Such an entry has launched nothing.
            self.launched = Launched::No;
        }
        reason
    }

    fn describe(&self) -> String {
        let [reason, qualification, error] =
            [vmcs::exit::REASON, vmcs::exit::QUALIFICATION, vmcs::exit::INSTRUCTION_ERROR]
                .map(|field| Current.read(field));
        format!("exit {reason:#x} ({qualification:#x}), error {error}")
    }
}

impl Drop for Vmx {
    fn drop(&mut self) {
        // SAFETY: cleared by `end`, so that no processor has it any more.
        unsafe { physical::put_back(self.structure, PAGE) }
    }
}
