use super::*;
use crate::socket::{Access, Chip, Effects};
use kasane_cpu::AccessSize;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
/// 2024-02-29 23:59:58, a Thursday.
const LEAP: u64 = 1_709_251_198;

fn rtc() -> Rtc {
    let memory = Extent { below_4g: 512 << 20, above_4g: 1 << 30 };
    Rtc::new(&CmosConfig { wall_clock_ns: LEAP * SECOND, memory, cpus: 4 })
}
fn at(offset: u32, now_ns: u64) -> Access {
    Access { offset, size: AccessSize::Byte, now_ns }
}
fn get(rtc: &mut Rtc, index: u8, now_ns: u64) -> u8 {
    rtc.write(at(0, now_ns), u64::from(index), &mut Effects::default());
    rtc.read(at(1, now_ns), &mut Effects::default()) as u8
}
fn set(rtc: &mut Rtc, index: u8, value: u8, now_ns: u64) {
    rtc.write(at(0, now_ns), u64::from(index), &mut Effects::default());
    rtc.write(at(1, now_ns), u64::from(value), &mut Effects::default());
}
fn time(rtc: &mut Rtc, now_ns: u64) -> [u8; 8] {
    [0x32, 9, 8, 7, 4, 2, 0, 6].map(|index| get(rtc, index, now_ns))
}

#[test]
fn shows_the_wall_clock_in_bcd_over_a_leap_day() {
    let mut rtc = rtc();
    assert_eq!(time(&mut rtc, 0), [0x20, 0x24, 0x02, 0x29, 0x23, 0x59, 0x58, 5]);
    assert_eq!(time(&mut rtc, 2 * SECOND), [0x20, 0x24, 0x03, 0x01, 0, 0, 0, 6]);
}

#[test]
fn shows_binary_and_twelve_hours_when_told() {
    let mut rtc = rtc();
    set(&mut rtc, 0x0B, 0x04, 0);
    assert_eq!(time(&mut rtc, 0), [20, 24, 2, 29, 0x80 | 11, 59, 58, 5]);
    assert_eq!(get(&mut rtc, 4, 2 * SECOND), 12, "midnight");
}

#[test]
fn linux_sets_the_time_and_the_next_second_is_half_a_second_away() {
    let mut rtc = rtc();
    let now = 3 * SECOND + 700_000_000;
    let b = get(&mut rtc, 0x0B, now);
    set(&mut rtc, 0x0B, b | 0x80, now);
    let a = get(&mut rtc, 0x0A, now);
    set(&mut rtc, 0x0A, a | 0x70, now);
    for (index, value) in [(9, 0x26), (8, 0x11), (7, 0x23), (4, 0x08), (2, 0x30), (0, 0x15)] {
        set(&mut rtc, index, value, now);
    }
    set(&mut rtc, 0x32, 0x20, now);
    set(&mut rtc, 0x0B, b, now);
    set(&mut rtc, 0x0A, a, now);
    assert_eq!(get(&mut rtc, 0, now + 499_000_000), 0x15);
    assert_eq!(get(&mut rtc, 0, now + 501_000_000), 0x16);
    assert_eq!(time(&mut rtc, now)[..6], [0x20, 0x26, 0x11, 0x23, 0x08, 0x30]);
}

#[test]
fn update_in_progress_leads_the_update() {
    let mut rtc = rtc();
    assert_eq!(get(&mut rtc, 0x0A, SECOND / 2) & 0x80, 0);
    assert_eq!(get(&mut rtc, 0x0A, SECOND - 100_000) & 0x80, 0x80);
    assert_eq!(get(&mut rtc, 0x0A, SECOND) & 0x80, 0);
    set(&mut rtc, 0x0B, 0x82, SECOND);
    assert_eq!(get(&mut rtc, 0x0A, 2 * SECOND - 100_000) & 0x80, 0, "held");
    assert_eq!(get(&mut rtc, 0, 9 * SECOND), 0x59, "held");
}

