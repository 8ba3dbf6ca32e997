use super::spec::*;
use super::{Uart, UartEffect};
use crate::socket::{Access, Chip, Effects};
use alloc::vec::Vec;
use kasane_cpu::AccessSize;
use proptest::prelude::*;

fn at(offset: u32, now_ns: u64) -> Access {
    Access { offset, size: AccessSize::Byte, now_ns }
}
fn outb(uart: &mut Uart, offset: u32, value: u8) -> Vec<UartEffect> {
    let mut effects = Effects::default();
    uart.write(at(offset, 0), u64::from(value), &mut effects);
    effects.list
}
fn inb(uart: &mut Uart, offset: u32) -> u8 {
    uart.read(at(offset, 0), &mut Effects::default()) as u8
}
/// With interrupts let through, FIFOs on at trigger level 8, and `ier`.
fn driven(ier: u8) -> Uart {
    let mut uart = Uart::default();
    outb(&mut uart, MCR, 0x0B);
    outb(&mut uart, IIR_FCR, 0x87);
    outb(&mut uart, IER, ier);
    uart
}

#[test]
fn linux_autoconfig_finds_a_16550a() {
    // The order of accesses of the 8250 driver's autoconfig.
    let mut uart = Uart::default();
    outb(&mut uart, IER, 0);
    assert_eq!(inb(&mut uart, IER), 0);
    outb(&mut uart, IER, 0x0F);
    assert_eq!(inb(&mut uart, IER) & 0x0F, 0x0F);
    outb(&mut uart, IER, 0);
    outb(&mut uart, MCR, 0x1A);
    assert_eq!(inb(&mut uart, MSR) & 0xF0, 0x90, "loopback: CTS and DCD");
    outb(&mut uart, MCR, 0);
    outb(&mut uart, LCR, 0xBF);
    outb(&mut uart, IIR_FCR, 0);
    outb(&mut uart, LCR, 0);
    outb(&mut uart, IIR_FCR, 1);
    assert_eq!(inb(&mut uart, IIR_FCR) >> 6, 3, "FIFOs");
    outb(&mut uart, IER, 0x40);
    assert_eq!(inb(&mut uart, IER) & 0x40, 0, "not an XScale");
    outb(&mut uart, SCR, 0xA5);
    assert_eq!(inb(&mut uart, SCR), 0xA5);
}

#[test]
fn linux_tests_that_enabling_thri_raises_it_each_time() {
    let mut uart = driven(0);
    outb(&mut uart, IER, 0x02);
    assert_eq!(uart.levels(), 1);
    assert_eq!(inb(&mut uart, IIR_FCR), 0xC2);
    assert_eq!((uart.levels(), inb(&mut uart, IIR_FCR)), (0, 0xC1));
    outb(&mut uart, IER, 0);
    outb(&mut uart, IER, 0x02);
    assert_eq!(inb(&mut uart, IIR_FCR), 0xC2);
}

#[test]
fn a_sent_byte_goes_out_and_asks_for_the_next() {
    let mut uart = driven(0x02);
    inb(&mut uart, IIR_FCR);
    assert_eq!(outb(&mut uart, DATA, b'k'), [UartEffect::Send(b'k')]);
    assert_eq!(uart.levels(), 1);
    assert_eq!(inb(&mut uart, LSR), 0x60);
    assert_eq!(inb(&mut uart, IIR_FCR), 0xC2);
    assert_eq!(uart.levels(), 0);
}

#[test]
fn a_second_byte_before_the_interrupt_is_read_is_a_new_edge() {
    let mut uart = driven(0x02);
    let mut effects = Effects::default();
    uart.write(at(DATA, 0), 1, &mut effects);
    assert_eq!(effects.pulses, 1);
}

#[test]
fn the_divisor_hides_behind_its_bit() {
    let mut uart = Uart::default();
    outb(&mut uart, LCR, 0x83);
    outb(&mut uart, DATA, 1);
    outb(&mut uart, IER, 2);
    assert_eq!((inb(&mut uart, DATA), inb(&mut uart, IER)), (1, 2));
    outb(&mut uart, LCR, 3);
    assert_eq!(inb(&mut uart, IER), 0);
}

