use alloc::sync::Arc;

use kasane_ports::{Msi, MsiSink};

use super::registers as reg;
use super::*;

fn apics(count: u32) -> (Arc<ApicBus>, alloc::vec::Vec<LocalApic>) {
    let bus = Arc::new(ApicBus::new(count));
    let apics = (0..count)
        .map(|n| {
            let mut apic = LocalApic::new(n, bus.clone(), bus.mailbox(n).unwrap());
            apic.write(reg::SVR, 0x1FF, 0);
            apic
        })
        .collect();
    (bus, apics)
}

#[test]
fn a_fixed_interrupt_goes_from_irr_to_isr_and_ends_with_eoi() {
    let (bus, mut apics) = apics(1);
    bus.signal(Msi { address: 0xFEE0_0000, data: 0x4041 & 0xFF | 0x8000 });
    apics[0].collect();
    assert_eq!(apics[0].ready(), Some(0x41));
    apics[0].acknowledge(0x41);
    assert_eq!(apics[0].ready(), None);
    assert_eq!(apics[0].read(reg::ISR + 0x20, 0), Some(2));
    apics[0].write(reg::EOI, 0, 0);
    assert_eq!(apics[0].take_eoi(), Some(0x41));
    assert_eq!(apics[0].read(reg::ISR + 0x20, 0), Some(0));
}

#[test]
fn the_task_priority_holds_lower_classes_back() {
    let (_bus, mut apics) = apics(1);
    apics[0].write(reg::TPR, 0x50, 0);
    apics[0].write(reg::ICR_LOW, 0x0004_4051, 0);
    apics[0].collect();
    assert_eq!(apics[0].ready(), None);
    apics[0].write(reg::TPR, 0x40, 0);
    assert_eq!(apics[0].ready(), Some(0x51));
}

#[test]
fn the_one_shot_timer_fires_once_and_the_periodic_one_again() {
    let (_bus, mut apics) = apics(1);
    let apic = &mut apics[0];
    apic.write(reg::DIVIDE, 0xB, 0);
    apic.write(reg::LVT_TIMER, 0x30, 0);
    apic.write(reg::INITIAL_COUNT, 1000, 0);
    assert_eq!(apic.read(reg::CURRENT_COUNT, 400), Some(600));
    apic.advance(999);
    assert_eq!(apic.ready(), None);
    apic.advance(1000);
    assert_eq!((apic.ready(), apic.deadline_ns()), (Some(0x30), None));
    apic.write(reg::LVT_TIMER, 0x2_0031, 2000);
    apic.write(reg::INITIAL_COUNT, 1000, 2000);
    apic.advance(5500);
    assert_eq!((apic.ready(), apic.deadline_ns()), (Some(0x31), Some(6000)));
}

#[test]
fn logical_and_broadcast_destinations_reach_whom_they_should() {
    let (_bus, mut apics) = apics(3);
    for (n, apic) in apics.iter_mut().enumerate() {
        apic.write(reg::LDR, 1 << (24 + n), 0);
    }
    apics[0].write(reg::ICR_HIGH, 0x0600_0000, 0);
    apics[0].write(reg::ICR_LOW, 0x0000_0840, 0);
    apics[0].write(reg::ICR_LOW, 0x000C_0070, 0);
    let seen: alloc::vec::Vec<_> = apics
        .iter_mut()
        .map(|apic| {
            apic.collect();
            (apic.read(reg::IRR + 0x20, 0).unwrap(), apic.read(reg::IRR + 0x30, 0).unwrap())
        })
        .collect();
    assert_eq!(seen, [(0, 0), (1, 1 << 16), (1, 1 << 16)]);
}

#[test]
fn a_saved_apic_goes_on_as_before() {
    let (bus, mut apics) = apics(2);
    apics[0].write(reg::LVT_TIMER, 0x30, 0);
    apics[0].write(reg::INITIAL_COUNT, 1000, 0);
    let bytes = apics[0].save();
    let mut other = LocalApic::new(0, bus.clone(), bus.mailbox(0).unwrap());
    assert!(other.restore(&bytes));
    other.advance(10_000);
    assert_eq!(other.ready(), Some(0x30));
    assert!(!other.restore(&bytes[..3]));
}

#[test]
fn an_illegal_vector_sets_the_error_register() {
    let (_bus, mut apics) = apics(1);
    apics[0].write(reg::ICR_LOW, 0x0004_0005, 0);
    apics[0].write(reg::ESR, 0, 0);
    assert_eq!(apics[0].read(reg::ESR, 0), Some(1 << 5));
}
