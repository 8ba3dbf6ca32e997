//! The card by its driver's sequences (virtio 1.2 §5.1.6).

use alloc::vec;
use alloc::vec::Vec;

use kasane_ports::{
    FrameOffload, Given, NetDevice, NetInfo, NetOffloads, PartialChecksum, Segmentation,
    SegmentationKind,
};
use kasane_spec_virtio::feature as common;
use kasane_spec_virtio::net::{control, feature};
use kasane_spec_virtio::status;
use proptest::prelude::*;

use super::chip::{Link, Net, NetEffect, NetShape};
use crate::saved::Saved;
use crate::virtio::VirtioDevice;
use crate::virtio::rig::{Piece, Rig, Told};

const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const OTHER: [u8; 6] = [0x52, 0x54, 0, 9, 9, 9];
const HEADER: usize = 12;

fn card(pairs: u16) -> Net {
    let info = NetInfo { mtu: 1500, offloads: NetOffloads::ALL, queue_pairs: 8 };
    Net::new(info, NetShape { mac: MAC, queue_pairs: pairs })
}

fn started(pairs: u16, features: u64) -> Rig<Net> {
    let mut rig = Rig::new(card(pairs));
    rig.start(64, features);
    rig.effects.lock().clear();
    rig
}

const ALL: u64 = feature::CSUM
    | feature::GUEST_CSUM
    | feature::CTRL_GUEST_OFFLOADS
    | feature::GUEST_TSO4
    | feature::GUEST_TSO6
    | feature::GUEST_ECN
    | feature::HOST_TSO4
    | feature::HOST_TSO6
    | feature::HOST_ECN
    | feature::MRG_RXBUF
    | feature::CTRL_VQ
    | feature::CTRL_RX
    | feature::CTRL_VLAN
    | feature::CTRL_MAC_ADDR
    | feature::GUEST_ANNOUNCE;

/// A frame of TCP over IPv4 from port `from`: 14 + 20 + 32 bytes of headers.
fn tcp4(to: [u8; 6], from: u16, payload: usize) -> Vec<u8> {
    let mut frame = vec![0; 66 + payload];
    frame[..6].copy_from_slice(&to);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[23] = 6;
    frame[26..34].copy_from_slice(&[10, 0, 2, 15, 10, 0, 2, 2]);
    frame[34..36].copy_from_slice(&from.to_be_bytes());
    frame[36..38].copy_from_slice(&80u16.to_be_bytes());
    frame[46] = 8 << 4;
    frame
}

fn sent(header: [u8; 10], frame: &[u8]) -> Vec<u8> {
    [&header[..], &[0, 0], frame].concat()
}

const SUM: PartialChecksum = PartialChecksum { start: 34, offset: 16 };
const TSO: [u8; 10] = [1, 1, 0, 0, 0xB4, 5, 34, 0, 16, 0];

fn take(rig: &Rig<Net>) -> Option<(Vec<u8>, FrameOffload)> {
    let mut frame = Vec::new();
    rig.device.take(&mut frame).map(|offload| (frame, offload))
}

#[test]
fn a_frame_goes_out_with_one_interrupt_after_flush() {
    let mut rig = started(1, 0);
    let frame = tcp4(OTHER, 1, 10);
    let message = sent([0; 10], &frame);
    let pieces = [rig.readable(&message[..5]), rig.readable(&message[5..40])];
    let rest = rig.readable(&message[40..]);
    let id = rig.send(1, &[pieces[0], pieces[1], rest]);
    assert_eq!(*rig.effects.lock(), [NetEffect::Wake]);
    assert_eq!(take(&rig), Some((frame, FrameOffload::default())));
    assert_eq!(take(&rig), None);
    assert_eq!(rig.interrupted(), []);
    rig.device.flush();
    assert_eq!((rig.interrupted(), rig.used(1)), (vec![1], Some((id, 0))));
    rig.device.flush();
    assert_eq!(rig.interrupted(), []);
}

