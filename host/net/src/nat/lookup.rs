//! A name server for hosts that don't say which theirs is: it answers queries for addresses by
//! the host's own look-up (`getaddrinfo`), which may take long and so has threads of its own.
//!
//! It listens on a port of the host's loopback that the system chooses. Others of the host may ask
//! it; they learn what they could look up themselves.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use smoltcp::wire::{DnsPacket, DnsQueryType, DnsQuestion};

/// Look-ups at the same time.
const THREADS: usize = 4;

/// How long an answer holds, in seconds: the host's look-up doesn't say.
const TTL: u32 = 30;

/// Addresses in an answer, so that it fits a datagram of the old size of 512 bytes.
const ANSWERS_MAX: usize = 8;

/// How often a thread looks whether it is to end.
const PATIENCE: Duration = Duration::from_secs(2);

const DNS_HEADER: usize = 12;
const NAME_MAX: usize = 253;

/// A running server. Dropping it ends its threads, soon.
#[derive(Debug)]
pub(super) struct LookupServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl LookupServer {
    pub(super) fn start() -> io::Result<Self> {
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
        socket.set_read_timeout(Some(PATIENCE))?;
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..THREADS {
            let (socket, stop) = (socket.clone(), stop.clone());
            std::thread::Builder::new()
                .name("names".to_owned())
                .spawn(move || serve(&socket, &stop))?;
        }
        Ok(Self { address: socket.local_addr()?, stop })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for LookupServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn serve(socket: &UdpSocket, stop: &AtomicBool) {
    let mut query = [0; 1500];
    while !stop.load(Ordering::Relaxed) {
        let Ok((len, from)) = socket.recv_from(&mut query) else { continue };
        if let Some(answer) = query.get(..len).and_then(|query| answer(query, look_up)) {
            let _ = socket.send_to(&answer, from);
        }
    }
}

fn look_up(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

/// Answers a query for addresses; `None` if it is no query.
fn answer(query: &[u8], look_up: impl Fn(&str) -> io::Result<Vec<IpAddr>>) -> Option<Vec<u8>> {
    let packet = DnsPacket::new_checked(query).ok()?;
    let [.., flags, _] = *query.first_chunk::<4>()?;
    // A response, or anything but a standard query with one question.
    if flags & 0xF8 != 0 || packet.question_count() != 1 {
        return None;
    }
    let (rest, question) = DnsQuestion::parse(packet.payload()).ok()?;
    let question_end = query.len().checked_sub(rest.len())?;
    let mut name = String::new();
    for label in packet.parse_name(question.name) {
        name.push_str(std::str::from_utf8(label.ok()?).ok()?);
        name.push('.');
    }
    if name.len() > NAME_MAX + 1 {
        return None;
    }
    let (found, code) = match look_up(&name) {
        Ok(found) => (found, 0),
        // A name that isn't there and a resolver that fails look the same: say that it isn't.
        Err(_) => (Vec::new(), 3),
    };
    let records: Vec<Vec<u8>> =
        found.into_iter().filter_map(|ip| record(ip, question.type_)).take(ANSWERS_MAX).collect();
    let mut out = query.get(..question_end)?.to_vec();
    let header = out.first_chunk_mut::<DNS_HEADER>()?;
    // Response, recursion available; what was asked for otherwise stays.
    let [_, _, first, second, _, _, answers @ ..] = header;
    *first = flags & 1 | 0x80;
    *second = 0x80 | code;
    *answers = [0, records.len() as u8, 0, 0, 0, 0];
    out.extend(records.into_iter().flatten());
    Some(out)
}

/// The record of an address, if it is of the type that was asked for. Its name is the question's,
/// by a pointer (RFC 1035 §4.1.4).
fn record(address: IpAddr, wanted: DnsQueryType) -> Option<Vec<u8>> {
    let data = match (address, wanted) {
        (IpAddr::V4(address), DnsQueryType::A) => address.octets().to_vec(),
        (IpAddr::V6(address), DnsQueryType::Aaaa) => address.octets().to_vec(),
        _ => return None,
    };
    let mut record = vec![0xC0, DNS_HEADER as u8];
    record.extend_from_slice(&u16::from(wanted).to_be_bytes());
    record.extend_from_slice(&[0, 1]);
    record.extend_from_slice(&TTL.to_be_bytes());
    record.extend_from_slice(&(data.len() as u16).to_be_bytes());
    record.extend_from_slice(&data);
    Some(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn query(kind: u8) -> Vec<u8> {
        let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend(b"\x04host\x04test\x00\x00");
        query.extend([kind, 0, 1]);
        query
    }

    fn found(name: &str) -> io::Result<Vec<IpAddr>> {
        assert_eq!(name, "host.test.");
        Ok(vec![[192, 0, 2, 1].into(), Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()])
    }

    #[test]
    fn an_address_is_answered_with_its_kind_only() {
        let answer = answer(&query(1), found).unwrap();
        assert_eq!(answer[..8], [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1]);
        assert_eq!(
            answer[query(1).len()..],
            *b"\xC0\x0C\0\x01\0\x01\0\0\0\x1E\0\x04\xC0\0\x02\x01"
        );
    }

    #[test]
    fn a_name_that_is_not_there_is_said_not_to_be() {
        let answer = answer(&query(28), |_| Err(io::ErrorKind::NotFound.into())).unwrap();
        assert_eq!(answer[2..8], [0x81, 0x83, 0, 1, 0, 0]);
    }

    proptest! {
        #[test]
        fn no_query_breaks_it(query: Vec<u8>) {
            let _ = answer(&query, |_| Ok(vec![[192, 0, 2, 1].into()]));
        }
    }
}
