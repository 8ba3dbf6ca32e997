//! A capture, read back.
// Helpers of tests count as no tests for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;

use kasane_host_net::Captured;
use kasane_host_net::nat::{Nat, NatConfig};
use kasane_ports::NetBackend;
use pcap_file::pcap::PcapReader;
use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, TcpPacket};
use support::guest::{ADDRESS, Guest, host};
use support::server::{noise, once, write_all};
use support::{ALL_OFFLOADS, FakeDevice};

#[test]
fn a_capture_has_both_directions_with_whole_checksums() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("capture.pcap");
    let nat = Arc::new(Nat::start(&NatConfig::default()).unwrap());
    let captured = Arc::new(Captured::new(nat, &path).unwrap());
    let device = FakeDevice::on(&*captured, ALL_OFFLOADS);
    let mut guest = Guest::new(device, captured.clone());
    let bytes = noise(1 << 20);
    let sent = bytes.clone();
    let (port, server) = once(move |stream| write_all(&stream, &sent));
    let handle = guest.connect(host(port), 256 << 10);
    assert!(guest.receive_all(handle) == bytes);
    server.join().unwrap();
    let counts = captured.counts();
    assert_eq!(counts.missed, 0);
    drop((guest, captured));

    let mut reader = PcapReader::new(std::fs::File::open(&path).unwrap()).unwrap();
    let (mut frames, mut sent, mut first, mut received) = (0, 0, None, Vec::new());
    while let Some(packet) = reader.next_packet() {
        let packet = packet.unwrap();
        assert_eq!(packet.orig_len as usize, packet.data.len());
        frames += 1;
        let frame = EthernetFrame::new_checked(&packet.data[..]).unwrap();
        if frame.ethertype() != EthernetProtocol::Ipv4 {
            continue;
        }
        let ip = Ipv4Packet::new_checked(frame.payload()).unwrap();
        assert!(ip.verify_checksum());
        assert_eq!(ip.next_header(), IpProtocol::Tcp);
        let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
        assert!(tcp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
        if ip.src_addr() == ADDRESS {
            sent += 1;
        } else {
            // What was sent again is captured again.
            let seq = tcp.seq_number().0;
            let from = seq.wrapping_sub(*first.get_or_insert(seq.wrapping_add(1)));
            if let Some(known) =
                usize::try_from(from).ok().and_then(|from| received.len().checked_sub(from))
            {
                received.extend_from_slice(tcp.payload().get(known..).unwrap_or_default());
            }
        }
    }
    assert!(frames >= counts.frames && sent > 0);
    assert!(received == bytes);
}

#[test]
fn a_file_that_cannot_be_made_is_an_error() {
    let nat: Arc<dyn NetBackend> = Arc::new(Nat::start(&NatConfig::default()).unwrap());
    let error = Captured::new(nat, "/nonexistent/capture.pcap".as_ref()).err().unwrap();
    assert!(error.to_string().starts_with("capture /nonexistent/capture.pcap: "), "{error}");
}