#[test]
fn segmentation_is_told_with_the_headers_that_the_frame_really_has() {
    let mut rig = started(1, ALL);
    let frame = tcp4(OTHER, 1, 60_000);
    let message = rig.readable(&sent(TSO, &frame));
    rig.send(1, &[message]);
    let (taken, offload) = take(&rig).unwrap();
    assert_eq!(taken, frame);
    let segmentation =
        Segmentation { kind: SegmentationKind::Tcp4, size: 1460, header_len: 66, ecn: false };
    let expected =
        FrameOffload { checksum: Some(SUM), checked: false, segmentation: Some(segmentation) };
    assert_eq!(offload, expected);
}

#[test]
fn frames_that_make_no_sense_are_dropped() {
    let frame = tcp4(OTHER, 1, 100);
    let cases: [(&str, u64, Vec<u8>); 12] = [
        ("shorter than the header", ALL, vec![0; 7]),
        ("shorter than Ethernet", ALL, sent([0; 10], &frame[..13])),
        ("longer than the link", ALL, sent([0; 10], &vec![0; 1600])),
        ("checksum not agreed on", 0, sent([1, 0, 0, 0, 0, 0, 34, 0, 16, 0], &frame)),
        ("checksum behind the end", ALL, sent([1, 0, 0, 0, 0, 0, 200, 0, 16, 0], &frame)),
        ("checksum far behind", ALL, sent([1, 0, 0, 0, 0, 0, 255, 255, 255, 255], &frame)),
        ("segments of nothing", ALL, sent([1, 1, 0, 0, 0, 0, 34, 0, 16, 0], &frame)),
        ("segments without checksum", ALL, sent([0, 1, 0, 0, 9, 0, 34, 0, 16, 0], &frame)),
        ("IPv6 that is IPv4", ALL, sent([1, 4, 0, 0, 9, 0, 34, 0, 16, 0], &frame)),
        ("TCP inside the IP header", ALL, sent([1, 1, 0, 0, 9, 0, 20, 0, 16, 0], &frame)),
        ("an unknown segmentation", ALL, sent([1, 7, 0, 0, 9, 0, 34, 0, 16, 0], &frame)),
        ("TCP header to the end", ALL, sent(TSO, &frame[..60])),
    ];
    for (what, features, message) in cases {
        let mut rig = started(1, features);
        let bad = rig.readable(&message);
        let id = rig.send(1, &[bad]);
        assert_eq!(take(&rig), None, "{what}");
        assert_eq!(rig.used(1), Some((id, 0)), "{what}: it went back");
        let good = rig.readable(&sent([0; 10], &frame));
        rig.send(1, &[good]);
        assert_eq!(take(&rig).unwrap().0, frame, "{what}: the next goes out");
    }
}

#[test]
fn a_long_row_of_nonsense_does_not_hide_what_follows() {
    let mut rig = started(1, 0);
    for _ in 0..63 {
        let bad = rig.readable(&[0; 3]);
        rig.send(1, &[bad]);
        assert_eq!(take(&rig), None);
        rig.used(1).unwrap();
    }
    let good = rig.readable(&sent([0; 10], &[7; 60]));
    rig.send(1, &[good]);
    assert_eq!(take(&rig).unwrap().0, [7; 60]);
}

#[test]
fn a_frame_fills_several_buffers_that_come_back_together() {
    for ring in [0, common::RING_PACKED] {
        let mut rig = started(1, ALL | ring);
        let frame = tcp4(MAC, 1, 34);
        let buffers = [rig.writable(40), rig.writable(40), rig.writable(60)];
        rig.send(0, &buffers[..1]);
        rig.send(0, &buffers[1..2]);
        let parts: [&[u8]; 3] = [&frame[..50], &[], &frame[50..]];
        let offload = FrameOffload { checksum: Some(SUM), ..FrameOffload::default() };
        assert_eq!(rig.device.give(&parts, offload), Given::NoRoom);
        assert_eq!(rig.used(0), None);
        rig.effects.lock().clear();
        rig.send(0, &buffers[2..]);
        assert_eq!(*rig.effects.lock(), [NetEffect::Wake]);
        assert_eq!(rig.device.give(&parts, offload), Given::Taken);
        rig.device.flush();
        assert_eq!(rig.interrupted(), [0]);
        let written: Vec<u32> = (0..3).map(|_| rig.used(0).unwrap().1).collect();
        assert_eq!(written, [40, 40, 32]);
        let bytes: Vec<u8> = buffers.iter().flat_map(|buffer| rig.bytes(*buffer)).collect();
        assert_eq!(bytes[..HEADER], [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 3, 0]);
        assert_eq!(bytes[HEADER..112], frame[..]);
    }
}

