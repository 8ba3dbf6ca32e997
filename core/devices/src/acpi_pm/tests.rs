use super::{AcpiPm, SMI_COMMAND, TimerWidth};
use crate::socket::{Access, Chip, Effects};
use crate::system::SystemRequest;
use alloc::vec::Vec;
use kasane_cpu::AccessSize::{self, Byte, Dword, Word};
use proptest::prelude::*;

fn pm() -> AcpiPm {
    AcpiPm::new(TimerWidth::Bits24)
}
fn out(
    pm: &mut AcpiPm,
    offset: u32,
    size: AccessSize,
    value: u64,
    now_ns: u64,
) -> Vec<SystemRequest> {
    let mut effects = Effects::default();
    pm.write(Access { offset, size, now_ns }, value, &mut effects);
    effects.list
}
fn inp(pm: &mut AcpiPm, offset: u32, size: AccessSize, now_ns: u64) -> u64 {
    pm.read(Access { offset, size, now_ns }, &mut Effects::default())
}

#[test]
fn the_timer_counts_24_bits_at_its_frequency() {
    let mut pm = pm();
    assert_eq!(inp(&mut pm, 8, Dword, 1_000_000_000), 3_579_545);
    assert_eq!(inp(&mut pm, 8, Dword, 5_000_000_000), 3_579_545 * 5 - (1 << 24));
    let mut wide = AcpiPm::new(TimerWidth::Bits32);
    assert_eq!(inp(&mut wide, 8, Dword, 5_000_000_000), 3_579_545 * 5);
}

#[test]
fn the_timer_interrupts_when_its_highest_bit_changes() {
    let mut pm = pm();
    out(&mut pm, SMI_COMMAND, Byte, 0xF1, 0);
    assert_eq!(pm.next_deadline_ns(), None);
    out(&mut pm, 2, Word, 1, 0);
    let deadline = pm.next_deadline_ns().unwrap();
    assert_eq!(deadline, ((1u128 << 23) * 1_000_000_000).div_ceil(3_579_545) as u64);
    pm.advance(deadline - 1, &mut Effects::default());
    assert_eq!(pm.levels(), 0);
    pm.advance(deadline, &mut Effects::default());
    assert_eq!((pm.levels(), pm.next_deadline_ns()), (1, None));
    out(&mut pm, 0, Word, 1, deadline);
    assert_eq!(pm.levels(), 0);
}

#[test]
fn the_power_button_is_an_sci_once_acpi_is_on() {
    let mut pm = pm();
    out(&mut pm, 2, Word, 0x100, 0);
    pm.press_power_button();
    assert_eq!((pm.levels(), inp(&mut pm, 4, Word, 0)), (0, 0));
    out(&mut pm, SMI_COMMAND, Byte, 0xF1, 0);
    assert_eq!((pm.levels(), inp(&mut pm, 4, Word, 0)), (1, 1));
    assert_eq!(inp(&mut pm, 0, Word, 0), 0x100);
    out(&mut pm, 0, Word, 0x100, 0);
    assert_eq!((pm.levels(), inp(&mut pm, 0, Word, 0)), (0, 0));
    out(&mut pm, SMI_COMMAND, Byte, 0xF0, 0);
    assert_eq!(inp(&mut pm, 4, Word, 0), 0);
}

#[test]
fn linux_powers_off_by_type_then_enable() {
    let mut pm = pm();
    out(&mut pm, SMI_COMMAND, Byte, 0xF1, 0);
    assert_eq!(out(&mut pm, 4, Word, 0x0001, 0), []);
    assert_eq!(out(&mut pm, 4, Word, 0x2001, 0), [SystemRequest::PowerOff]);
    assert_eq!(out(&mut pm, 4, Word, 0x2401, 0), [SystemRequest::Sleep(1)]);
    assert_eq!(inp(&mut pm, 4, Word, 0), 0x0401, "the enable bit reads as 0");
}

#[test]
fn general_purpose_events_are_cleared_by_ones() {
    let mut pm = pm();
    pm.enable_acpi();
    out(&mut pm, 0x0E, Word, 0x0006, 0);
    pm.raise_event(2);
    pm.raise_event(99);
    assert_eq!((pm.levels(), inp(&mut pm, 0x0C, Dword, 0)), (1, 0x0006_0004));
    out(&mut pm, 0x0C, Byte, 0x04, 0);
    assert_eq!(pm.levels(), 0);
}

proptest! {
    #[test]
    fn any_traffic_is_survived_and_a_restored_block_behaves_the_same(
        before in proptest::collection::vec((0u32..0x44, any::<u32>(), 0u64..3_000_000_000), 0..60),
        after in proptest::collection::vec((0u32..0x44, any::<u32>(), 0u64..3_000_000_000), 0..60),
    ) {
        let mut now = 0;
        let mut step = |pm: &mut AcpiPm, (offset, value, later): (u32, u32, u64), go: bool| {
            now += if go { later } else { 0 };
            let requests = out(pm, offset, Dword, u64::from(value), now);
            (requests, inp(pm, offset, Dword, now), pm.levels(), pm.next_deadline_ns())
        };
        let mut one = pm();
        before.into_iter().for_each(|s| { step(&mut one, s, true); });
        let mut two = pm();
        two.restore("acpi-pm", &one.save("acpi-pm")).unwrap();
        for s in after {
            prop_assert_eq!(step(&mut one, s, true), step(&mut two, s, false));
        }
    }
}
