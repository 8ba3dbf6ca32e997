//! Bytes as register traffic on a board with all chips: nothing may panic, every chip's state can
//! be saved and taken back, and a board that was restored in the middle behaves the same.
#![no_main]

#[path = "../../tests/harness/mod.rs"]
mod harness;

use harness::Board;
use kasane_cpu::AccessSize;
use libfuzzer_sys::fuzz_target;

/// Where the chips are; the second byte of an operation picks an address within.
const PLACES: [(Bus, u64); 16] = [
    (Bus::Ports, 0x00),
    (Bus::Ports, 0x20),
    (Bus::Ports, 0x40),
    (Bus::Ports, 0x60),
    (Bus::Ports, 0x70),
    (Bus::Ports, 0x92),
    (Bus::Ports, 0xA0),
    (Bus::Ports, 0xB2),
    (Bus::Ports, 0xC0),
    (Bus::Ports, 0x3F8),
    (Bus::Ports, 0x4D0),
    (Bus::Ports, 0x600),
    (Bus::Ports, 0xCF8),
    (Bus::Memory, 0xFEC0_0000),
    (Bus::Memory, 0xFED0_0000),
    (Bus::Memory, 0xFED0_0100),
];

#[derive(Clone, Copy)]
enum Bus {
    Ports,
    Memory,
}

/// One operation in 8 bytes: place and size, offset, time, and 5 bytes of data.
fn step(board: &Board, operation: [u8; 8], now_ns: u64) -> (u64, u64, Option<u8>, Option<u64>) {
    let [place, offset, _, data @ ..] = operation;
    let (bus, base) = PLACES[usize::from(place & 15)];
    let address = base + u64::from(offset & 0x7F);
    let size = [AccessSize::Byte, AccessSize::Word, AccessSize::Dword, AccessSize::Byte]
        [usize::from(place >> 4 & 3)];
    let value = data.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    let space = match bus {
        Bus::Ports => &board.ports,
        Bus::Memory => &board.memory,
    };
    if place & 0x80 == 0 {
        space.write(address, size, value, now_ns);
    }
    if place & 0x40 != 0 {
        board.serial.receive(&data, now_ns);
        board.advance(now_ns);
    }
    let read = space.read(address, size, now_ns).value;
    let taken = if offset & 0x80 != 0 { board.router.acknowledge() } else { None };
    (address, read, taken, board.next_deadline_ns())
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(one) = Board::new() else { return };
    let operations = bytes.as_chunks::<8>().0;
    let (before, after) = operations.split_at(operations.len() / 2);
    let mut now_ns = 0u64;
    let mut later = |operation: &[u8; 8]| {
        // From nanoseconds to minutes.
        now_ns = now_ns.saturating_add(1 << (operation[2] % 37));
        now_ns
    };
    for operation in before {
        let now_ns = later(operation);
        step(&one, *operation, now_ns);
    }
    let Ok(two) = Board::new() else { return };
    for (to, from) in two.saved.iter().zip(&one.saved) {
        assert_eq!(to.restore(&from.save()), Ok(()));
    }
    for operation in after {
        let now_ns = later(operation);
        assert_eq!(step(&one, *operation, now_ns), step(&two, *operation, now_ns));
    }
});
