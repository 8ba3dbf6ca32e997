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
    apic.write(reg::INITIAL_COUNT, 100_000, 2000);
    apic.advance(452_000);
    assert_eq!((apic.ready(), apic.deadline_ns()), (Some(0x31), Some(502_000)));
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

#[test]
fn two_ends_of_level_interrupts_are_both_told_also_after_a_save() {
    let (bus, mut apics) = apics(1);
    let apic = &mut apics[0];
    for vector in [0x41, 0x52] {
        bus.signal(Msi { address: 0xFEE0_0000, data: 0x8000 | vector });
        apic.collect();
        apic.acknowledge(vector as u8);
    }

    apic.write(reg::EOI, 0, 0);
    apic.write(reg::EOI, 0, 0);
    let mut other = LocalApic::new(0, bus.clone(), bus.mailbox(0).unwrap());
    assert!(other.restore(&apic.save()));

    assert_eq!(
        [other.take_eoi(), other.take_eoi(), other.take_eoi()],
        [Some(0x52), Some(0x41), None]
    );
}

#[test]
fn a_tiny_period_fires_at_a_rate_that_the_host_can_bear_and_still_counts() {
    let (_bus, mut apics) = apics(1);
    let apic = &mut apics[0];
    apic.write(reg::DIVIDE, 0xB, 0);
    apic.write(reg::LVT_TIMER, 0x2_0030, 0);
    apic.write(reg::INITIAL_COUNT, 7, 0);

    apic.advance(7);
    let next = apic.deadline_ns().unwrap();
    let counts: alloc::vec::Vec<_> =
        (7..23).map(|now| apic.read(reg::CURRENT_COUNT, now).unwrap()).collect();

    assert!((50_000..50_014).contains(&next) && next % 7 == 0, "{next}");
    assert_eq!(counts, [7, 6, 5, 4, 3, 2, 1, 7, 6, 5, 4, 3, 2, 1, 7, 6]);
}

#[test]
fn a_masked_timer_wakes_nobody_and_does_not_fire_late() {
    let (_bus, mut apics) = apics(1);
    let apic = &mut apics[0];
    apic.write(reg::DIVIDE, 0xB, 0);
    apic.write(reg::LVT_TIMER, 0x3_0030, 0);
    apic.write(reg::INITIAL_COUNT, 1_000_000, 0);

    let masked = apic.deadline_ns();
    let count = apic.read(reg::CURRENT_COUNT, 3_400_000);
    apic.write(reg::LVT_TIMER, 0x2_0030, 3_400_000);
    apic.advance(3_400_000);

    assert_eq!((masked, count), (None, Some(600_000)));
    assert_eq!((apic.ready(), apic.deadline_ns()), (None, Some(4_000_000)));
    apic.advance(4_000_000);
    assert_eq!(apic.ready(), Some(0x30));
}
