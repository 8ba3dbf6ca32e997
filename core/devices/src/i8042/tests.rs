use super::spec::BYTE_NS;
use super::{I8042, Movement};
use crate::socket::{Access, Chip, Effects};
use crate::system::{ResetKind, SystemRequest};
use alloc::vec::Vec;
use kasane_cpu::AccessSize;
use proptest::prelude::*;

/// A driver that reads until nothing comes, with time passing.
struct Driver {
    chip: I8042,
    now_ns: u64,
    requests: Vec<SystemRequest>,
}

impl Driver {
    fn new() -> Self {
        Self { chip: I8042::default(), now_ns: 1_000_000, requests: Vec::new() }
    }
    fn at(&self, offset: u32) -> Access {
        Access { offset, size: AccessSize::Byte, now_ns: self.now_ns }
    }
    fn write(&mut self, offset: u32, value: u8) {
        let (at, mut effects) = (self.at(offset), Effects::default());
        self.chip.write(at, u64::from(value), &mut effects);
        self.requests.extend(effects.list);
    }
    fn status(&mut self) -> u8 {
        let at = self.at(1);
        self.chip.read(at, &mut Effects::default()) as u8
    }
    fn data(&mut self) -> u8 {
        let at = self.at(0);
        let byte = self.chip.read(at, &mut Effects::default()) as u8;
        self.now_ns += BYTE_NS;
        byte
    }
    fn drain(&mut self) -> Vec<u8> {
        core::iter::from_fn(|| (self.status() & 1 != 0).then(|| self.data())).collect()
    }
    fn command(&mut self, command: u8) -> Vec<u8> {
        self.write(1, command);
        self.drain()
    }
    fn keyboard(&mut self, bytes: &[u8]) -> Vec<u8> {
        bytes.iter().for_each(|byte| self.write(0, *byte));
        self.drain()
    }
    fn mouse(&mut self, bytes: &[u8]) -> Vec<u8> {
        bytes.iter().for_each(|byte| {
            self.write(1, 0xD4);
            self.write(0, *byte);
        });
        self.drain()
    }
}

#[test]
fn linux_initialises_the_controller() {
    let mut driver = Driver::new();
    assert_eq!(driver.drain(), []);
    let control = driver.command(0x20);
    assert_eq!(control, [0x47]);
    driver.write(1, 0x60);
    driver.write(0, 0x74);
    assert_eq!(driver.command(0x20), [0x74], "both ports off");
    assert_eq!(driver.command(0xAA), [0x55]);
    assert_eq!((driver.command(0xA9), driver.command(0xAB)), (alloc::vec![0], alloc::vec![0]));
    driver.write(1, 0xA8);
    assert_eq!(driver.command(0x20)[0] & 0x20, 0);
    driver.write(1, 0xA7);
    assert_eq!(driver.command(0x20)[0] & 0x20, 0x20);
}

#[test]
fn linux_finds_the_auxiliary_port_by_its_echo() {
    let mut driver = Driver::new();
    driver.write(1, 0xD3);
    driver.write(0, 0x5A);
    assert_eq!(driver.status() & 0x21, 0x21);
    assert_eq!(driver.chip.levels() & 3, 2, "IRQ 12");
    assert_eq!(driver.data(), 0x5A);
    assert_eq!(driver.chip.levels() & 3, 0);
}

#[test]
fn the_keyboard_answers_its_driver() {
    let mut driver = Driver::new();
    driver.write(1, 0x60);
    driver.write(0, 0x07);
    assert_eq!(driver.keyboard(&[0xF2]), [0xFA, 0xAB, 0x83]);
    assert_eq!(driver.keyboard(&[0xED, 0x02]), [0xFA, 0xFA]);
    assert_eq!(driver.chip.keyboard.leds(), 2);
    assert_eq!(driver.keyboard(&[0xF3, 0x00]), [0xFA, 0xFA]);
    assert_eq!(driver.keyboard(&[0xF0, 0x00]), [0xFA, 0xFA, 0x02]);
    assert_eq!(driver.keyboard(&[0xFF]), [0xFA, 0xAA]);
    assert_eq!(driver.keyboard(&[0xEE]), [0xEE]);
    assert_eq!(driver.keyboard(&[0x05]), [0xFE]);
}

#[test]
fn keys_are_translated_and_interrupt() {
    let mut driver = Driver::new();
    driver.chip.key(&[0x1C], driver.now_ns);
    assert_eq!(driver.chip.levels() & 3, 1);
    assert_eq!(driver.data(), 0x1E);
    driver.chip.key(&[0xE0, 0xF0, 0x75], driver.now_ns);
    assert_eq!(driver.drain(), [0xE0, 0xC8]);
    driver.write(1, 0x60);
    driver.write(0, 0x07);
    driver.chip.key(&[0xF0, 0x1C], driver.now_ns);
    assert_eq!(driver.drain(), [0xF0, 0x1C]);
    assert_eq!(driver.keyboard(&[0xF0, 0x01]), [0xFA, 0xFA]);
    driver.chip.key(&[0xF0, 0x1C], driver.now_ns);
    assert_eq!(driver.drain(), [0x9E]);
}

