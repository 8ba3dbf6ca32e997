//! The run loop with whole blocks.

use core::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kasane_cpu::apic::registers;
use kasane_cpu::{Entry, Exit, Vcpu};
use kasane_memory::GuestMemory;
use kasane_ports::{Msi, MsiSink};

use crate::testing::{CODE, TestCpu};

/// `mov [0xFEE000B0], eax`: an end of interrupt.
const EOI: [u8; 5] = [0xA3, 0xB0, 0x00, 0xE0, 0xFE];

#[test]
fn each_end_of_interrupt_leaves_the_block_at_once() {
    let mut it = TestCpu::code32(&[EOI, EOI].concat());
    for vector in [0x41u8, 0x52] {
        it.apics.signal(Msi { address: 0xFEE0_0000, data: 0x8000 | u32::from(vector) });
        it.cpu.apic.write(registers::SVR, 0x1FF, 0);
        it.cpu.apic.collect();
        it.cpu.apic.acknowledge(vector);
    }
    it.cpu.mailbox.take_events();
    let mut vcpu = it.vcpu();

    let first = (vcpu.run(Entry::Resume).unwrap(), vcpu.cpu.state.rip - CODE);
    let second = (vcpu.run(Entry::Resume).unwrap(), vcpu.cpu.state.rip - CODE);

    assert_eq!(first, (Exit::Eoi { vector: 0x52 }, 5));
    assert_eq!(second, (Exit::Eoi { vector: 0x41 }, 10));
}

#[test]
fn code_that_another_processor_changes_all_the_time_is_run_nevertheless() {
    // mov eax, imm32; nop...
    let it = TestCpu::code32(&[0xB8, 0, 0, 0, 0, 0x90, 0x90, 0x90]);
    let (ram, mut vcpu) = (it.ram.clone(), it.vcpu());
    let stop = AtomicBool::new(false);

    let taken = std::thread::scope(|scope| {
        scope.spawn(|| {
            let start = Instant::now();
            let mut immediate = 0u32;
            while !stop.load(Ordering::Relaxed) && start.elapsed() < Duration::from_secs(10) {
                for _ in 0..1000 {
                    immediate = immediate.wrapping_add(1);
                    ram.write(CODE + 1, &immediate.to_le_bytes()).unwrap();
                }
            }
        });
        let start = Instant::now();
        for _ in 0..200 {
            vcpu.cpu.state.rip = CODE;
            vcpu.set_budget(Some(1));
            vcpu.run(Entry::Resume).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        start.elapsed()
    });

    assert!(taken < Duration::from_secs(9), "{taken:?}");
}
