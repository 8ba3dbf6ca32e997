use super::spec::*;
use super::{Delivery, Hpet, HpetEffect};
use crate::interrupts::TimerRoute;
use crate::socket::{Access, Chip, Effects};
use kasane_cpu::AccessSize::{Byte, Dword, Qword};
use kasane_ports::Msi;
use proptest::prelude::*;

const TIMER_0: u32 = TIMERS;
const TIMER_2: u32 = TIMERS + 2 * TIMER_STRIDE;

fn hpet() -> Hpet {
    Hpet::new(Delivery::WiresAndMessages)
}
fn write(hpet: &mut Hpet, offset: u32, value: u64, now_ns: u64) -> Effects<HpetEffect> {
    let mut effects = Effects::default();
    hpet.write(Access { offset, size: Dword, now_ns }, value, &mut effects);
    effects
}
fn read(hpet: &mut Hpet, offset: u32, now_ns: u64) -> u64 {
    hpet.read(Access { offset, size: Dword, now_ns }, &mut Effects::default()) & 0xFFFF_FFFF
}
fn advance(hpet: &mut Hpet, now_ns: u64) -> Effects<HpetEffect> {
    let mut effects = Effects::default();
    hpet.advance(now_ns, &mut effects);
    effects
}

#[test]
fn linux_finds_a_usable_block() {
    let mut hpet = hpet();
    assert_eq!(read(&mut hpet, 0, 0), 0x8086_A201);
    assert_eq!(read(&mut hpet, 4, 0), 10_000_000, "femtoseconds, at most 100,000,000");
    assert_eq!(read(&mut hpet, TIMER_0, 0), 0x8030);
    assert_eq!(read(&mut hpet, TIMER_0 + 4, 0), 0x00F0_0000);
    assert_eq!(read(&mut hpet, 0x160, 0), 0, "no fourth timer");
}

#[test]
fn the_counter_runs_while_enabled_and_can_be_set() {
    let mut hpet = hpet();
    assert_eq!(read(&mut hpet, COUNTER, 1000), 0);
    write(&mut hpet, COUNTER, 0, 1000);
    write(&mut hpet, COUNTER + 4, 0, 1000);
    write(&mut hpet, CONFIGURATION, 1, 1000);
    assert_eq!(read(&mut hpet, COUNTER, 1995), 99);
    assert_eq!(read(&mut hpet, COUNTER, 2000), 100, "no time is lost by reading");
    write(&mut hpet, CONFIGURATION, 0, 3000);
    assert_eq!(read(&mut hpet, COUNTER, 9000), 200);
}

#[test]
fn linux_periodic_set_up_counts_on_from_its_first_match() {
    let mut hpet = hpet();
    write(&mut hpet, CONFIGURATION, 3, 0);
    // Enable, periodic, set value, 32 bits; then the comparator, then the period.
    write(&mut hpet, TIMER_0, 0x14C, 0);
    write(&mut hpet, TIMER_0 + 8, 100_000, 0);
    write(&mut hpet, TIMER_0 + 8, 50_000, 0);
    assert_eq!(hpet.next_deadline_ns(), Some(1_000_000));
    assert_eq!(advance(&mut hpet, 1_000_000).pulses, 1 << 24, "IRQ 0");
    assert_eq!(hpet.next_deadline_ns(), Some(1_500_000));
    assert_eq!(advance(&mut hpet, 2_700_000).pulses, 1 << 24, "missed periods are one event");
    assert_eq!(hpet.next_deadline_ns(), Some(3_000_000));
}

#[test]
fn short_periods_of_all_timers_share_deadlines_that_a_host_can_keep() {
    let mut hpet = hpet();
    for (number, ticks) in [(0, 1), (1, 777), (2, 14_999)] {
        let timer = TIMERS + number * TIMER_STRIDE;
        write(&mut hpet, timer, 0x4C | 20 << 9, 0);
        write(&mut hpet, timer + 8, ticks, 0);
        write(&mut hpet, timer + 8, ticks, 0);
    }
    write(&mut hpet, CONFIGURATION, 1, 123);
    let mut now_ns = 123;
    for _ in 0..1000 {
        let deadline_ns = hpet.next_deadline_ns().unwrap();
        assert_eq!((deadline_ns > now_ns, deadline_ns % 50_000), (true, 0));
        now_ns = deadline_ns;
        assert_eq!(advance(&mut hpet, now_ns).pulses, 1 << 20);
    }
    assert_eq!(now_ns, 1000 * 50_000);
}

#[test]
fn one_shot_matches_once_per_turn() {
    let mut hpet = hpet();
    write(&mut hpet, CONFIGURATION, 1, 0);
    write(&mut hpet, TIMER_2, 0x104 | 20 << 9, 0);
    write(&mut hpet, TIMER_2 + 8, 100, 0);
    assert_eq!(advance(&mut hpet, 999).pulses, 0);
    assert_eq!(advance(&mut hpet, 1_000).pulses, 1 << 20);
    assert_eq!(hpet.levels(), 1 << 20, "an edge's wire stays up until it is reprogrammed");
    assert_eq!(hpet.next_deadline_ns(), Some(1_000 + (10 << 32)));
    write(&mut hpet, TIMER_2, 0, 2_000);
    assert_eq!(hpet.levels(), 0);
}

