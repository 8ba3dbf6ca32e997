//! Any messages on the socket of a LAN's member: what makes sense reaches the guest, nothing else
//! does any harm.
#![no_main]

use kasane_fuzz::net::Card;
use kasane_host_net::Lan;
use kasane_ports::NetGuestOffloads;
use libfuzzer_sys::fuzz_target;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketType, connect, send, socket};

fuzz_target!(|input: (bool, bool, Vec<Vec<u8>>)| {
    let (offloads, says_hello, messages) = input;
    let runtime = tempfile::tempdir().expect("a folder");
    let name = "fuzz".parse().expect("a name");
    let lan = Lan::join_in(runtime.path(), &name).expect("a LAN");
    let offloads = NetGuestOffloads { partial_checksum: offloads, tcp4: offloads, tcp6: false };
    let card = Card::on(&lan, offloads);
    let folder = runtime.path().join("kasane/lan/fuzz");
    let file = std::fs::read_dir(folder).expect("the folder").flatten().next().expect("a member");
    let member = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket");
    let address = SocketAddrUnix::new(file.path()).expect("a short path");
    connect(&member, &address).expect("the member listens");
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    if says_hello {
        let _ = send(&member, b"kasane-lan 1 m-0123456789abcdef01234567", flags);
    }
    for message in messages {
        let _ = send(&member, &message, flags);
    }
    card.settle(&lan);
});
