use alloc::vec::Vec;

use super::chip::{CONTROL_B, Pit};
use crate::socket::{Access, Chip, Effects};
use kasane_cpu::AccessSize;
use proptest::prelude::*;

const TICK_NS: u64 = 838;

fn at(offset: u32, now_ns: u64) -> Access {
    Access { offset, size: AccessSize::Byte, now_ns }
}
fn outb(pit: &mut Pit, offset: u32, value: u64, now_ns: u64) -> u32 {
    let mut effects = Effects::default();
    pit.write(at(offset, now_ns), value, &mut effects);
    effects.pulses
}
fn inb(pit: &mut Pit, offset: u32, now_ns: u64) -> u64 {
    pit.read(at(offset, now_ns), &mut Effects::default())
}
/// Runs to the next deadline: (time, pulses).
fn to_deadline(pit: &mut Pit) -> Option<(u64, u32)> {
    let deadline = pit.next_deadline_ns()?;
    let mut effects = Effects::default();
    pit.advance(deadline, &mut effects);
    Some((deadline, effects.pulses))
}

#[test]
fn rate_generator_ticks_with_exact_deadlines() {
    let mut pit = Pit::default();
    outb(&mut pit, 3, 0x34, 0);
    outb(&mut pit, 0, 0xA9, 0);
    outb(&mut pit, 0, 0x04, 0);
    // 1193 ticks after the load at tick 1; a thousand periods don't drift.
    assert_eq!(to_deadline(&mut pit), Some((1_000_686, 1)));
    (2..1000).for_each(|_| assert_eq!(to_deadline(&mut pit).map(|d| d.1), Some(1)));
    let expected = (1_193_001u128 * 1_000_000_000).div_ceil(1_193_182) as u64;
    assert_eq!(to_deadline(&mut pit), Some((expected, 1)));
}

#[test]
fn short_periods_have_deadlines_that_a_host_can_keep_and_the_rate_stays() {
    // Mode 2 and 3 with the shortest counts, and the highest rate that gets all of its rises.
    for (mode, count, apart_ticks) in
        [(0x14, 1, 60u64), (0x16, 2, 60), (0x14, 50, 100), (0x14, 61, 61)]
    {
        let mut pit = Pit::default();
        outb(&mut pit, 3, mode, 0);
        outb(&mut pit, 0, count, 0);
        let deadlines: Vec<(u64, u32)> = (0..1000).filter_map(|_| to_deadline(&mut pit)).collect();
        let times: Vec<u64> = deadlines.iter().map(|(time, _)| *time).collect();
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 50_000), "count {count}");
        assert!(deadlines.iter().all(|(_, pulses)| *pulses == 1), "count {count}");
        let last = (u128::from(1 + 1000 * apart_ticks) * 1_000_000_000).div_ceil(1_193_182);
        assert_eq!(times.last().copied(), u64::try_from(last).ok(), "count {count}");
    }
}

#[test]
fn a_rise_between_deadlines_is_seen_by_who_looks() {
    let mut pit = Pit::default();
    outb(&mut pit, 3, 0x14, 0);
    outb(&mut pit, 0, 10, 0);
    let before = pit.next_deadline_ns();
    let mut effects = Effects::default();
    pit.read(at(0, 20 * TICK_NS), &mut effects);
    assert_eq!((effects.pulses, pit.next_deadline_ns()), (1, before));
}

#[test]
fn linux_one_shot_rises_once_in_mode_4() {
    let mut pit = Pit::default();
    outb(&mut pit, 3, 0x38, 0);
    outb(&mut pit, 0, 100, 0);
    outb(&mut pit, 0, 0, 0);
    assert_eq!(pit.levels(), 1);
    assert_eq!(to_deadline(&mut pit).map(|d| d.1), Some(1));
    assert_eq!(pit.next_deadline_ns(), None);
    outb(&mut pit, 0, 100, 1_000_000);
    outb(&mut pit, 0, 0, 1_000_000);
    assert!(pit.next_deadline_ns().is_some_and(|ns| ns > 1_000_000 + 100 * TICK_NS));
}

#[test]
fn terminal_count_raises_out_and_holds_it() {
    let mut pit = Pit::default();
    outb(&mut pit, 3, 0x30, 0);
    assert_eq!(pit.levels(), 0);
    outb(&mut pit, 0, 10, 0);
    outb(&mut pit, 0, 0, 0);
    assert_eq!(to_deadline(&mut pit).map(|d| d.1), Some(1));
    assert_eq!((pit.levels(), pit.next_deadline_ns()), (1, None));
}

