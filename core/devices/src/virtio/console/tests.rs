//! The console by its driver's sequences (virtio 1.2 §5.3).

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use kasane_ports::{Console, Kick};
use kasane_spec_virtio::console::{control, feature};
use kasane_spec_virtio::feature as common;
use kasane_spec_virtio::status;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::chip::{ConsoleSize, PortShape, VirtioConsole};
use super::glue::{ConsoleConnections, PortConnections, connect};
use crate::saved::Saved;
use crate::virtio::queue::RingForm;
use crate::virtio::rig::{Piece, Rig};
use crate::virtio::{Offer, VirtioDevice};

#[derive(Default)]
struct Line {
    out: Mutex<Vec<u8>>,
    rooms: Mutex<u32>,
}

impl Console for Line {
    fn output(&self, bytes: &[u8]) {
        self.out.lock().extend(bytes);
    }
}
impl Kick for Line {
    fn kick(&self) {
        *self.rooms.lock() += 1;
    }
}

const SIZE: ConsoleSize = ConsoleSize { columns: 80, rows: 25 };

/// A device with `more` named ports, and its lines.
fn device(more: usize) -> (Rig<VirtioConsole>, Vec<Arc<Line>>) {
    let names = (0..more).map(|n| PortShape::Named(alloc::format!("port.{n}"))).collect::<Vec<_>>();
    let lines: Vec<Arc<Line>> = (0..=more).map(|_| Arc::new(Line::default())).collect();
    let mut rig = Rig::new(VirtioConsole::new(names.clone(), SIZE));
    let ports = lines
        .iter()
        .map(|line| PortConnections { console: line.clone(), room: Some(line.clone()) })
        .collect();
    let connections =
        ConsoleConnections { memory: rig.ram.clone(), interrupts: rig.interrupts.clone(), ports };
    let offer = Offer { best_form: RingForm::Packed, ..Offer::default() };
    rig.device = connect("test", VirtioConsole::new(names, SIZE), offer, connections);
    (rig, lines)
}

#[test]
fn output_goes_to_the_line_and_input_to_the_buffers() {
    let (mut rig, lines) = device(0);
    rig.start(64, 0);
    let out = [rig.readable(b"hello, "), rig.readable(b"world")];
    let id = rig.send(1, &out);
    assert_eq!(*lines[0].out.lock(), b"hello, world");
    assert_eq!((rig.used(1), rig.interrupted()), (Some((id, 0)), vec![1]));
    assert_eq!(rig.device.receive(0, b"abc"), 0, "there is no room yet");
    let room = [rig.writable(2), rig.writable(2)];
    rig.send(0, &room[..1]);
    assert_eq!(*lines[0].rooms.lock(), 1);
    rig.send(0, &room[1..]);
    assert_eq!(rig.device.receive(0, b"abcde"), 4);
    assert_eq!(rig.interrupted(), [0]);
    assert_eq!([rig.bytes(room[0]), rig.bytes(room[1])], [b"ab", b"cd"]);
    assert_eq!(*lines[0].rooms.lock(), 1);
}

