//! A guest that does anything: no exit panics, and what is saved at any moment goes on alike in
//! a second machine.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use kasane_cpu::{AccessSize, Exit};
use proptest::prelude::*;

use crate::tests::machine;

fn size() -> impl Strategy<Value = AccessSize> {
    prop_oneof![Just(AccessSize::Byte), Just(AccessSize::Word), Just(AccessSize::Dword)]
}

/// Ports where something is, more often than others.
fn port() -> impl Strategy<Value = u16> {
    prop_oneof![
        8 => 0u16..0x100,
        2 => 0x3F0u16..0x404,
        2 => 0x4D0u16..0x4D2,
        4 => 0x600u16..0x640,
        4 => 0xCF8u16..0xD00,
        1 => any::<u16>(),
    ]
}

fn gpa() -> impl Strategy<Value = u64> {
    prop_oneof![0xFEC0_0000u64..0xFEC0_0020, 0xFED0_0000u64..0xFED0_0200, any::<u64>()]
}

fn exit() -> impl Strategy<Value = Exit> {
    let mmio_size = || prop_oneof![size(), Just(AccessSize::Qword)];
    prop_oneof![
        4 => (port(), size()).prop_map(|(port, size)| Exit::PortRead { port, size }),
        8 => (port(), size(), any::<u32>())
            .prop_map(|(port, size, value)| Exit::PortWrite { port, size, value }),
        1 => (port(), size(), any::<u8>(), any::<[u8; 32]>())
            .prop_map(|(port, size, count, data)| {
                Exit::PortWriteString { port, size, count, data }
            }),
        2 => (gpa(), mmio_size()).prop_map(|(gpa, size)| Exit::MmioRead { gpa, size }),
        4 => (gpa(), mmio_size(), any::<u64>())
            .prop_map(|(gpa, size, value)| Exit::MmioWrite { gpa, size, value }),
        1 => any::<u32>().prop_map(|index| Exit::MsrRead { index }),
        1 => (any::<u32>(), any::<u64>()).prop_map(|(index, value)| Exit::MsrWrite { index, value }),
        1 => Just(Exit::InterruptWindow),
        1 => any::<u8>().prop_map(|vector| Exit::Eoi { vector }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_exits_are_served_and_a_copy_goes_on_alike(
        before in proptest::collection::vec((exit(), 0u64..50_000_000), 1..150),
        after in proptest::collection::vec((exit(), 0u64..50_000_000), 1..50),
    ) {
        let (first, home) = machine();
        for (exit, later_ns) in before {
            home.now_ns.fetch_add(later_ns, Ordering::Relaxed);
            first.advance();
            first.console_input(b"x");
            first.handle(0, &exit);
        }

        let (second, second_home) = machine();
        second_home.now_ns.store(home.now_ns.load(Ordering::Relaxed), Ordering::Relaxed);
        second.restore(&first.save()).unwrap();
        prop_assert_eq!(second.save(), first.save());

        // A machine that has asked for a reset answers nothing else.
        let steps = if first.power_request().is_some() { Vec::new() } else { after };
        for (exit, later_ns) in steps {
            for home in [&home, &second_home] {
                home.now_ns.fetch_add(later_ns, Ordering::Relaxed);
            }
            first.advance();
            second.advance();
            prop_assert_eq!(second.handle(0, &exit), first.handle(0, &exit), "{:?}", exit);
        }
        prop_assert_eq!(second.save(), first.save());
        prop_assert_eq!(second.next_deadline_ns(), first.next_deadline_ns());
    }
}