#[test]
fn linux_calibrates_the_tsc_with_channel_2() {
    // pit_hpet_ptimer_calibrate_cpu: gate up, speaker off, mode 0, then wait for OUT2 in 0x61.
    let mut pit = Pit::default();
    let control = inb(&mut pit, CONTROL_B, 0) & !2 | 1;
    outb(&mut pit, CONTROL_B, control, 0);
    outb(&mut pit, 3, 0xB0, 0);
    outb(&mut pit, 2, 59_659 & 0xFF, 0);
    outb(&mut pit, 2, 59_659 >> 8, 0);
    assert_eq!(inb(&mut pit, CONTROL_B, 49_999_000) & 0x20, 0);
    assert_eq!(inb(&mut pit, CONTROL_B, 50_001_000) & 0x20, 0x20);
}

#[test]
fn quick_calibration_sees_the_high_byte_fall() {
    // quick_pit_calibrate: mode 0 with 0xFFFF, reads low and high bytes.
    let mut pit = Pit::default();
    outb(&mut pit, CONTROL_B, 1, 0);
    for (offset, value) in [(3, 0xB0), (2, 0xFF), (2, 0xFF)] {
        outb(&mut pit, offset, value, 0);
    }
    let mut high = |ns| {
        inb(&mut pit, 2, ns);
        inb(&mut pit, 2, ns)
    };
    assert_eq!(high(10 * TICK_NS), 0xFF);
    assert_eq!(high(300 * TICK_NS), 0xFE);
    assert_eq!(high(600 * TICK_NS), 0xFD);
}

#[test]
fn latches_hold_until_read() {
    let mut pit = Pit::default();
    for (offset, value) in [(3, 0x34), (0, 0), (0, 0)] {
        outb(&mut pit, offset, value, 0);
    }
    outb(&mut pit, 3, 0x00, 1001 * TICK_NS);
    outb(&mut pit, 3, 0x00, 5000 * TICK_NS);
    let low = inb(&mut pit, 0, 6000 * TICK_NS);
    let high = inb(&mut pit, 0, 7000 * TICK_NS);
    assert!((0xFC16..=0xFC19).contains(&(high << 8 | low)), "{high:x} {low:x}");
}

#[test]
fn read_back_gives_status_before_count() {
    let mut pit = Pit::default();
    for (offset, value) in [(3, 0x36), (0, 0x10), (0, 0)] {
        outb(&mut pit, offset, value, 0);
    }
    outb(&mut pit, 3, 0xC2, 0);
    assert_eq!(inb(&mut pit, 0, 0), 0xF6, "OUT high, count not loaded yet, both bytes, mode 3");
    assert_eq!(inb(&mut pit, 0, 0), 0x10);
    assert_eq!(inb(&mut pit, 0, 0), 0);
    outb(&mut pit, 3, 0xE2, 100 * TICK_NS);
    assert_eq!(inb(&mut pit, 0, 100 * TICK_NS) & 0x40, 0, "loaded");
}

#[test]
fn bcd_counts_in_decimal() {
    let mut pit = Pit::default();
    for (offset, value) in [(3, 0x35), (0, 0x00), (0, 0x10)] {
        outb(&mut pit, offset, value, 0);
    }
    outb(&mut pit, 3, 0x00, 2 * TICK_NS + 100);
    let value = inb(&mut pit, 0, 0) | inb(&mut pit, 0, 0) << 8;
    assert_eq!(value, 0x0999);
    assert_eq!(to_deadline(&mut pit).map(|d| d.0 / TICK_NS), Some(1001));
}

#[test]
fn square_wave_counts_by_two() {
    let mut pit = Pit::default();
    for (offset, value) in [(3, 0xB6), (2, 100), (2, 0), (CONTROL_B, 1)] {
        outb(&mut pit, offset, value, 0);
    }
    let mut sample = |tick: u64| {
        let ns = tick * 1_000_000_000 / 1_193_182 + 1;
        outb(&mut pit, 3, 0x80, ns);
        let low = inb(&mut pit, 2, ns);
        (inb(&mut pit, 2, ns) << 8 | low, inb(&mut pit, CONTROL_B, ns) >> 5 & 1)
    };
    assert_eq!(sample(1), (100, 1));
    assert_eq!(sample(11), (80, 1));
    assert_eq!(sample(51), (100, 0));
    assert_eq!(sample(101), (100, 1));
}

#[test]
fn a_gate_edge_triggers_the_one_shot() {
    let mut pit = Pit::default();
    for (offset, value) in [(3, 0xB2), (2, 50), (2, 0)] {
        outb(&mut pit, offset, value, 0);
    }
    assert_eq!(inb(&mut pit, CONTROL_B, 0) & 0x20, 0x20);
    outb(&mut pit, CONTROL_B, 1, 0);
    assert_eq!(inb(&mut pit, CONTROL_B, 40 * TICK_NS) & 0x20, 0);
    assert_eq!(inb(&mut pit, CONTROL_B, 60 * TICK_NS) & 0x20, 0x20);
}

