//! From the entry to the prompt.

mod firmware;
mod home;
mod loader;
mod memory;
mod monitor;
mod panic;
mod pci;
mod processors;
mod runner;
mod runtime;
mod serial;

use kasane_metal_boot::Protocol;
use kasane_metal_cpu as cpu;
use kasane_metal_memory::Heap;
use kasane_metal_sched::NewTask;
use kasane_metal_vm::Machines;

use serial::log;

#[global_allocator]
static HEAP: Heap = Heap::new();

/// What the monitor's task weighs: it is to answer also when machines spin.
const MONITOR_WEIGHT: u32 = 1000;

/// Called by `metal/boot`'s entry on the boot stack, with the first 4 GiB identity-mapped and
/// interrupts off.
#[unsafe(no_mangle)]
extern "C" fn kasane_main(protocol: u64, information: u64) -> ! {
    serial::set_up();
    cpu::mask_pics();
    let Some(protocol) = Protocol::from_number(protocol) else {
        log!("started by no protocol that is known; this can't work");
        cpu::halt_for_ever();
    };
    let boot = loader::Boot::new(protocol, information);
    memory::set_up(&boot);
    cpu::fill_idt();
    cpu::enable_features();
    let firmware = firmware::read(boot.rsdp());
    cpu::calibrate(firmware.pm_timer);
    processors::set_up_first(&firmware);
    serial::enable_interrupts(&firmware);
    let count = processors::start_others(&firmware);
    log!(
        "{} by {}, {count} processors, {} MiB of memory free",
        env!("CARGO_PKG_VERSION"),
        protocol.as_str(),
        memory::free_mib()
    );
    runtime::set_up(count);
    let home = home::home();
    log!("engine {}", home.best.name());
    let (machines, refused) = Machines::new(home, boot.files());
    for sentence in refused {
        log!("{sentence}");
    }
    start_monitor(machines, firmware);
    runtime::live()
}

fn start_monitor(machines: Machines, firmware: firmware::Firmware) {
    let monitor = monitor::Monitor::new(machines, firmware);
    let task = runtime::get().spawn(NewTask {
        name: "monitor".into(),
        weight: MONITOR_WEIGHT,
        pinned: None,
        preempt: None,
        task: alloc::boxed::Box::new(monitor),
    });
    runtime::monitor_waker().set(task);
}