#[test]
fn received_bytes_interrupt_at_the_trigger_level() {
    let mut uart = driven(0x01);
    assert_eq!(uart.receive(b"1234567", 0), 7);
    assert_eq!(uart.levels(), 0);
    assert_eq!(uart.receive(b"8", 0), 1);
    assert_eq!(inb(&mut uart, IIR_FCR), 0xC4);
    assert_eq!(inb(&mut uart, DATA), b'1');
    assert_eq!(inb(&mut uart, IIR_FCR), 0xC1);
}

#[test]
fn bytes_below_the_trigger_level_time_out_after_four_characters() {
    let mut uart = driven(0x01);
    outb(&mut uart, LCR, 0x83);
    outb(&mut uart, DATA, 1);
    outb(&mut uart, LCR, 0x03);
    uart.receive(b"ab", 1_000_000);
    let deadline = uart.next_deadline_ns().unwrap();
    assert_eq!(deadline, 1_000_000 + 40 * 1_000_000_000 / 115_200);
    uart.advance(deadline, &mut Effects::default());
    assert_eq!(uart.levels(), 1);
    assert_eq!(inb(&mut uart, IIR_FCR), 0xCC);
    assert_eq!(inb(&mut uart, DATA), b'a');
    assert_eq!(uart.levels(), 0, "reading ends it");
    assert!(uart.next_deadline_ns().is_some(), "and it starts over");
    assert_eq!(inb(&mut uart, DATA), b'b');
    assert_eq!(uart.next_deadline_ns(), None);
}

#[test]
fn input_has_back_pressure() {
    let mut uart = driven(0x01);
    assert_eq!(uart.receive(&[7; 40], 0), 16);
    assert_eq!(uart.receive(&[7; 40], 0), 0);
    let mut effects = Effects::default();
    uart.read(at(DATA, 0), &mut effects);
    assert_eq!(effects.list, [UartEffect::Room]);
    assert_eq!(uart.receive(&[7; 40], 0), 1);
    assert_eq!(inb(&mut uart, LSR) & 2, 0, "nothing was lost");
    let mut plain = Uart::default();
    outb(&mut plain, MCR, 0x0B);
    outb(&mut plain, IER, 0x01);
    assert_eq!(plain.receive(&[7; 40], 0), 1, "without FIFOs there is one place");
}

#[test]
fn input_waits_until_a_driver_has_opened_the_port() {
    // The order of accesses of Linux' 8250 driver: set-up, FIFOs emptied, RTS last.
    let mut uart = Uart::default();
    assert_eq!(uart.receive(b"early", 0), 0);
    for fcr in [0x01, 0x07, 0x00] {
        outb(&mut uart, IIR_FCR, fcr);
    }
    outb(&mut uart, MCR, 0x08);
    outb(&mut uart, IER, 0x05);
    outb(&mut uart, IIR_FCR, 0x81);
    assert_eq!(uart.receive(b"early", 0), 0);
    assert_eq!(outb(&mut uart, MCR, 0x0B), [UartEffect::Room]);
    assert_eq!(uart.receive(b"early", 0), 5);
    outb(&mut uart, IER, 0);
    assert_eq!(uart.room(), 0, "closed again");
}

#[test]
fn a_driver_without_rts_gets_input_when_its_set_up_rests() {
    let mut uart = Uart::default();
    outb(&mut uart, MCR, 0x08);
    outb(&mut uart, IER, 0x01);
    let deadline = uart.next_deadline_ns().unwrap();
    assert_eq!(uart.room(), 0);
    let mut effects = Effects::default();
    uart.advance(deadline, &mut effects);
    assert_eq!(effects.list, [UartEffect::Room]);
    assert_eq!((uart.room(), uart.next_deadline_ns()), (1, None));
}