#[test]
fn without_mergeable_buffers_a_frame_that_does_not_fit_is_refused() {
    let mut rig = started(1, 0);
    let small = rig.writable(70);
    rig.send(0, &[small]);
    let frame = tcp4(MAC, 1, 0);
    assert_eq!(rig.device.give(&[&frame], FrameOffload::default()), Given::Refused);
    assert_eq!(rig.device.give(&[&frame[..58]], FrameOffload::default()), Given::Taken);
    assert_eq!(rig.used(0).unwrap().1, 70);
    assert_eq!(rig.device.give(&[&frame[..58]], FrameOffload::default()), Given::NoRoom);
}

#[test]
fn offloads_that_were_not_agreed_on_are_refused() {
    let mut rig = started(1, feature::MRG_RXBUF);
    let room = rig.writable(4000);
    rig.send(0, &[room]);
    let frame = tcp4(MAC, 1, 0);
    let partial = FrameOffload { checksum: Some(SUM), ..FrameOffload::default() };
    assert_eq!(rig.device.give(&[&frame], partial), Given::Refused);
    let checked = FrameOffload { checked: true, ..FrameOffload::default() };
    assert_eq!(rig.device.give(&[&frame], checked), Given::Taken);
    assert_eq!(rig.bytes(room)[0], 0, "and no flag that the driver doesn't know");
}

fn command(rig: &mut Rig<Net>, queue: u16, bytes: &[u8]) -> u8 {
    let pieces = [rig.readable(bytes), rig.writable(1)];
    rig.send(queue, &pieces);
    assert_eq!(rig.used(queue).unwrap().1, 1);
    rig.bytes(pieces[1])[0]
}

fn gets(rig: &mut Rig<Net>, frame: &[u8]) -> bool {
    let room = rig.writable(200);
    rig.send(0, &[room]);
    rig.device.give(&[frame], FrameOffload::default()) == Given::Taken
}

#[test]
fn the_filter_lets_through_what_the_driver_wants() {
    let mut rig = started(1, ALL);
    let to = |address| tcp4(address, 1, 0);
    let group = [1, 0, 0x5E, 1, 2, 3];
    assert!(gets(&mut rig, &to(OTHER)), "everything, until the driver says otherwise");
    assert_eq!(command(&mut rig, 2, &[control::RX, control::RX_PROMISC, 0]), control::OK);
    assert!(gets(&mut rig, &to(MAC)) && gets(&mut rig, &to([0xFF; 6])));
    assert!(!gets(&mut rig, &to(OTHER)) && !gets(&mut rig, &to(group)));
    let table = [&[1, 0, 1, 0, 0, 0], &OTHER[..], &[1, 0, 0, 0], &group[..]].concat();
    assert_eq!(command(&mut rig, 2, &table), control::OK);
    assert!(gets(&mut rig, &to(OTHER)) && gets(&mut rig, &to(group)));
    let set = [&[control::MAC, control::MAC_ADDR_SET][..], &[2, 2, 2, 2, 2, 2]].concat();
    assert_eq!(command(&mut rig, 2, &set), control::OK);
    assert!(!gets(&mut rig, &to(MAC)) && gets(&mut rig, &to([2; 6])));
    let mut tagged = to([2; 6]);
    tagged[12..16].copy_from_slice(&[0x81, 0, 0x20, 42]);
    assert!(!gets(&mut rig, &tagged));
    assert_eq!(command(&mut rig, 2, &[control::VLAN, control::VLAN_ADD, 42, 0]), control::OK);
    assert!(gets(&mut rig, &tagged));
}