#[test]
fn the_periodic_interrupt_comes_at_its_rate_and_waits_for_register_c() {
    let mut rtc = rtc();
    assert_eq!(rtc.next_deadline_ns(), None);
    set(&mut rtc, 0x0B, 0x42, 0);
    assert_eq!(rtc.next_deadline_ns(), Some(976_563));
    rtc.advance(976_563, &mut Effects::default());
    assert_eq!((rtc.levels(), rtc.next_deadline_ns()), (1, None));
    assert_eq!(get(&mut rtc, 0x0C, 976_563), 0xC0);
    assert_eq!(rtc.levels(), 0);
    assert_eq!(rtc.next_deadline_ns(), Some(1_953_125));
}

#[test]
fn the_highest_rate_has_deadlines_that_a_host_can_keep() {
    let mut rtc = rtc();
    set(&mut rtc, 0x0A, 0x23, 0);
    set(&mut rtc, 0x0B, 0x52, 0);
    let mut now = 0;
    for _ in 0..10_000 {
        let deadline = rtc.next_deadline_ns().unwrap();
        assert!(deadline >= now + 100_000, "{deadline} after {now}");
        now = deadline;
        rtc.advance(now, &mut Effects::default());
        assert_eq!(rtc.next_deadline_ns(), None, "a request that nobody answers stays alone");
        get(&mut rtc, 0x0C, now);
    }
}

#[test]
fn the_update_ended_interrupt_comes_each_second() {
    let mut rtc = rtc();
    set(&mut rtc, 0x0B, 0x12, SECOND / 2);
    assert_eq!(rtc.next_deadline_ns(), Some(SECOND));
    rtc.advance(SECOND, &mut Effects::default());
    assert_eq!(get(&mut rtc, 0x0C, SECOND) & 0x90, 0x90);
    assert_eq!(get(&mut rtc, 0x0C, SECOND), 0);
}

#[test]
fn the_alarm_matches_its_fields_and_wildcards() {
    let mut rtc = rtc();
    for (index, value) in [(1, 0x05), (3, 0x00), (5, 0xC0), (0x0B, 0x22)] {
        set(&mut rtc, index, value, 0);
    }
    assert_eq!(rtc.next_deadline_ns(), Some(7 * SECOND));
    rtc.advance(7 * SECOND, &mut Effects::default());
    assert_eq!(rtc.levels(), 3, "the request, and the alarm for the power management");
    assert_eq!(get(&mut rtc, 0x0C, 7 * SECOND) & 0xA0, 0xA0);
    assert_eq!(rtc.next_deadline_ns(), Some((7 + 3600) * SECOND));
    set(&mut rtc, 5, 0x23, 7 * SECOND);
    assert_eq!(rtc.next_deadline_ns(), Some((7 + 23 * 3600) * SECOND));
    set(&mut rtc, 3, 0x7F, 7 * SECOND);
    assert_eq!(rtc.next_deadline_ns(), None, "minute 79 never comes");
}

#[test]
fn flags_are_there_for_those_who_poll() {
    let mut rtc = rtc();
    get(&mut rtc, 0x0C, 0);
    assert_eq!(get(&mut rtc, 0x0C, SECOND), 0x50);
    assert_eq!(rtc.levels(), 0);
}

#[test]
fn the_memory_tells_its_sizes_and_keeps_bytes() {
    let mut rtc = rtc();
    let mut word =
        |at: u8| u16::from(get(&mut rtc, at + 1, 0)) << 8 | u16::from(get(&mut rtc, at, 0));
    assert_eq!(word(0x15), 640);
    assert_eq!(word(0x17), 0xFFFF);
    assert_eq!(word(0x34), (512 - 16) * 16);
    assert_eq!(word(0x5B), 0x4000);
    assert_eq!(get(&mut rtc, 0x5F, 0), 3);
    set(&mut rtc, 0x0F, 0x05, 0);
    assert_eq!(get(&mut rtc, 0x8F, 0), 0x05, "bit 7 is the NMI mask");
    assert_eq!(get(&mut rtc, 0x0D, 0), 0x80);
}

