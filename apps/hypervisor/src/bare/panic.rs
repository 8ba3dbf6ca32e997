//! The end of the hypervisor: its last words, and no processor goes on.

use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use kasane_metal_cpu::{self as cpu, vector};

use super::processors::apic_id;
use super::serial::LastWords;

static DYING: AtomicBool = AtomicBool::new(false);

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if !DYING.swap(true, Ordering::AcqRel) {
        let _never_fails = writeln!(LastWords, "\nkasane: the hypervisor is broken: {info}");
        let online = cpu::online();
        // Before the first processor is counted there is no APIC to speak through.
        if online > 0 {
            let own = cpu::current();
            let others = (0..online).filter(|number| *number != own);
            others.for_each(|number| cpu::send_ipi(apic_id(number), vector::STOP));
        }
    }
    cpu::halt_for_ever()
}