#[test]
fn a_level_stays_until_its_status_is_cleared() {
    let mut hpet = hpet();
    write(&mut hpet, CONFIGURATION, 1, 0);
    write(&mut hpet, TIMER_2, 0x106 | 21 << 9, 0);
    write(&mut hpet, TIMER_2 + 8, 100, 0);
    advance(&mut hpet, 1_000);
    assert_eq!((hpet.levels(), read(&mut hpet, STATUS, 1_000)), (1 << 21, 4));
    write(&mut hpet, STATUS, 4, 1_100);
    assert_eq!(hpet.levels(), 0);
}

#[test]
fn a_pin_that_is_not_routed_is_not_driven() {
    let mut hpet = hpet();
    write(&mut hpet, CONFIGURATION, 1, 0);
    write(&mut hpet, TIMER_2, 0x104 | 5 << 9, 0);
    write(&mut hpet, TIMER_2 + 8, 100, 0);
    assert_eq!(advance(&mut hpet, 1_000).pulses, 0);
}

#[test]
fn messages_take_the_place_of_wires() {
    let mut hpet = hpet();
    write(&mut hpet, CONFIGURATION, 1, 0);
    write(&mut hpet, TIMER_2 + 0x10, 0x41, 0);
    write(&mut hpet, TIMER_2 + 0x14, 0xFEE0_1000, 0);
    write(&mut hpet, TIMER_2, 0x4104, 0);
    write(&mut hpet, TIMER_2 + 8, 100, 0);
    let effects = advance(&mut hpet, 1_000);
    let message = Msi { address: 0xFEE0_1000, data: 0x41 };
    assert_eq!((effects.list, effects.pulses), (alloc::vec![HpetEffect::Message(message)], 0));
    let mut wires = Hpet::new(Delivery::Wires);
    write(&mut wires, TIMER_2, 0x4104, 0);
    assert_eq!(read(&mut wires, TIMER_2, 0), 0x134);
}

#[test]
fn legacy_replacement_is_told() {
    let mut hpet = hpet();
    let effects = write(&mut hpet, CONFIGURATION, 2, 0);
    assert_eq!(effects.list, [HpetEffect::Route(TimerRoute::Hpet)]);
    assert_eq!(write(&mut hpet, CONFIGURATION, 3, 0).list, []);
    let effects = write(&mut hpet, CONFIGURATION, 1, 0);
    assert_eq!(effects.list, [HpetEffect::Route(TimerRoute::Legacy)]);
}

#[test]
fn registers_have_64_bits_and_bytes() {
    let mut hpet = hpet();
    let at = |offset, size| Access { offset, size, now_ns: 0 };
    let mut effects = Effects::default();
    hpet.write(at(COUNTER, Qword), 0x1122_3344_5566_7788, &mut effects);
    assert_eq!(hpet.read(at(COUNTER, Qword), &mut effects), 0x1122_3344_5566_7788);
    assert_eq!(hpet.read(at(COUNTER + 5, Byte), &mut effects) & 0xFF, 0x33);
    write(&mut hpet, TIMER_0, 0x48, 0);
    write(&mut hpet, TIMER_0 + 8, 5, 0);
    write(&mut hpet, TIMER_0 + 12, 1, 0);
    assert_eq!(hpet.read(at(TIMER_0 + 8, Qword), &mut effects), 0x1_0000_0005);
}

proptest! {
    #[test]
    fn any_traffic_is_survived_and_a_restored_block_behaves_the_same(
        before in proptest::collection::vec((0u32..0x180, any::<u64>(), 0u64..200_000), 0..60),
        after in proptest::collection::vec((0u32..0x180, any::<u64>(), 0u64..200_000), 0..60),
    ) {
        let mut now = 0;
        let mut step = |hpet: &mut Hpet, (offset, value, later): (u32, u64, u64), go: bool| {
            now += if go { later } else { 0 };
            let mut effects = Effects::default();
            hpet.write(Access { offset, size: Qword, now_ns: now }, value, &mut effects);
            write(hpet, CONFIGURATION, value | 1, now);
            let read = read(hpet, offset, now);
            (read, effects.list, effects.pulses, hpet.levels(), hpet.next_deadline_ns())
        };
        let mut one = hpet();
        before.into_iter().for_each(|s| { step(&mut one, s, true); });
        let mut two = hpet();
        two.restore("hpet", &one.save("hpet")).unwrap();
        for s in after {
            prop_assert_eq!(step(&mut one, s, true), step(&mut two, s, false));
        }
    }
}