#[test]
fn time_that_stood_still_for_the_guest_is_made_up() {
    let mut rtc = rtc();
    rtc.follow((LEAP + 105) * SECOND + SECOND / 4, 5 * SECOND);
    // 1 minute 45 seconds after 23:59:58; and in three quarters of a second the next.
    assert_eq!(time(&mut rtc, 5 * SECOND)[4..7], [0x00, 0x01, 0x43]);
    assert_eq!(get(&mut rtc, 0, 5 * SECOND + 749_999_999), 0x43);
    assert_eq!(get(&mut rtc, 0, 5 * SECOND + 750_000_000), 0x44);
}

#[test]
fn what_the_guest_has_set_stays_ahead_of_the_wall_clock() {
    let mut rtc = rtc();
    set(&mut rtc, 9, 0x30, SECOND);
    rtc.follow((LEAP + 3) * SECOND, SECOND);
    rtc.follow((LEAP + 3) * SECOND + 20_000_000, SECOND);
    // The year was set on a 29th of February, so in 2030 it is the 1st of March, and goes on.
    assert_eq!(time(&mut rtc, SECOND), [0x20, 0x30, 0x03, 0x02, 0x00, 0x00, 0x01, 0x06]);
}

#[test]
fn an_alarm_of_a_pause_has_rung_when_it_ends() {
    let mut rtc = rtc();
    for (index, value) in [(1, 0x30), (3, 0x05), (5, 0x00), (0x0B, 0x22)] {
        set(&mut rtc, index, value, 0);
    }
    rtc.follow((LEAP + 331) * SECOND, 0);
    let early = rtc.levels();
    rtc.follow((LEAP + 332) * SECOND, 0);
    assert_eq!((early, rtc.levels()), (0, 3));
    assert_eq!(get(&mut rtc, 0x0C, 0), 0xB0);
}

#[test]
fn a_held_clock_stands_in_a_pause_too() {
    let mut rtc = rtc();
    set(&mut rtc, 0x0B, 0x82, 0);
    rtc.follow((LEAP + 1000) * SECOND, 0);
    set(&mut rtc, 0x0B, 0x02, SECOND);
    assert_eq!(time(&mut rtc, SECOND)[4..7], [0x23, 0x59, 0x58]);
}

#[test]
fn a_new_machine_goes_on_with_the_clock_and_its_memory_but_without_interrupts() {
    let mut old = rtc();
    for (index, value) in [(0x40, 0x99), (0x0B, 0x76), (2, 0x10)] {
        set(&mut old, index, value, 0);
    }
    old.advance(100 * SECOND, &mut Effects::default());
    let mut new = Rtc::new(&CmosConfig {
        wall_clock_ns: (LEAP + 102) * SECOND,
        memory: Extent { below_4g: 0, above_4g: 0 },
        cpus: 1,
    });
    new.take_over(&old.save("rtc"), (LEAP + 103) * SECOND, SECOND).unwrap();
    assert_eq!((new.levels(), new.next_deadline_ns()), (0, None));
    assert_eq!([0x40, 0x0B, 0x5F].map(|index| get(&mut new, index, SECOND)), [0x99, 0x06, 3]);
    // 103 seconds after 23:16:58, in binary since the old machine set it so.
    assert_eq!([4, 2, 0].map(|index| get(&mut new, index, SECOND)), [23, 18, 41]);
}

proptest! {
    #[test]
    fn any_traffic_is_survived_and_a_restored_clock_behaves_the_same(
        before in proptest::collection::vec((0u8..64, any::<u8>(), 0u64..3 * SECOND), 0..60),
        after in proptest::collection::vec((0u8..64, any::<u8>(), 0u64..3 * SECOND), 0..60),
    ) {
        let mut now = 0;
        let mut step = |rtc: &mut Rtc, (index, value, later): (u8, u8, u64), advance: bool| {
            now += if advance { later } else { 0 };
            set(rtc, index, value, now);
            (get(rtc, index, now), rtc.levels(), rtc.next_deadline_ns(), get(rtc, 0x0C, now))
        };
        let mut one = rtc();
        before.into_iter().for_each(|s| { step(&mut one, s, true); });
        let mut two = rtc();
        two.restore("rtc", &one.save("rtc")).unwrap();
        for s in after {
            prop_assert_eq!(step(&mut one, s, true), step(&mut two, s, false));
        }
    }
}