#[test]
fn a_guest_that_polls_gets_input_and_one_that_only_sends_does_not() {
    let mut uart = Uart::default();
    for _ in 0..20 {
        assert_eq!([(); 3].map(|()| inb(&mut uart, LSR)), [0x60; 3]);
        outb(&mut uart, DATA, b'.');
    }
    assert_eq!(uart.room(), 0);
    let mut effects = Effects::default();
    for _ in 0..8 {
        uart.read(at(LSR, 0), &mut effects);
    }
    assert_eq!(effects.list, [UartEffect::Room]);
    assert_eq!(uart.receive(b"x", 0), 1);
    assert_eq!(inb(&mut uart, DATA), b'x');
    outb(&mut uart, DATA, b'x');
    assert_eq!(uart.room(), 1, "an echo doesn't end it");
}

#[test]
fn loopback_returns_bytes_overruns_and_modem_lines() {
    let mut uart = driven(0);
    outb(&mut uart, MCR, 0x10);
    inb(&mut uart, MSR);
    assert_eq!(outb(&mut uart, DATA, 0x55), []);
    assert_eq!(inb(&mut uart, LSR), 0x61);
    assert_eq!(inb(&mut uart, DATA), 0x55);
    (0..17).for_each(|n| drop(outb(&mut uart, DATA, n)));
    assert_eq!(inb(&mut uart, LSR) & 2, 2);
    assert_eq!(inb(&mut uart, LSR) & 2, 0, "reading clears it");
    outb(&mut uart, MCR, 0x1F);
    assert_eq!(inb(&mut uart, MSR), 0xFB, "all lines, three deltas, RI only when it ends");
    outb(&mut uart, MCR, 0x1B);
    assert_eq!(inb(&mut uart, MSR), 0xB4);
}

#[test]
fn errors_and_modem_changes_interrupt_by_priority() {
    let mut uart = driven(0);
    outb(&mut uart, MCR, 0x10);
    outb(&mut uart, MCR, 0x08);
    outb(&mut uart, IER, 0x08);
    assert_eq!(uart.levels(), 1);
    assert_eq!(inb(&mut uart, IIR_FCR), 0xC0);
    inb(&mut uart, MSR);
    assert_eq!(inb(&mut uart, IIR_FCR), 0xC1);
}

#[test]
fn out2_gates_the_interrupt() {
    let mut uart = driven(0x02);
    assert_eq!(uart.levels(), 1);
    outb(&mut uart, MCR, 0x03);
    assert_eq!(uart.levels(), 0);
}

#[test]
fn fifo_control_empties_the_receiver() {
    let mut uart = driven(0x01);
    uart.receive(b"abc", 0);
    outb(&mut uart, IIR_FCR, 0x83);
    assert_eq!(inb(&mut uart, LSR) & 1, 0);
    uart.receive(b"abc", 0);
    outb(&mut uart, IIR_FCR, 0);
    assert_eq!((inb(&mut uart, LSR) & 1, inb(&mut uart, IIR_FCR)), (0, 1));
}

proptest! {
    #[test]
    fn any_traffic_is_survived_and_a_restored_uart_behaves_the_same(
        before in proptest::collection::vec((0u32..9, any::<u8>(), 0u64..200_000), 0..60),
        after in proptest::collection::vec((0u32..9, any::<u8>(), 0u64..200_000), 0..60),
    ) {
        let mut now = 0;
        let mut step = |uart: &mut Uart, (offset, value, later): (u32, u8, u64), advance: bool| {
            now += if advance { later } else { 0 };
            let mut effects = Effects::default();
            uart.write(at(offset, now), u64::from(value), &mut effects);
            let taken = uart.receive(&[value; 3], now);
            let read = uart.read(at(u32::from(value) % 9, now), &mut effects);
            (taken, read, effects.list, effects.pulses, uart.levels(), uart.next_deadline_ns())
        };
        let mut one = Uart::default();
        before.into_iter().for_each(|s| { step(&mut one, s, true); });
        let mut two = Uart::default();
        two.restore("serial.0", &one.save("serial.0")).unwrap();
        for s in after {
            prop_assert_eq!(step(&mut one, s, true), step(&mut two, s, false));
        }
    }
}
