//! An interface of the kernel's. What needs a privilege is ignored unless it is asked for:
//! `sudo unshare -n cargo test -p kasane-host-net --test tap -- --ignored`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;

use kasane_host_net::{NetError, Tap};
use kasane_ports::{NetBackend, NetGuestOffloads};
use smoltcp::wire::IpCidr;
use support::guest::Guest;
use support::server::{noise, read_all, write_all};
use support::{ALL_OFFLOADS, FakeDevice};

#[test]
fn a_right_that_is_missing_is_said_with_the_command_that_gives_it() {
    let error = NetError::Tap {
        interface: "tap0".to_owned(),
        error: std::io::ErrorKind::PermissionDenied.into(),
    };
    assert_eq!(error.to_string(), "interface tap0: permission denied");
    assert_eq!(
        error.help().unwrap(),
        "make the interface yours: `sudo ip tuntap add dev tap0 mode tap user $USER; \
         sudo ip link set tap0 up`"
    );
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

fn both_ways(interface: &str, network: u8, offloads: NetGuestOffloads) {
    let tap: Arc<dyn NetBackend> = Arc::new(Tap::open(interface).unwrap());
    let host = Ipv4Addr::new(10, 99, network, 1);
    ip(&format!("address add {host}/24 dev {interface}"));
    ip(&format!("link set {interface} up"));
    let mut guest = Guest::new(FakeDevice::on(&*tap, offloads), tap);
    guest.iface.update_ip_addrs(|addresses| {
        addresses[0] = IpCidr::new(Ipv4Addr::new(10, 99, network, 2).into(), 24);
    });
    let bytes = noise(16 << 20);
    let sent = bytes.clone();
    let listener = TcpListener::bind((host, 0)).unwrap();
    let to = SocketAddr::new(host.into(), listener.local_addr().unwrap().port());
    let server = std::thread::spawn(move || {
        let down = listener.accept().unwrap().0;
        write_all(&down, &sent);
        read_all(&listener.accept().unwrap().0)
    });
    let down = guest.connect(to, 256 << 10);
    assert!(guest.receive_all(down) == bytes);
    guest.tcp(down).close();
    let up = guest.connect(to, 256 << 10);
    guest.send_all(up, &bytes);
    guest.tcp(up).close();
    guest.until(|_| server.is_finished().then_some(()));
    assert!(server.join().unwrap() == bytes);
}

#[test]
#[ignore = "needs the right to make an interface, in a network namespace of its own"]
fn much_goes_both_ways_in_long_frames() {
    both_ways("kasane0", 1, ALL_OFFLOADS);
}

#[test]
#[ignore = "needs the right to make an interface, in a network namespace of its own"]
fn much_goes_both_ways_in_plain_frames() {
    both_ways("kasane1", 2, NetGuestOffloads::default());
}
