//! All chips on one bus, as a board wires them.

mod harness;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use harness::Board;
use kasane_cpu::AccessSize::{self, Byte, Dword, Qword, Word};
use kasane_devices::system::SystemRequest;
use kasane_ports::Level;
use proptest::prelude::*;

#[test]
fn the_timer_interrupts_through_the_first_controller() {
    let board = Board::new().unwrap();
    board.init_pics();
    for (port, value) in [(0x43, 0x34), (0x40, 0xA9), (0x40, 0x04)] {
        board.out(port, value);
    }
    // OUT went high with the control word: nothing but the first period's end is a new edge.
    while board.router.acknowledge().is_some() {
        board.out(0x20, 0x20);
    }
    let deadline = board.next_deadline_ns().unwrap();
    assert!((1_000_000..1_001_000).contains(&deadline));
    board.advance(deadline);
    assert_eq!(*board.home.intr.lock(), Level::High);
    assert_eq!(board.router.acknowledge(), Some(0x20));
    assert!(board.home.kicks.load(Ordering::Relaxed) >= 1);
}

#[test]
fn the_console_works_by_interrupts() {
    let board = Board::new().unwrap();
    board.init_pics();
    for (port, value) in [(0x3FC, 0x0B), (0x3FA, 0x07), (0x3F9, 0x01)] {
        board.out(port, value);
    }
    assert_eq!(board.serial.receive(b"x", 0), 1);
    assert_eq!(board.router.acknowledge(), Some(0x24));
    assert_eq!(board.ports.read(0x3F8, Byte, 0).value, u64::from(b'x'));
    board.out(0x3F8, u64::from(b'y'));
    assert_eq!(*board.home.output.lock(), b"y");
}

#[test]
fn soft_off_reaches_the_home() {
    let board = Board::new().unwrap();
    board.ports.write(0x604, Word, 0x2000, 0);
    assert_eq!(*board.home.requests.lock(), [SystemRequest::PowerOff]);
}

#[test]
fn an_idle_board_has_no_deadline() {
    assert_eq!(Board::new().unwrap().next_deadline_ns(), None);
}

#[test]
fn two_threads_leave_the_wires_as_the_chips_have_them() {
    // One feeds input, the other drives the UART as a guest: at the end the interrupt's level
    // must be what the chip says, whoever was last.
    let board = Arc::new(Board::new().unwrap());
    board.init_pics();
    board.out(0x3FC, 0x0B);
    board.out(0x3FA, 0x01);
    board.out(0x3F9, 0x01);
    let feeder = {
        let board = board.clone();
        std::thread::spawn(move || {
            (0..20_000).map(|_| board.serial.receive(b"z", 0)).sum::<usize>()
        })
    };
    let mut taken = 0;
    while !feeder.is_finished() {
        taken += usize::from(board.ports.read(0x3FD, Byte, 0).value & 1 != 0);
        board.ports.read(0x3F8, Byte, 0);
    }
    let given = feeder.join().unwrap();
    (0..16).for_each(|_| {
        board.ports.read(0x3F8, Byte, 0);
    });
    assert!(taken <= given);
    // Input 4 of the first controller reads back low, then high with a new byte.
    board.out(0x20, 0x0A);
    assert_eq!(board.ports.read(0x20, Byte, 0).value & 0x10, 0);
    board.serial.receive(b"z", 0);
    assert_eq!(board.ports.read(0x20, Byte, 0).value & 0x10, 0x10);
}

fn sizes() -> impl Strategy<Value = AccessSize> {
    prop_oneof![Just(Byte), Just(Word), Just(Dword)]
}

/// Ports that have something, and some that don't.
fn ports() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..0x100, 0x3F0u64..0x408, 0x4CEu64..0x4D4, 0x600u64..0x640, 0xCF6u64..0xD00]
}

fn addresses() -> impl Strategy<Value = u64> {
    prop_oneof![0xFEC0_0000u64..0xFEC0_0050, 0xFED0_0000u64..0xFED0_0170]
}

proptest! {
    #[test]
    fn any_traffic_is_survived_and_a_restored_board_behaves_the_same(
        before in proptest::collection::vec(
            (ports(), addresses(), sizes(), any::<u64>(), 0u64..2_000_000), 0..120),
        after in proptest::collection::vec(
            (ports(), addresses(), sizes(), any::<u64>(), 0u64..2_000_000), 0..60),
    ) {
        let mut now = 0;
        let mut step = |board: &Board, (port, address, size, value, later), go: bool| {
            now += if go { later } else { 0 };
            board.ports.write(port, size, value, now);
            board.memory.write(address, Qword, value.rotate_left(7), now);
            board.advance(now);
            (
                board.ports.read(port, size, now),
                board.memory.read(address, Qword, now),
                board.router.acknowledge(),
                board.next_deadline_ns(),
            )
        };
        let one = Board::new().unwrap();
        before.into_iter().for_each(|s| { step(&one, s, true); });
        let two = Board::new().unwrap();
        for (to, from) in two.saved.iter().zip(&one.saved) {
            to.restore(&from.save()).unwrap();
        }
        for s in after {
            prop_assert_eq!(step(&one, s, true), step(&two, s, false));
        }
    }
}