#[test]
fn commands_that_make_no_sense_are_answered_with_an_error() {
    let mut rig = started(4, ALL | feature::MQ);
    let cases: [&[u8]; 9] = [
        &[],
        &[control::RX],
        &[control::RX, control::RX_PROMISC],
        &[control::RX, 99, 1],
        &[control::MAC, control::MAC_TABLE_SET, 255, 255, 255, 255],
        &[control::VLAN, control::VLAN_ADD, 0, 0x10],
        &[control::MQ, control::MQ_VQ_PAIRS_SET, 0, 0],
        &[control::MQ, control::MQ_VQ_PAIRS_SET, 5, 0],
        &[control::GUEST_OFFLOADS, control::GUEST_OFFLOADS_SET, 0, 0, 0, 0, 1, 0, 0, 0],
    ];
    for bytes in cases.into_iter().skip(1) {
        assert_eq!(command(&mut rig, 8, bytes), control::ERR, "{bytes:?}");
    }
    let ack = rig.writable(1);
    rig.send(8, &[ack]);
    assert_eq!(rig.bytes(ack), [control::ERR], "no command at all");
}

#[test]
fn flows_come_back_by_the_pair_that_sends_them() {
    let mut rig = started(4, ALL | feature::MQ);
    let set = [control::MQ, control::MQ_VQ_PAIRS_SET, 4, 0];
    assert_eq!(command(&mut rig, 8, &set), control::OK);
    for pair in 0..4 {
        let message = rig.readable(&sent([0; 10], &tcp4(OTHER, 5000 + pair, 0)));
        rig.send(2 * pair + 1, &[message]);
        assert!(take(&rig).is_some());
        let room = rig.writable(200);
        rig.send(2 * pair, &[room]);
    }
    for pair in 0..4u16 {
        let mut answer = tcp4(MAC, 80, 0);
        answer[26..34].copy_from_slice(&[10, 0, 2, 2, 10, 0, 2, 15]);
        answer[36..38].copy_from_slice(&(5000 + pair).to_be_bytes());
        assert_eq!(rig.device.give(&[&answer], FrameOffload::default()), Given::Taken);
        assert!(rig.used(2 * pair).is_some(), "pair {pair}");
    }
    rig.device.flush();
    assert_eq!(rig.interrupted().len(), 9, "each queue once, and the command's");
}

