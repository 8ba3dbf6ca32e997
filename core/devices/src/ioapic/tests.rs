use super::*;
use alloc::vec::Vec;
use kasane_ports::{Level, Msi};
use proptest::prelude::*;

fn set(ioapic: &mut Ioapic, index: u32, value: u32) -> Vec<Msi> {
    let mut out = Vec::new();
    ioapic.write(0, index, &mut out);
    ioapic.write(0x10, value, &mut out);
    out
}
fn get(ioapic: &mut Ioapic, index: u32) -> u32 {
    ioapic.write(0, index, &mut Vec::new());
    ioapic.read(0x10)
}
fn pin(ioapic: &mut Ioapic, pin: u32, high: bool) -> Vec<Msi> {
    let mut out = Vec::new();
    ioapic.set_pin(pin, Level::from_asserted(high), &mut out);
    out
}
fn eoi(ioapic: &mut Ioapic, vector: u8) -> Vec<Msi> {
    let mut out = Vec::new();
    ioapic.end_of_interrupt(vector, &mut out);
    out
}
const fn msi(address: u64, data: u32) -> Msi {
    Msi { address, data }
}

#[test]
fn identifies_itself_as_24_pins_with_an_eoi_register() {
    let mut ioapic = Ioapic::default();
    assert_eq!(get(&mut ioapic, 1), 0x0017_0020);
    set(&mut ioapic, 0, 0xFFFF_FFFF);
    assert_eq!(get(&mut ioapic, 0), 0x0F00_0000);
    assert_eq!(get(&mut ioapic, 0x10), 0x0001_0000, "masked after reset");
    assert_eq!(get(&mut ioapic, 0x40), u32::MAX);
}

#[test]
fn an_edge_sends_one_message_to_its_destination() {
    let mut ioapic = Ioapic::default();
    set(&mut ioapic, 0x11 + 2 * 4, 0x0300_0000);
    assert_eq!(set(&mut ioapic, 0x10 + 2 * 4, 0x0000_0931), []);
    assert_eq!(pin(&mut ioapic, 4, true), [msi(0xFEE0_3004, 0x131)]);
    assert_eq!(pin(&mut ioapic, 4, true), []);
    assert_eq!(pin(&mut ioapic, 4, false), []);
    assert_eq!(get(&mut ioapic, 0x18), 0x0000_0931, "no remote IRR for an edge");
}

#[test]
fn an_edge_on_a_masked_pin_is_lost() {
    let mut ioapic = Ioapic::default();
    assert_eq!(pin(&mut ioapic, 4, true), []);
    assert_eq!(set(&mut ioapic, 0x18, 0x31), []);
}

#[test]
fn a_level_is_delivered_again_until_its_wire_falls() {
    let mut ioapic = Ioapic::default();
    set(&mut ioapic, 0x10 + 2 * 11, 0x8041);
    let sent = [msi(0xFEE0_0000, 0xC041)];
    assert_eq!(pin(&mut ioapic, 11, true), sent);
    assert_eq!(get(&mut ioapic, 0x26), 0xC041, "remote IRR");
    assert_eq!(pin(&mut ioapic, 11, true), []);
    assert_eq!(eoi(&mut ioapic, 0x42), []);
    assert_eq!(eoi(&mut ioapic, 0x41), sent);
    pin(&mut ioapic, 11, false);
    assert_eq!(eoi(&mut ioapic, 0x41), []);
    assert_eq!(get(&mut ioapic, 0x26), 0x8041);
}

#[test]
fn the_eoi_register_ends_like_a_local_apic() {
    let mut ioapic = Ioapic::default();
    set(&mut ioapic, 0x26, 0x8041);
    pin(&mut ioapic, 11, true);
    let mut out = Vec::new();
    ioapic.write(0x40, 0x41, &mut out);
    assert_eq!(out.len(), 1);
}

#[test]
fn unmasking_a_waiting_level_delivers_it() {
    let mut ioapic = Ioapic::default();
    set(&mut ioapic, 0x26, 0x1_8041);
    assert_eq!(pin(&mut ioapic, 11, true), []);
    assert_eq!(set(&mut ioapic, 0x26, 0x8041), [msi(0xFEE0_0000, 0xC041)]);
}

#[test]
fn switching_to_edge_and_back_ends_an_interrupt() {
    let mut ioapic = Ioapic::default();
    set(&mut ioapic, 0x26, 0x8041);
    pin(&mut ioapic, 11, true);
    pin(&mut ioapic, 11, false);
    set(&mut ioapic, 0x26, 0x1_0041);
    set(&mut ioapic, 0x26, 0x8041);
    assert_eq!(get(&mut ioapic, 0x26), 0x8041);
}

#[test]
fn nmi_and_extint_have_no_remote_irr() {
    let mut ioapic = Ioapic::default();
    set(&mut ioapic, 0x10, 0x8700);
    assert_eq!(pin(&mut ioapic, 0, true), [msi(0xFEE0_0000, 0xC700)]);
    assert_eq!(get(&mut ioapic, 0x10), 0x8700);
}

proptest! {
    #[test]
    fn any_traffic_is_survived_and_a_restored_chip_behaves_the_same(
        before in proptest::collection::vec((0u32..0x50, any::<u32>(), 0u32..26), 0..60),
        after in proptest::collection::vec((0u32..0x50, any::<u32>(), 0u32..26), 0..60),
    ) {
        let step = |ioapic: &mut Ioapic, (index, value, wire): (u32, u32, u32)| {
            let mut out = set(ioapic, index, value);
            ioapic.write(index, value, &mut out);
            out.extend(pin(ioapic, wire, value & 1 != 0));
            out.extend(eoi(ioapic, value as u8));
            (out, get(ioapic, index), ioapic.read(index))
        };
        let mut one = Ioapic::default();
        before.into_iter().for_each(|s| { step(&mut one, s); });
        let mut two = Ioapic::default();
        IoapicForm::of(&one).put(&mut two);
        for s in after {
            prop_assert_eq!(step(&mut one, s), step(&mut two, s));
        }
    }
}