#[test]
fn a_byte_can_be_read_twice_before_the_next_one_comes() {
    let mut driver = Driver::new();
    driver.chip.key(&[0x1C], driver.now_ns);
    driver.chip.key(&[0x32], driver.now_ns);
    let at = driver.at(0);
    let mut read = || driver.chip.read(at, &mut Effects::default());
    assert_eq!((read(), read()), (0x1E, 0x1E));
    let deadline = driver.chip.next_deadline_ns().unwrap();
    assert_eq!(deadline, driver.now_ns + BYTE_NS);
    driver.chip.advance(deadline, &mut Effects::default());
    assert_eq!(driver.chip.levels() & 1, 1);
    assert_eq!(driver.data(), 0x30);
}

#[test]
fn a_full_keyboard_takes_no_half_codes() {
    let mut driver = Driver::new();
    driver.write(1, 0xAD);
    let taken = (0..20).filter(|_| driver.chip.key(&[0xF0, 0x1C], driver.now_ns)).count();
    assert_eq!(taken, 8);
}

#[test]
fn the_mouse_answers_its_driver() {
    let mut driver = Driver::new();
    assert_eq!(driver.mouse(&[0xFF]), [0xFA, 0xAA, 0x00]);
    assert_eq!(driver.mouse(&[0xF2]), [0xFA, 0x00]);
    assert_eq!(driver.mouse(&[0xE8, 0x03, 0xE6]), [0xFA; 3]);
    assert_eq!(driver.mouse(&[0xE9]), [0xFA, 0x00, 0x03, 100]);
    driver.mouse(&[0xF3, 200, 0xF3, 100, 0xF3, 80]);
    assert_eq!(driver.mouse(&[0xF2]), [0xFA, 0x03]);
    driver.mouse(&[0xF3, 200, 0xF3, 200, 0xF3, 80]);
    assert_eq!(driver.mouse(&[0xF2]), [0xFA, 0x04]);
    assert_eq!(driver.mouse(&[0x01]), [0xFE]);
}

#[test]
fn movement_is_reported_in_packets_that_saturate() {
    let mut driver = Driver::new();
    driver.mouse(&[0xF4]);
    let movement = Movement { right: 300, up: -5, wheel: 1, buttons: 1 };
    driver.chip.move_mouse(movement, driver.now_ns);
    assert_eq!(driver.chip.levels() & 3, 2);
    assert_eq!(driver.drain(), [0x29, 255, 0xFB, 0x09, 45, 0]);
}

#[test]
fn a20_and_reset_are_on_the_output_port() {
    let mut driver = Driver::new();
    assert_eq!(driver.chip.levels() & 4, 4);
    driver.write(1, 0xD1);
    driver.write(0, 0xDD);
    assert_eq!(driver.chip.levels() & 4, 0);
    assert_eq!(driver.command(0xD0)[0] & 3, 1);
    driver.write(1, 0xD1);
    driver.write(0, 0xDF);
    assert_eq!(driver.chip.levels() & 4, 4);
    assert_eq!(driver.requests, []);
    driver.write(1, 0xFE);
    assert_eq!(driver.requests, [SystemRequest::Reset(ResetKind::Processor)]);
    driver.write(1, 0xFF);
    assert_eq!(driver.requests.len(), 1);
}

proptest! {
    #[test]
    fn any_traffic_is_survived_and_a_restored_chip_behaves_the_same(
        before in proptest::collection::vec((0u32..3, any::<u8>(), 0u64..400_000), 0..80),
        after in proptest::collection::vec((0u32..3, any::<u8>(), 0u64..400_000), 0..80),
    ) {
        let mut now_ns = 0;
        let mut step = |chip: &mut I8042, (offset, value, later): (u32, u8, u64), go: bool| {
            now_ns += if go { later } else { 0 };
            let (mut effects, size) = (Effects::default(), AccessSize::Byte);
            chip.key(&[value], now_ns);
            chip.write(Access { offset, size, now_ns }, u64::from(value), &mut effects);
            let offset = u32::from(value & 1);
            let read = chip.read(Access { offset, size, now_ns }, &mut effects);
            (read, effects.list, effects.pulses, chip.levels(), chip.next_deadline_ns())
        };
        let mut one = I8042::default();
        before.into_iter().for_each(|s| { step(&mut one, s, true); });
        let mut two = I8042::default();
        two.restore("i8042", &one.save("i8042")).unwrap();
        for s in after {
            prop_assert_eq!(step(&mut one, s, true), step(&mut two, s, false));
        }
    }
}
