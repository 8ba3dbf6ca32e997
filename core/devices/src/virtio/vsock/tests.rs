//! The socket device by its driver's sequences (virtio 1.2 §5.10.6).

use alloc::vec::Vec;

use kasane_ports::{Given, VsockDevice, VsockOperation, VsockPacket};
use kasane_spec_virtio::vsock::header;
use kasane_spec_virtio::{feature as common, status};
use proptest::prelude::*;

use super::chip::{Vsock, VsockEffect};
use super::packet;
use crate::saved::Saved;
use crate::virtio::VirtioDevice;
use crate::virtio::rig::Rig;

const CID: u64 = 42;

fn started(features: u64) -> Rig<Vsock> {
    let mut rig = Rig::new(Vsock::new(CID));
    rig.start(64, features);
    rig.effects.lock().clear();
    rig
}

const PACKET: VsockPacket = VsockPacket {
    peer_cid: 2,
    guest_port: 1024,
    peer_port: 80,
    operation: VsockOperation::Data,
    buffer_len: 1 << 18,
    forwarded: 7,
};

/// A packet as the guest sends it.
fn from_guest(packet: &VsockPacket, cid: u64, data: &[u8], data_len: u32) -> Vec<u8> {
    let VsockPacket { peer_cid, guest_port, peer_port, .. } = *packet;
    // `encode` writes the other direction: contexts and ports change places.
    let turned =
        VsockPacket { peer_cid: cid, guest_port: peer_port, peer_port: guest_port, ..*packet };
    [&packet::encode(&turned, peer_cid, data_len)[..], data].concat()
}

fn take(rig: &Rig<Vsock>) -> Option<(VsockPacket, Vec<u8>)> {
    let mut data = Vec::new();
    rig.device.take(&mut data).map(|packet| (packet, data))
}

#[test]
fn packets_go_both_ways() {
    let mut rig = started(0);
    let bytes = from_guest(&PACKET, CID, b"hello", 5);
    let pieces = [rig.readable(&bytes[..44]), rig.readable(&bytes[44..])];
    rig.send(1, &pieces);
    assert_eq!(*rig.effects.lock(), [VsockEffect::Wake]);
    assert_eq!(take(&rig), Some((PACKET, b"hello".to_vec())));
    assert_eq!(take(&rig), None);
    assert_eq!(rig.device.give(PACKET, b"answer"), (Given::NoRoom, 0));
    let room = rig.writable(44 + 4);
    rig.send(0, &[room]);
    assert_eq!(rig.device.give(PACKET, b"answer"), (Given::Taken, 4));
    assert!(rig.interrupted().is_empty());
    rig.device.flush();
    assert_eq!(rig.interrupted(), [0, 1]);
    let bytes = rig.bytes(room);
    assert_eq!(&bytes[44..], b"answ");
    let mut cid = [0; 8];
    rig.device.config_read(0, &mut cid);
    assert_eq!((cid[0], bytes[0], bytes[8], bytes[24]), (42, 2, 42, 4));
}

#[test]
fn packets_in_anothers_name_or_of_a_wrong_length_are_dropped() {
    let good = from_guest(&PACKET, CID, b"x", 1);
    let cases = [
        from_guest(&PACKET, CID + 1, b"x", 1),
        from_guest(&PACKET, 2, b"x", 1),
        from_guest(&PACKET, CID, b"x", 2),
        from_guest(&PACKET, CID, b"x", u32::MAX),
        from_guest(&PACKET, CID, &[0; 70_000], 70_000),
        good[..43].to_vec(),
    ];
    for bad in cases {
        let mut rig = started(0);
        let (bad, good) = (rig.readable(&bad), rig.readable(&good));
        rig.send(1, &[bad]);
        rig.send(1, &[good]);
        assert_eq!(take(&rig), Some((PACKET, b"x".to_vec())));
        assert!(rig.used(1).is_some() && rig.used(1).is_some());
    }
}

#[test]
fn what_is_no_stream_is_unknown() {
    let mut rig = started(0);
    let mut bytes = from_guest(&PACKET, CID, b"", 0);
    bytes[header::TYPE] = 2;
    let piece = rig.readable(&bytes);
    rig.send(1, &[piece]);
    assert_eq!(take(&rig).unwrap().0.operation, VsockOperation::Unknown);
}

#[test]
fn a_buffer_without_room_for_a_header_needs_a_reset_which_counts() {
    let mut rig = started(0);
    let epoch = rig.device.epoch();
    let room = rig.writable(43);
    rig.send(0, &[room]);
    assert_eq!(rig.device.give(PACKET, b""), (Given::Refused, 0));
    assert_ne!(rig.device.status() & status::NEEDS_RESET, 0);
    rig.device.set_status(0);
    assert_eq!(rig.device.epoch(), epoch + 1);
    assert_eq!(rig.device.give(PACKET, b""), (Given::Refused, 0));
}

#[test]
fn a_restored_device_says_that_connections_are_gone() {
    let mut rig = started(0);
    let room = rig.writable(4);
    rig.send(2, &[room]);
    let (section, epoch) = (rig.device.save(), rig.device.epoch());
    rig.device.restore(&section).unwrap();
    assert_eq!(rig.device.epoch(), epoch + 1);
    rig.device.flush();
    assert_eq!((rig.interrupted(), rig.used(2).unwrap().1), (Vec::from([2]), 4));
    assert_eq!(rig.bytes(room), [0; 4]);
    rig.device.flush();
    assert_eq!(rig.used(2), None, "once");
}

proptest! {
    #[test]
    fn any_bytes_are_a_packet_or_none(
        ring in prop::sample::select(Vec::from([0, common::RING_PACKED])),
        mut bytes in prop::collection::vec(any::<u8>(), 1..200),
        mine in any::<bool>(),
    ) {
        let mut rig = started(ring);
        if mine && bytes.len() >= 8 {
            bytes[..8].copy_from_slice(&CID.to_le_bytes());
        }
        if mine && bytes.len() >= 44 {
            bytes[header::SIZE + 1..header::SIZE + 4].fill(0);
        }
        let piece = rig.readable(&bytes);
        rig.send(1, &[piece]);
        if let Some((packet, data)) = take(&rig) {
            prop_assert!(bytes.len() >= 44 + data.len());
            prop_assert!(data.is_empty() || packet.operation == VsockOperation::Data);
            prop_assert_eq!(&data[..], &bytes[44..44 + data.len()]);
        }
        prop_assert!(rig.used(1).is_some());
    }
}