#[test]
fn offloads_can_be_switched_off_and_on() {
    let mut rig = started(1, ALL);
    assert!(rig.device.guest_offloads().tcp4);
    let none = [control::GUEST_OFFLOADS, control::GUEST_OFFLOADS_SET, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(command(&mut rig, 2, &none), control::OK);
    assert_eq!(rig.device.guest_offloads(), Default::default());
}

#[test]
fn only_what_the_backend_can_is_offered_and_needs_are_checked() {
    let info = NetInfo { mtu: 1500, offloads: NetOffloads::default(), queue_pairs: 1 };
    let rig = Rig::new(Net::new(info, NetShape { mac: MAC, queue_pairs: 4 }));
    assert_eq!(rig.device.offered() & (ALL ^ (ALL & !0x3FFF)), 0, "no offloads");
    assert_eq!(rig.device.offered() & feature::MQ, 0);
    let rig = Rig::new(card(1));
    for bad in [feature::HOST_TSO4, feature::GUEST_ECN, feature::CTRL_RX, feature::MQ] {
        rig.device.set_status(0);
        rig.device.accept(common::VERSION_1 | bad);
        rig.device.set_status(status::FEATURES_OK);
        assert_eq!(rig.device.status() & status::FEATURES_OK, 0, "{bad:#x}");
    }
}

#[test]
fn a_pulled_cable_and_an_announcement_are_told() {
    let rig = started(1, ALL | feature::STATUS);
    let mut config = [0; 12];
    rig.device.config_read(0, &mut config);
    assert_eq!(config, [0x52, 0x54, 0, 1, 2, 3, 1, 0, 1, 0, 0xDC, 5]);
    rig.device.set_link(Link::Down);
    assert!(!rig.device.is_up());
    rig.device.set_link(Link::Up);
    rig.device.ask_to_announce();
    rig.device.config_read(0, &mut config);
    assert_eq!((config[6], *rig.interrupts.configs.lock()), (3, 3));
}

#[test]
fn a_receive_buffer_that_can_not_be_filled_needs_a_reset() {
    let mut rig = started(1, ALL);
    let wrong = rig.readable(&[0; 100]);
    rig.send(0, &[wrong]);
    assert_eq!(rig.device.give(&[&[0; 60]], FrameOffload::default()), Given::Refused);
    assert_ne!(rig.device.status() & status::NEEDS_RESET, 0);
    assert!(!rig.device.is_up());
}

proptest! {
    #[test]
    fn frames_of_all_sizes_arrive_whole(
        ring in prop::sample::select(vec![0, common::RING_PACKED, common::EVENT_IDX]),
        frames in prop::collection::vec((14usize..1514, 1usize..5, 30usize..900), 1..30),
    ) {
        let mut rig = started(1, ALL | ring);
        let mut room = 0;
        let mut buffers = Vec::new();
        for (n, (len, cuts, buffer)) in frames.into_iter().enumerate() {
            let frame: Vec<u8> = (0..len).map(|at| (at * 7 + n) as u8).collect();
            let message = sent([0; 10], &frame);
            let chunk = message.len().div_ceil(cuts);
            let pieces: Vec<Piece> = message.chunks(chunk).map(|part| rig.readable(part)).collect();
            let told = if n % 2 == 0 { Told::Indirectly } else { Told::InTheRing };
            let told = if rig.device.accepted() & common::INDIRECT_DESC == 0 {
                Told::InTheRing
            } else { told };
            rig.queues[1].add(&pieces, told);
            prop_assert_eq!(take(&rig).map(|taken| taken.0), Some(frame.clone()));
            prop_assert!(rig.used(1).is_some());
            // And back again.
            while rig.device.give(&[&frame[..9], &frame[9..]], FrameOffload::default())
                == Given::NoRoom
            {
                prop_assert!(room < len + HEADER, "there was room");
                let piece = rig.writable(buffer);
                rig.queues[0].add(&[piece], Told::InTheRing);
                buffers.push(piece);
                room += buffer;
            }
            let mut bytes = Vec::<u8>::new();
            while let Some((_, written)) = rig.used(0) {
                let piece = buffers.remove(0);
                bytes.extend(&rig.bytes(piece)[..written as usize]);
            }
            prop_assert_eq!(&bytes[HEADER..], &frame[..]);
            prop_assert!(buffers.is_empty());
            room = 0;
            let section = rig.device.save();
            prop_assert!(rig.device.restore(&section).is_ok());
        }
    }

    #[test]
    fn whatever_a_header_says_offloads_are_of_the_frame(
        header in any::<[u8; 10]>(),
        known in any::<bool>(),
        mut frame in prop::collection::vec(any::<u8>(), 14..300),
        plausible in any::<bool>(),
    ) {
        let mut header = header;
        if plausible {
            let start = tcp4(OTHER, 1, 0);
            let len = frame.len().min(66);
            frame[..len].copy_from_slice(&start[..len]);
            header = [TSO[0], header[1] & 0x85, 9, 9, header[4], 0, 34 + (header[6] & 1), 0, 16, 0];
        }
        let mut rig = started(1, if known { ALL } else { 0 });
        let message = rig.readable(&sent(header, &frame));
        rig.send(1, &[message]);
        if let Some((taken, offload)) = take(&rig) {
            prop_assert_eq!(&taken, &frame);
            if let Some(sum) = offload.checksum {
                prop_assert!(usize::from(sum.start) + usize::from(sum.offset) + 2 <= frame.len());
            }
            if let Some(cut) = offload.segmentation {
                prop_assert!(cut.size > 0 && usize::from(cut.header_len) < frame.len());
                prop_assert!(offload.checksum.is_some());
            }
            prop_assert!(known || offload == FrameOffload::default());
        }
    }
}
