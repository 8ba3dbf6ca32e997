//! Which name server of the host's stands behind the guest's.
//!
//! Queries go on as they are, so every kind of record works, to the servers of `/etc/resolv.conf`,
//! a stub of the host's own (127.0.0.53) among them. Where there is no such file, or no server in
//! it, a small server of ours ([`super::lookup`]) asks the host's own resolver.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use super::lookup::LookupServer;
use super::plan::DNS_PORT;

/// The file is looked at so often at most.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Who answers the guest's queries for names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NameServers {
    /// The host's resolver.
    #[default]
    Host,
    /// These servers, the first as long as it answers.
    These(Vec<SocketAddr>),
}

/// The servers.
#[derive(Debug)]
pub(super) struct Resolver {
    servers: Vec<SocketAddr>,
    current: usize,
    /// The file that they are from, if they are not fixed.
    file: Option<File>,
    lookup: Option<LookupServer>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    looked: Option<Instant>,
    modified: Option<SystemTime>,
}

impl Resolver {
    pub(super) fn new(servers: &NameServers) -> Self {
        match servers {
            NameServers::Host => Self::of_file("/etc/resolv.conf".into()),
            NameServers::These(servers) => {
                Self { servers: servers.clone(), current: 0, file: None, lookup: None }
            }
        }
    }

    fn of_file(path: PathBuf) -> Self {
        let file = File { path, looked: None, modified: None };
        Self { servers: Vec::new(), current: 0, file: Some(file), lookup: None }
    }

    /// The server to ask now.
    pub(super) fn server(&mut self, now: Instant) -> Option<SocketAddr> {
        self.look(now);
        let servers = self.servers.len().max(1);
        match self.servers.get(self.current % servers) {
            Some(server) => Some(*server),
            None if self.file.is_some() => self.lookup(),
            None => None,
        }
    }

    /// The server for queries over TCP; our own has none.
    pub(super) fn stream_server(&mut self, now: Instant) -> Option<SocketAddr> {
        self.look(now);
        self.servers.get(self.current % self.servers.len().max(1)).copied()
    }

    fn lookup(&mut self) -> Option<SocketAddr> {
        if self.lookup.is_none() {
            self.lookup = LookupServer::start().ok();
        }
        self.lookup.as_ref().map(LookupServer::address)
    }

    /// This server has not answered: the next one is asked from now on.
    pub(super) fn distrust(&mut self, server: SocketAddr) {
        let current = self.servers.get(self.current % self.servers.len().max(1));
        if current == Some(&server) {
            self.current = (self.current + 1) % self.servers.len().max(1);
        }
    }

    /// Reads the file again if it has changed: the host may have moved to another network.
    fn look(&mut self, now: Instant) {
        let Some(file) = &mut self.file else { return };
        let soon = |looked: Instant| now.saturating_duration_since(looked) < LOOK_EVERY;
        if file.looked.is_some_and(soon) {
            return;
        }
        let first = file.looked.is_none();
        file.looked = Some(now);
        let modified = std::fs::metadata(&file.path).and_then(|data| data.modified()).ok();
        if !first && modified == file.modified {
            return;
        }
        file.modified = modified;
        self.servers = name_servers(&std::fs::read_to_string(&file.path).unwrap_or_default());
        self.current = 0;
    }
}

/// The servers of a `resolv.conf` (resolv.conf(5)). Link-local ones, which need an interface, are
/// left out.
fn name_servers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address: IpAddr =
                (words.next()? == "nameserver").then(|| words.next())??.parse().ok()?;
            Some(SocketAddr::new(address, DNS_PORT))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_found_in_the_file() {
        let text = "# nameserver 1.1.1.1\nsearch lan\nnameserver 127.0.0.53\nnameserver\t::1 \n\
                    nameserver fe80::1%eth0\noptions edns0\n";
        let expected: Vec<SocketAddr> =
            vec!["127.0.0.53:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
        assert_eq!(name_servers(text), expected);
    }

    #[test]
    fn a_server_that_does_not_answer_is_followed_by_the_next() {
        let servers: Vec<SocketAddr> =
            vec!["127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()];
        let mut resolver = Resolver::new(&NameServers::These(servers.clone()));
        let now = Instant::now();
        assert_eq!(resolver.server(now), Some(servers[0]));
        resolver.distrust(servers[0]);
        resolver.distrust(servers[0]);
        assert_eq!(resolver.server(now), Some(servers[1]));
        resolver.distrust(servers[1]);
        assert_eq!(resolver.server(now), Some(servers[0]));
    }

    #[test]
    fn without_a_file_the_hosts_resolver_is_asked() {
        let mut resolver = Resolver::of_file("/nonexistent/resolv.conf".into());
        let server = resolver.server(Instant::now()).unwrap();
        assert!(server.ip().is_loopback());
        assert_eq!(resolver.stream_server(Instant::now()), None);
    }
}