#[test]
fn a_low_gate_stops_mode_0() {
    let mut pit = Pit::default();
    for (offset, value) in [(CONTROL_B, 1), (3, 0xB0), (2, 100), (2, 0)] {
        outb(&mut pit, offset, value, 0);
    }
    outb(&mut pit, CONTROL_B, 0, 50 * TICK_NS);
    assert_eq!(inb(&mut pit, CONTROL_B, 500 * TICK_NS) & 0x20, 0);
    outb(&mut pit, CONTROL_B, 1, 1000 * TICK_NS);
    assert_eq!(inb(&mut pit, CONTROL_B, 1030 * TICK_NS) & 0x20, 0);
    assert_eq!(inb(&mut pit, CONTROL_B, 1060 * TICK_NS) & 0x20, 0x20);
}

#[test]
fn a_new_count_of_a_running_rate_generator_waits_for_the_end_of_its_period() {
    let mut pit = Pit::default();
    for (offset, value) in [(3, 0x14), (0, 100)] {
        outb(&mut pit, offset, value, 0);
    }
    outb(&mut pit, 0, 70, 10 * TICK_NS);
    let ticks = |d: Option<(u64, u32)>| d.map(|d| d.0 / TICK_NS);
    assert_eq!(ticks(to_deadline(&mut pit)), Some(101));
    assert_eq!(ticks(to_deadline(&mut pit)), Some(171));
}

/// A counter stepped tick by tick, with its gate high: the datasheet's words, one by one.
struct Stepped {
    mode: u8,
    count: u32,
    element: u32,
    out: bool,
    done: bool,
}

impl Stepped {
    /// In the tick that loads the count.
    fn loaded(mode: u8, count: u32) -> Self {
        let element = if mode == 3 { count & !1 } else { count };
        Self { mode, count, element, out: mode != 0, done: false }
    }
    fn step(&mut self) {
        match self.mode {
            0 => {
                self.element = self.element.wrapping_sub(1) & 0xFFFF;
                self.out |= self.element == 0;
            }
            2 => {
                self.element -= 1;
                self.element = if self.element == 0 { self.count } else { self.element };
                self.out = self.element != 1;
            }
            3 => {
                // An odd count stays one tick at 0 while OUT is high.
                let ends = self.element == 2 && (self.count.is_multiple_of(2) || !self.out);
                if ends || self.element == 0 {
                    self.element = self.count & !1;
                    self.out = !self.out;
                } else {
                    self.element -= 2;
                }
            }
            _ => {
                self.element = self.element.wrapping_sub(1) & 0xFFFF;
                self.out = self.element != 0 || self.done;
                self.done |= self.element == 0;
            }
        }
    }
}

proptest! {
    #[test]
    fn counts_like_a_counter_stepped_tick_by_tick(
        mode in prop_oneof![Just(0u8), Just(2), Just(3), Just(4)],
        count in 2u32..400,
        ticks in 1u64..1500,
    ) {
        let mut pit = Pit::default();
        let mut stepped = Stepped::loaded(mode, count);
        (0..ticks).for_each(|_| stepped.step());
        // The count is written in tick 0, so the element is loaded in tick 1.
        let ns = (u128::from(ticks + 1) * 1_000_000_000).div_ceil(1_193_182) as u64;
        outb(&mut pit, CONTROL_B, 1, 0);
        for (offset, value) in [(3, 0xB0 | mode << 1), (2, count as u8), (2, (count >> 8) as u8)] {
            outb(&mut pit, offset, u64::from(value), 0);
        }
        outb(&mut pit, 3, 0x80, ns);
        let element = inb(&mut pit, 2, ns) | inb(&mut pit, 2, ns) << 8;
        let out = inb(&mut pit, CONTROL_B, ns) & 0x20 != 0;
        prop_assert_eq!((element, out), (u64::from(stepped.element), stepped.out));
    }

    #[test]
    fn any_traffic_is_survived_and_a_restored_timer_behaves_the_same(
        before in proptest::collection::vec((0u32..6, any::<u8>(), 0u64..200_000), 0..60),
        after in proptest::collection::vec((0u32..6, any::<u8>(), 0u64..200_000), 0..60),
    ) {
        let mut now = 0;
        let mut step = |pit: &mut Pit, (offset, value, later): (u32, u8, u64), advance: bool| {
            now += if advance { later } else { 0 };
            let pulses = outb(pit, offset, u64::from(value), now);
            (pulses, inb(pit, offset, now), pit.levels(), pit.next_deadline_ns())
        };
        let mut one = Pit::default();
        before.into_iter().for_each(|s| { step(&mut one, s, true); });
        let mut two = Pit::default();
        two.restore("pit", &one.save("pit")).unwrap();
        for s in after {
            prop_assert_eq!(step(&mut one, s, true), step(&mut two, s, false));
            if let Some(deadline) = one.next_deadline_ns() {
                prop_assert!(deadline > 0);
            }
        }
    }
}
