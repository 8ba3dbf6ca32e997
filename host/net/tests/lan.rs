//! Machines on a LAN.
#![cfg(target_os = "linux")]
// Helpers of tests count as no tests for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kasane_host_net::Lan;
use kasane_ports::{
    FrameOffload, NetBackend, NetGuestOffloads, PartialChecksum, Segmentation, SegmentationKind,
};
use proptest::prelude::*;
use smoltcp::socket::tcp;
use smoltcp::wire::{Ipv4Packet, TcpPacket};
use support::guest::{Guest, Identity};
use support::raw::{self, Tcp};
use support::server::noise;
use support::{ALL_OFFLOADS, FakeDevice};

const BUFFER: usize = 256 << 10;

fn join(runtime: &Path) -> Arc<dyn NetBackend> {
    Arc::new(Lan::join_in(runtime, &"lab".parse().unwrap()).unwrap())
}

fn address(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 2, 100 + index)
}

fn mac(index: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, index]
}

fn guest(runtime: &Path, index: u8) -> Guest {
    let lan = join(runtime);
    let device = FakeDevice::on(&*lan, ALL_OFFLOADS);
    Guest::of(device, lan, Identity { mac: mac(index), address: Some(address(index)) })
}

/// A guest in a thread of its own that takes one connection and gives back what it got.
fn sink(mut guest: Guest) -> std::thread::JoinHandle<Vec<u8>> {
    let mut socket = tcp::Socket::new(
        tcp::SocketBuffer::new(vec![0; BUFFER]),
        tcp::SocketBuffer::new(vec![0; BUFFER]),
    );
    socket.set_ack_delay(None);
    socket.listen(80).unwrap();
    let handle = guest.sockets.add(socket);
    std::thread::spawn(move || {
        guest.until(|guest| guest.tcp(handle).is_active().then_some(()));
        guest.until(|guest| guest.tcp(handle).may_send().then_some(()));
        let all = guest.receive_all(handle);
        guest.tcp(handle).close();
        guest.within(Duration::from_millis(500), &mut |_| None::<()>);
        all
    })
}

fn copy(from: &mut Guest, to: u8, bytes: &[u8]) {
    let handle = from.connect(SocketAddr::new(address(to).into(), 80), BUFFER);
    from.send_all(handle, bytes);
    from.tcp(handle).close();
    // Until the other side has the end too: nobody sends it again for a guest that stands still.
    from.until(|guest| {
        let state = guest.tcp(handle).state();
        (!matches!(state, tcp::State::Established | tcp::State::FinWait1)).then_some(())
    });
}

#[test]
fn two_machines_copy_to_each_other() {
    let runtime = tempfile::tempdir().unwrap();
    let mut one = guest(runtime.path(), 1);
    let other = sink(guest(runtime.path(), 2));
    let bytes = noise(64 << 20);
    copy(&mut one, 2, &bytes);
    assert!(other.join().unwrap() == bytes);
}

#[test]
fn one_of_three_may_die() {
    let runtime = tempfile::tempdir().unwrap();
    let mut one = guest(runtime.path(), 1);
    let third = join(runtime.path());
    let third_device = FakeDevice::on(&*third, ALL_OFFLOADS);
    let other = sink(guest(runtime.path(), 2));
    let bytes = noise(32 << 20);
    let dying = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        drop((third, third_device));
    });
    copy(&mut one, 2, &bytes);
    dying.join().unwrap();
    assert!(other.join().unwrap() == bytes);
    // One may come anew, and is found.
    let late = sink(guest(runtime.path(), 3));
    copy(&mut one, 3, b"welcome");
    assert_eq!(late.join().unwrap(), b"welcome");
}

#[test]
fn a_machine_that_takes_nothing_does_not_stop_the_others() {
    let runtime = tempfile::tempdir().unwrap();
    let mut one = guest(runtime.path(), 1);
    // Its guest never receives: its ring fills, and then all that lies before it.
    let stuck = join(runtime.path());
    let _stuck_device = FakeDevice::on(&*stuck, ALL_OFFLOADS);
    let flood = raw::ethernet([8, 0], &[0; 1500]);
    for _ in 0..2000 {
        let mut frame = flood.clone();
        frame[..6].fill(0xFF);
        one.card.device.send(frame, FrameOffload::default());
    }
    one.poll();
    let other = sink(guest(runtime.path(), 2));
    let bytes = noise(1 << 20);
    copy(&mut one, 2, &bytes);
    assert!(other.join().unwrap() == bytes);
}

