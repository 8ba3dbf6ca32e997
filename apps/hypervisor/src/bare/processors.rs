//! The first processor's tables and APIC, and the start of the others.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use alloc::vec::Vec;

use kasane_metal_boot::{ApParameters, TRAMPOLINE_LEN, trampoline};
use kasane_metal_cpu::{self as cpu, MAX_CPUS, Stacks};
use kasane_metal_memory::physical;
use kasane_metal_memory::tables::Rights;

use super::firmware::Firmware;
use super::memory::{TRAMPOLINE, map_device, new_stack};
use super::runtime;
use super::serial::log;

/// Where the trampoline's parameters are in its page.
const PARAMETERS: usize = 4032;
const STACK: u64 = 256 << 10;
const INTERRUPT_STACK: u64 = 16 << 10;

/// APIC ids by processor.
static APIC_IDS: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];
static LOCAL_APIC: AtomicU64 = AtomicU64::new(0);
/// The stacks of the processor that starts.
static STACKS: spin::Mutex<Option<Stacks>> = spin::Mutex::new(None);

/// The APIC id of a processor.
pub(crate) fn apic_id(number: u32) -> u32 {
    APIC_IDS.get(number as usize).map_or(0, |id| id.load(Ordering::Relaxed))
}

fn interrupt_stacks() -> Option<Stacks> {
    Some(Stacks {
        nmi: new_stack(INTERRUPT_STACK)?,
        double_fault: new_stack(INTERRUPT_STACK)?,
        machine_check: new_stack(INTERRUPT_STACK)?,
        interrupts: new_stack(INTERRUPT_STACK)?,
    })
}

/// Switches on what helps guests: a processor has one of the two or none.
fn enable_assist() {
    let _on = kasane_metal_svm::enable() || kasane_metal_vmx::enable();
}

/// This processor is number 0.
pub(crate) fn set_up_first(firmware: &Firmware) {
    let Some(stacks) = interrupt_stacks() else {
        log!("no memory is left for the first processor's stacks");
        cpu::halt_for_ever();
    };
    cpu::load_descriptors(&stacks);
    let base = firmware.interrupts.local_apic;
    map_device(base, 4096);
    LOCAL_APIC.store(base, Ordering::Relaxed);
    cpu::set_current(0);
    // SAFETY: just mapped.
    unsafe { cpu::enable_local_apic(base) }
    enable_assist();
    if let Some(id) = APIC_IDS.first() {
        id.store(cpu::local_apic_id(), Ordering::Relaxed);
    }
}

/// Starts the other processors; gives how many there are then, this one included.
pub(crate) fn start_others(firmware: &Firmware) -> u32 {
    let own = cpu::local_apic_id();
    let others = firmware.interrupts.processors.iter().filter(|id| **id != own);
    for id in others.copied().collect::<Vec<_>>() {
        let number = cpu::online();
        let Some(slot) = APIC_IDS.get(number as usize) else {
            log!("only {MAX_CPUS} processors are used");
            break;
        };
        slot.store(id, Ordering::Relaxed);
        if !start(number, id) {
            log!("the processor with APIC id {id} did not start");
        }
    }
    cpu::online()
}

fn start(number: u32, apic_id: u32) -> bool {
    let (Some(stack), Some(stacks)) = (new_stack(STACK), interrupt_stacks()) else { return false };
    *STACKS.lock() = Some(stacks);
    let parameters = ApParameters {
        cr3: physical::root(),
        stack,
        index: number.into(),
        entry: other_main as extern "C" fn(u64) -> ! as usize as u64,
    };
    let page = TRAMPOLINE..TRAMPOLINE + TRAMPOLINE_LEN as u64;
    let rewrite = |rights| {
        // SAFETY: the page is the trampoline's alone, and no processor is in it now.
        let mapped = unsafe { physical::map(page.clone(), rights) };
        cpu::flush_tlb();
        mapped.is_ok()
    };
    if !rewrite(Rights::ReadWrite) {
        return false;
    }
    let at: *mut u8 = core::ptr::with_exposed_provenance_mut(TRAMPOLINE as usize);
    let code = trampoline();
    // SAFETY: a page of conventional memory that is mapped writable and that nobody uses; code and
    // parameters fit into it.
    unsafe {
        core::ptr::copy_nonoverlapping(code.as_ptr(), at, code.len().min(PARAMETERS));
        at.add(PARAMETERS).cast::<ApParameters>().write(parameters);
    }
    // The code goes on with paging, so the page is executable meanwhile, and not writable.
    let started = rewrite(Rights::ReadExecute) && cpu::start_processor(apic_id, TRAMPOLINE);
    rewrite(Rights::ReadWrite);
    started
}

/// The others come here from the trampoline.
extern "C" fn other_main(number: u64) -> ! {
    let stacks = STACKS.lock().take();
    let Some(stacks) = stacks else { cpu::halt_for_ever() };
    cpu::load_descriptors(&stacks);
    cpu::fill_idt();
    cpu::enable_features();
    // SAFETY: mapped by the first processor, whose page tables these are.
    unsafe { cpu::enable_local_apic(LOCAL_APIC.load(Ordering::Relaxed)) }
    cpu::set_current(number as u32);
    enable_assist();
    runtime::live()
}