#[test]
fn the_size_is_in_the_configuration_and_a_change_is_told() {
    let (mut rig, lines) = device(0);
    rig.start(64, feature::SIZE | feature::EMERG_WRITE);
    let mut bytes = [0; 12];
    rig.device.config_read(0, &mut bytes);
    assert_eq!(bytes, [80, 0, 25, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    rig.device.resize(ConsoleSize { columns: 100, rows: 30 });
    rig.device.resize(ConsoleSize { columns: 100, rows: 30 });
    assert_eq!(*rig.interrupts.configs.lock(), 1);
    rig.device.config_write(8, b"!\0\0\0");
    assert_eq!(*lines[0].out.lock(), b"!");
}

fn say(rig: &mut Rig<VirtioConsole>, id: u32, event: u16, value: u16) {
    let message = [&id.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat();
    let piece = rig.readable(&message);
    rig.send(3, &[piece]);
    rig.used(3).unwrap();
}

/// What the driver hears, with room for `count` messages: port, event, value, data.
fn hear(rig: &mut Rig<VirtioConsole>, count: usize) -> Vec<(u8, u16, u16, String)> {
    let room: Vec<Piece> = (0..count).map(|_| rig.writable(64)).collect();
    for piece in &room {
        rig.send(2, &[*piece]);
    }
    let mut heard = Vec::new();
    for piece in room {
        let Some((_, written)) = rig.used(2) else { break };
        let bytes = rig.bytes(piece);
        let data = String::from_utf8_lossy(&bytes[8..written as usize]).into_owned();
        heard.push((bytes[0], u16::from(bytes[4]), u16::from(bytes[6]), data));
    }
    heard
}

#[test]
fn ports_come_up_as_the_driver_asks_for_them() {
    let (mut rig, lines) = device(2);
    rig.start(64, feature::SIZE | feature::MULTIPORT);
    say(&mut rig, 0, control::DEVICE_READY, 1);
    say(&mut rig, 0, control::DEVICE_READY, 1);
    let none = String::new;
    assert_eq!(hear(&mut rig, 3), [(0, 1, 1, none()), (1, 1, 1, none()), (2, 1, 1, none())]);
    say(&mut rig, 0, control::PORT_READY, 1);
    let size = String::from("P\0\x19\0");
    let expected = [(0, control::CONSOLE_PORT, 1, none()), (0, control::PORT_OPEN, 1, none())];
    assert_eq!(hear(&mut rig, 2), expected);
    assert_eq!(hear(&mut rig, 1), [(0, control::RESIZE, 0, size)]);
    say(&mut rig, 2, control::PORT_READY, 1);
    let name = (2, control::PORT_NAME, 1, String::from("port.1"));
    assert_eq!(hear(&mut rig, 3), [name, (2, control::PORT_OPEN, 1, none())]);
    let room = rig.writable(10);
    rig.send(6, &[room]);
    assert_eq!(rig.device.receive(2, b"x"), 0, "no program has it open");
    say(&mut rig, 2, control::PORT_OPEN, 1);
    assert_eq!(*lines[2].rooms.lock(), 1);
    assert_eq!(rig.device.receive(2, b"x"), 1);
    let out = rig.readable(b"answer");
    rig.send(7, &[out]);
    assert_eq!(*lines[2].out.lock(), b"answer");
    say(&mut rig, 2, control::PORT_OPEN, 0);
    assert_eq!(rig.device.receive(2, b"y"), 0);
    rig.device.resize(ConsoleSize { columns: 1, rows: 2 });
    // The third of the buffers above was still there for it.
    assert!(rig.used(2).is_some());
}

#[test]
fn control_messages_that_make_no_sense_are_not_heard() {
    let (mut rig, _) = device(1);
    rig.start(64, feature::MULTIPORT);
    for (id, event) in [(9, control::PORT_READY), (u32::MAX, control::PORT_OPEN), (0, 99)] {
        say(&mut rig, id, event, 1);
    }
    let short = rig.readable(&[1, 2, 3]);
    rig.send(3, &[short]);
    assert_eq!(hear(&mut rig, 2), []);
    assert_eq!(rig.device.status() & status::NEEDS_RESET, 0);
    assert_eq!(rig.device.receive(99, b"x"), 0);
}

#[test]
fn a_chain_that_is_larger_than_memory_is_taken_piece_by_piece() {
    let (mut rig, lines) = device(0);
    rig.start(64, 0);
    let piece = rig.readable(&[b'x'; 50_000]);
    rig.send(1, &[piece, piece, piece, piece]);
    assert_eq!(lines[0].out.lock().len(), 200_000);
    assert!(rig.used(1).is_some());
}

#[test]
fn buffers_of_the_wrong_kind_need_a_reset() {
    let (mut rig, lines) = device(0);
    rig.start(64, 0);
    let wrong = rig.readable(b"x");
    rig.send(0, &[wrong]);
    assert_eq!(rig.device.receive(0, b"abc"), 0);
    assert_ne!(rig.device.status() & status::NEEDS_RESET, 0);
    rig.start(64, 0);
    let wrong = rig.writable(8);
    rig.send(1, &[wrong]);
    assert_ne!(rig.device.status() & status::NEEDS_RESET, 0);
    rig.start(64, 0);
    let right = rig.readable(b"again");
    rig.send(1, &[right]);
    assert_eq!(*lines[0].out.lock(), b"again");
}

proptest! {
    #[test]
    fn bytes_arrive_in_order_whatever_the_buffers_are(
        ring in prop::sample::select(vec![0, common::RING_PACKED, common::EVENT_IDX]),
        steps in prop::collection::vec((0usize..40, 1usize..20), 1..60),
    ) {
        let (mut rig, lines) = device(0);
        rig.start(8, ring);
        let (mut given, mut got, mut next) = (Vec::<u8>::new(), Vec::<u8>::new(), 0u8);
        let mut buffers = Vec::new();
        for (len, room) in steps {
            let bytes: Vec<u8> = (0..len).map(|n| next.wrapping_add(n as u8)).collect();
            let taken = rig.device.receive(0, &bytes);
            next = next.wrapping_add(taken as u8);
            given.extend(&bytes[..taken]);
            while let Some((_, written)) = rig.used(0) {
                let piece = buffers.remove(0);
                got.extend(&rig.bytes(piece)[..written as usize]);
            }
            if buffers.len() < 8 {
                let piece = rig.writable(room);
                rig.send(0, &[piece]);
                buffers.push(piece);
            }
            let section = rig.device.save();
            prop_assert!(rig.device.restore(&section).is_ok());
            let echo = rig.readable(&bytes[..taken.max(1).min(len)]);
            if len > 0 {
                rig.send(1, &[echo]);
                rig.used(1);
            }
        }
        prop_assert_eq!(&given, &got);
        prop_assert!(lines[0].out.lock().len() >= got.len());
    }
}