/// A long frame between two devices that know each other.
fn long_frame(takes: NetGuestOffloads) -> (Vec<(Vec<u8>, FrameOffload)>, Vec<u8>) {
    let runtime = tempfile::tempdir().unwrap();
    let (from, to) = (join(runtime.path()), join(runtime.path()));
    let sender = FakeDevice::on(&*from, ALL_OFFLOADS);
    let receiver = FakeDevice::on(&*to, takes);
    let data = noise(40_000);
    let head = Tcp {
        from: 1,
        to: "10.0.2.102:2".parse().unwrap(),
        seq: u32::MAX - 5,
        ack: 7,
        flags: 0x19,
        window: 9,
    };
    let mut frame = raw::tcp(head, &data);
    frame[..6].copy_from_slice(&mac(2));
    let pseudo = [&frame[26..34], &[0, 6], &(40_020_u16).to_be_bytes()].concat();
    let mut sum = [&pseudo[..], &[0, 0]].concat();
    support::complete(&mut sum, 0, 12);
    frame[50] = !sum[12];
    frame[51] = !sum[13];
    let cut = Segmentation { kind: SegmentationKind::Tcp4, size: 1460, header_len: 54, ecn: false };
    let offload = FrameOffload {
        checksum: Some(PartialChecksum { start: 34, offset: 16 }),
        checked: false,
        segmentation: Some(cut),
    };
    let mut all = Vec::new();
    let mut got = 0;
    for _ in 0..100 {
        // The members may not have met at the first time.
        if all.is_empty() {
            sender.send(frame.clone(), offload);
            from.wake();
        }
        receiver.wait(Duration::from_millis(100));
        // On a busy host it may have been sent twice: the first one counts.
        while got < data.len()
            && let Some((frame, offload)) = receiver.receive()
        {
            got += frame.len() - 54;
            all.push((frame, offload));
        }
        if got >= data.len() {
            break;
        }
    }
    (all, data)
}

fn payload_checked(frame: &[u8]) -> Vec<u8> {
    let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    assert!(ip.verify_checksum());
    let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
    assert!(tcp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
    tcp.payload().to_vec()
}

#[test]
fn a_long_frame_goes_whole_to_who_takes_it() {
    let (frames, data) = long_frame(ALL_OFFLOADS);
    assert_eq!(frames.len(), 1);
    assert!(frames[0].1.segmentation.is_some());
    assert!(payload_checked(&frames[0].0) == data);
}

#[test]
fn a_long_frame_is_cut_for_who_does_not() {
    let (frames, data) = long_frame(NetGuestOffloads::default());
    let mut whole = Vec::new();
    for (index, (frame, offload)) in frames.iter().enumerate() {
        assert_eq!(*offload, FrameOffload::default());
        let tcp = TcpPacket::new_checked(&frame[34..]).unwrap();
        let expected = (u32::MAX - 5).wrapping_add(whole.len() as u32);
        assert_eq!(tcp.seq_number().0 as u32, expected);
        assert_eq!(tcp.fin(), index + 1 == frames.len());
        whole.extend(payload_checked(frame));
    }
    assert!(whole == data);
}

/// A member by hand, for what no member of ours would send.
fn intruder(runtime: &Path) -> rustix::fd::OwnedFd {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
    let folder = runtime.join("kasane/lan/lab");
    let file = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    connect(&socket, &SocketAddrUnix::new(&file).unwrap()).unwrap();
    socket
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_message_breaks_a_member(
        messages in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec(any::<u8>(), 1..200)), 1..40),
    ) {
        use rustix::net::{SendFlags, send};
        let runtime = tempfile::tempdir().unwrap();
        let lan = join(runtime.path());
        let device = FakeDevice::on(&*lan, NetGuestOffloads::default());
        let intruder = intruder(runtime.path());
        send(&intruder, b"kasane-lan 1 m-0123456789abcdef01234567", SendFlags::NOSIGNAL).unwrap();
        for (plausible, mut message) in messages {
            if plausible && message.len() > 24 {
                // A header that asks for a cut of a TCP frame.
                let size = message[10] | 1;
                message[..10].copy_from_slice(&[1, 1, 54, 0, size, 0, 34, 0, 16, 0]);
                message[22..24].copy_from_slice(&[8, 0]);
            }
            let _ = send(&intruder, &message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        }
        // What makes sense still comes through.
        let marker = [&[0; 10][..], &[0xFF; 6], &mac(9), &[0x88, 0xB5], &[0xA5; 50]].concat();
        let seen = AtomicBool::new(false);
        for _ in 0..600 {
            let _ = send(&intruder, &marker, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
            device.wait(Duration::from_millis(10));
            while let Some((frame, _)) = device.receive() {
                lan.wake();
                if frame.ends_with(&[0xA5; 50]) {
                    seen.store(true, Ordering::Relaxed);
                }
            }
            if seen.load(Ordering::Relaxed) {
                break;
            }
        }
        prop_assert!(seen.load(Ordering::Relaxed));
    }
}
