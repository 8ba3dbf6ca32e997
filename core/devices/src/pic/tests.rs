use super::*;
use kasane_ports::Level;
use proptest::prelude::*;

const M: u32 = 0;
const S: u32 = 2;

/// As every operating system does it.
fn initialised(first_icw4: u8) -> PicPair {
    let mut pair = PicPair::default();
    for (at, base, cascade, icw4) in [(M, 0x20, 4, first_icw4), (S, 0x28, 2, 1)] {
        pair.write(at, 0x11);
        pair.write(at + 1, base);
        pair.write(at + 1, cascade);
        pair.write(at + 1, icw4);
        pair.write(at + 1, 0);
    }
    pair
}

#[test]
fn nothing_is_delivered_before_initialisation() {
    let mut pair = PicPair::default();
    pair.set_input(1, Level::High);
    assert!(!pair.output());
}

#[test]
fn linux_probes_the_mask_register() {
    let mut pair = initialised(1);
    pair.write(S + 1, 0xFF);
    pair.write(M + 1, 0xFB);
    assert_eq!(pair.read(M + 1), 0xFB);
    assert_eq!(pair.read(S + 1), 0xFF);
}

#[test]
fn an_edge_is_delivered_once_and_ended() {
    let mut pair = initialised(1);
    pair.set_input(1, Level::High);
    assert!(pair.output());
    assert_eq!(pair.acknowledge(), 0x21);
    assert!(!pair.output());
    pair.write(M, 0x0B);
    assert_eq!(pair.read(M), 0x02);
    pair.write(M, 0x20);
    assert_eq!(pair.read(M), 0);
    assert!(!pair.output(), "the line is still high but no new edge came");
    pair.set_input(1, Level::Low);
    pair.set_input(1, Level::High);
    assert_eq!(pair.acknowledge(), 0x21);
}

#[test]
fn the_second_controller_cascades() {
    let mut pair = initialised(1);
    pair.set_input(12, Level::High);
    assert_eq!(pair.acknowledge(), 0x2C);
    pair.set_input(8, Level::High);
    assert!(!pair.output(), "fully nested: input 2 of the first is in service");
    pair.write(S, 0x20);
    pair.write(M, 0x62);
    assert_eq!(pair.acknowledge(), 0x28);
}

#[test]
fn special_fully_nested_mode_lets_a_higher_cascaded_request_pass() {
    let mut pair = initialised(0x11);
    pair.set_input(12, Level::High);
    assert_eq!(pair.acknowledge(), 0x2C);
    pair.set_input(8, Level::High);
    assert!(pair.output());
    assert_eq!(pair.acknowledge(), 0x28);
}

#[test]
fn an_edge_that_falls_before_the_acknowledge_is_spurious() {
    let mut pair = initialised(1);
    pair.set_input(3, Level::High);
    pair.set_input(3, Level::Low);
    assert!(!pair.output());
    assert_eq!(pair.acknowledge(), 0x27);
    pair.write(M, 0x0B);
    assert_eq!(pair.read(M), 0, "a spurious interrupt is not in service");
}

#[test]
fn a_level_triggered_input_asks_again_after_its_eoi() {
    let mut pair = initialised(1);
    pair.write(4, 0xFF);
    pair.write(5, 0xFF);
    assert_eq!((pair.read(4), pair.read(5)), (0xF8, 0xDE));
    pair.set_input(11, Level::High);
    assert_eq!(pair.acknowledge(), 0x2B);
    assert!(!pair.output());
    pair.write(S, 0x20);
    pair.write(M, 0x20);
    assert_eq!(pair.acknowledge(), 0x2B);
    pair.set_input(11, Level::Low);
    pair.write(S, 0x20);
    pair.write(M, 0x20);
    assert!(!pair.output());
}

#[test]
fn automatic_eoi_leaves_nothing_in_service_and_rotates_if_told() {
    let mut pair = initialised(3);
    pair.write(M, 0x80);
    pair.set_input(0, Level::High);
    pair.set_input(1, Level::High);
    assert_eq!(pair.acknowledge(), 0x20);
    pair.set_input(0, Level::Low);
    pair.set_input(0, Level::High);
    assert_eq!(pair.acknowledge(), 0x21, "0 had become the lowest");
    assert_eq!(pair.acknowledge(), 0x20);
}

#[test]
fn rotation_and_set_priority_change_who_is_first() {
    let mut pair = initialised(1);
    pair.write(M, 0xC4);
    pair.set_input(4, Level::High);
    pair.set_input(5, Level::High);
    assert_eq!(pair.acknowledge(), 0x25);
    pair.write(M, 0xA0);
    assert_eq!(pair.acknowledge(), 0x24, "5 has the lowest priority now");
}

#[test]
fn special_mask_mode_enables_lower_levels() {
    let mut pair = initialised(1);
    pair.set_input(1, Level::High);
    assert_eq!(pair.acknowledge(), 0x21);
    pair.set_input(6, Level::High);
    assert!(!pair.output());
    pair.write(M + 1, 0x02);
    pair.write(M, 0x68);
    assert_eq!(pair.acknowledge(), 0x26);
    pair.write(M, 0x20);
    pair.write(M, 0x0B);
    assert_eq!(pair.read(M), 0x02, "the masked level isn't ended by a non-specific EOI");
}

#[test]
fn a_poll_acknowledges() {
    let mut pair = initialised(1);
    pair.set_input(6, Level::High);
    pair.write(M, 0x0C);
    assert_eq!(pair.read(M), 0x86);
    assert_eq!(pair.read(M) & 0x40, 0, "an ordinary read of the request register again");
    pair.write(M, 0x0C);
    assert_eq!(pair.read(M), 0);
}

#[test]
fn without_icw4_the_sequence_is_shorter() {
    let mut pair = PicPair::default();
    for (port, value) in [(M, 0x12), (M + 1, 0x40), (M + 1, 0x0F)] {
        pair.write(port, value);
    }
    assert_eq!(pair.read(M + 1), 0x0F);
    pair.set_input(4, Level::High);
    assert_eq!(pair.acknowledge(), 0x44);
}

proptest! {
    #[test]
    fn any_traffic_is_survived_and_a_restored_pair_behaves_the_same(
        before in proptest::collection::vec((0u32..7, any::<u8>(), 0u8..18), 0..80),
        after in proptest::collection::vec((0u32..7, any::<u8>(), 0u8..18), 0..80),
    ) {
        let step = |pair: &mut PicPair, (port, value, irq): (u32, u8, u8)| {
            pair.set_input(irq, Level::from_asserted(value & 1 != 0));
            pair.write(port, value);
            (pair.read(port), pair.output(), pair.acknowledge())
        };
        let mut one = PicPair::default();
        before.into_iter().for_each(|s| { step(&mut one, s); });
        let mut two = PicPair::default();
        PicPairForm::of(&one).put(&mut two);
        for s in after {
            prop_assert_eq!(step(&mut one, s), step(&mut two, s));
        }
    }
}
