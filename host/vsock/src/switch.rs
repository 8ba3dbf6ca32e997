//! All connections of a guest, and who may make new ones.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kasane_host_rounds::{Next, WAKE};
use kasane_ports::{Given, VsockDevice, VsockOperation, VsockPacket};
use mio::event::Event;
use mio::net::{UnixListener, UnixStream};
use mio::{Events, Interest, Registry, Token};

use crate::VsockError;
use crate::connection::{BUFFER_LEN, Connection, HOST_CID, Key, Stage, Turn};
use crate::greeting::{Greeting, Said};

/// The first token after the one that only wakes.
const LISTENER: Token = Token(WAKE.0 + 1);
/// The most connections, and the most programs that haven't said yet where they want to.
const CONNECTIONS_MAX: usize = 512;
const GREETINGS_MAX: usize = 64;
/// Connections that the guest is to hear are gone; with more it isn't listened to.
const RESETS_MAX: usize = 256;
/// Packets that are taken before others get their turn.
const TAKES_MAX: usize = 1024;
/// How long the other side may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The host's ports, from here on.
const FIRST_HOST_PORT: u32 = 1 << 30;

/// Listens on `path`.
pub(crate) fn listen(path: &Path) -> Result<UnixListener, VsockError> {
    let error = |source| VsockError::Listen { path: path.to_owned(), source };
    let listener = match UnixListener::bind(path) {
        Err(taken) if taken.kind() == io::ErrorKind::AddrInUse => {
            match std::os::unix::net::UnixStream::connect(path) {
                Err(dead) if dead.kind() == io::ErrorKind::ConnectionRefused => {}
                Ok(_) | Err(_) => return Err(VsockError::InUse { path: path.to_owned() }),
            }
            fs::remove_file(path).map_err(error)?;
            UnixListener::bind(path)
        }
        other => other,
    };
    let listener = listener.map_err(error)?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(error)?;
    Ok(listener)
}

/// All of it.
pub(crate) struct Switch {
    path: PathBuf,
    registry: Registry,
    listener: UnixListener,
    greetings: HashMap<Token, Greeting>,
    connections: BTreeMap<Key, Connection>,
    tokens: HashMap<Token, Key>,
    resets: VecDeque<(u64, Key)>,
    epoch: Option<u64>,
    next_token: usize,
    next_port: u32,
}

impl Switch {
    pub(crate) fn new(
        mut listener: UnixListener,
        path: &Path,
        registry: Registry,
    ) -> io::Result<Self> {
        registry.register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            path: path.to_owned(),
            registry,
            listener,
            greetings: HashMap::new(),
            connections: BTreeMap::new(),
            tokens: HashMap::new(),
            resets: VecDeque::new(),
            epoch: None,
            next_token: LISTENER.0,
            next_port: FIRST_HOST_PORT,
        })
    }

    /// One round: events of the host, packets of the guest, and each connection's turn.
    pub(crate) fn round(
        &mut self,
        device: Option<&dyn VsockDevice>,
        events: &Events,
        now: Instant,
    ) -> Next {
        events.iter().for_each(|event| self.note(event));
        self.accept(now);
        let Some(device) = device else { return Next::Event };
        if self.epoch.replace(device.epoch()) != Some(device.epoch()) {
            self.connections.clear();
            self.tokens.clear();
            self.resets.clear();
        }
        self.hear_greetings(now);
        let mut more = self.take(device);
        more |= self.turns(device, now);
        self.send_resets(device);
        device.flush();
        let waits = !self.greetings.is_empty()
            || self.connections.values().any(|connection| connection.stage != Stage::Open);
        match (more, waits) {
            (true, _) => Next::Now,
            (false, true) => Next::At(now + Duration::from_secs(1)),
            (false, false) => Next::Event,
        }
    }

    fn note(&mut self, event: &Event) {
        let connection =
            self.tokens.get(&event.token()).and_then(|key| self.connections.get_mut(key));
        if let Some(connection) = connection {
            connection.readable |= event.is_readable() || event.is_read_closed();
            connection.writable |= event.is_writable() || event.is_write_closed();
            connection.hung_up |= event.is_write_closed();
        }
    }

    fn register(&mut self, stream: &mut UnixStream) -> Option<Token> {
        self.next_token = self.next_token.wrapping_add(1).max(LISTENER.0 + 1);
        let token = Token(self.next_token);
        let both = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(stream, token, both).ok().map(|()| token)
    }

    /// Programs of the host come in.
    fn accept(&mut self, now: Instant) {
        // An error (there are too many files, say) may pass; the next event tries again.
        while let Ok((mut stream, _)) = self.listener.accept() {
            if self.greetings.len() < GREETINGS_MAX
                && let Some(token) = self.register(&mut stream)
            {
                self.greetings.insert(token, Greeting::new(stream, now));
            }
        }
    }

    fn hear_greetings(&mut self, now: Instant) {
        let heard: Vec<(Token, Said)> = self
            .greetings
            .iter_mut()
            .map(|(token, greeting)| match greeting.read() {
                Said::NotYet if now.duration_since(greeting.since) > PATIENCE => {
                    (*token, Said::Nonsense)
                }
                said => (*token, said),
            })
            .filter(|(_, said)| *said != Said::NotYet)
            .collect();
        for (token, said) in heard {
            let Some(greeting) = self.greetings.remove(&token) else { continue };
            let Said::Port(guest_port) = said else { continue };
            if self.connections.len() >= CONNECTIONS_MAX {
                continue;
            }
            let key = Key { guest_port, host_port: self.free_port(guest_port) };
            let stage = Stage::Asked(now);
            self.add(Connection::new(key, token, greeting.stream, stage));
        }
    }

    fn add(&mut self, connection: Connection) {
        self.tokens.insert(connection.token, connection.key);
        self.connections.insert(connection.key, connection);
    }

    fn remove(&mut self, key: Key) {
        if let Some(connection) = self.connections.remove(&key) {
            self.tokens.remove(&connection.token);
        }
    }

    /// There are fewer connections than ports.
    fn free_port(&mut self, guest_port: u32) -> u32 {
        loop {
            let host_port = self.next_port;
            self.next_port = host_port.wrapping_add(1).max(FIRST_HOST_PORT);
            if !self.connections.contains_key(&Key { guest_port, host_port }) {
                return host_port;
            }
        }
    }

    /// Takes packets of the guest's: whether there may be more.
    fn take(&mut self, device: &dyn VsockDevice) -> bool {
        let mut data = Vec::new();
        for _ in 0..TAKES_MAX {
            if self.resets.len() >= RESETS_MAX {
                // The guest makes room for them first, and wakes us then.
                return false;
            }
            let Some(packet) = device.take(&mut data) else { return false };
            self.hear(&packet, &data);
        }
        true
    }

    fn hear(&mut self, packet: &VsockPacket, data: &[u8]) {
        let key = Key { guest_port: packet.guest_port, host_port: packet.peer_port };
        if packet.operation == VsockOperation::Reset {
            if packet.peer_cid == HOST_CID {
                self.remove(key);
            }
            return;
        }
        if packet.peer_cid != HOST_CID || !self.obey(key, packet, data) {
            if packet.peer_cid == HOST_CID {
                self.remove(key);
            }
            self.resets.push_back((packet.peer_cid, key));
        }
    }

    /// Does what a packet says; false if the connection is to be reset.
    fn obey(&mut self, key: Key, packet: &VsockPacket, data: &[u8]) -> bool {
        if packet.operation == VsockOperation::Request {
            return !self.connections.contains_key(&key) && self.connect(key, packet);
        }
        let Some(connection) = self.connections.get_mut(&key) else { return false };
        connection.told(packet);
        match packet.operation {
            VsockOperation::Response => {
                let asked = matches!(connection.stage, Stage::Asked(_));
                if asked {
                    connection.accepted();
                }
                asked
            }
            VsockOperation::Shutdown { receive, send } => {
                connection.guest_receives &= !receive;
                connection.guest_sends &= !send;
                true
            }
            VsockOperation::Data => connection.take(data),
            VsockOperation::CreditUpdate => true,
            VsockOperation::CreditRequest => {
                connection.owed.credit = true;
                true
            }
            VsockOperation::Request | VsockOperation::Reset | VsockOperation::Unknown => false,
        }
    }

    /// The guest wants to a port of the host.
    fn connect(&mut self, key: Key, packet: &VsockPacket) -> bool {
        if self.connections.len() >= CONNECTIONS_MAX {
            return false;
        }
        let mut path: OsString = self.path.clone().into_os_string();
        path.push(format!("_{}", key.host_port));
        let Ok(mut stream) = UnixStream::connect(path) else { return false };
        let Some(token) = self.register(&mut stream) else { return false };
        let mut connection = Connection::new(key, token, stream, Stage::Open);
        connection.told(packet);
        self.add(connection);
        true
    }

    /// Each connection's turn: whether there is more to do.
    fn turns(&mut self, device: &dyn VsockDevice, now: Instant) -> bool {
        let mut more = false;
        let mut over = Vec::new();
        for (key, connection) in &mut self.connections {
            let late = matches!(connection.stage, Stage::Asked(since)
                if now.duration_since(since) > PATIENCE);
            match connection.turn(device) {
                Turn::Over => over.push(*key),
                Turn::Waits | Turn::NoRoom if late => over.push(*key),
                Turn::Waits | Turn::NoRoom => {}
                Turn::More => more = true,
            }
        }
        for key in over {
            self.remove(key);
            self.resets.push_back((HOST_CID, key));
        }
        more
    }

    fn send_resets(&mut self, device: &dyn VsockDevice) {
        while let Some((peer_cid, key)) = self.resets.front() {
            let packet = VsockPacket {
                peer_cid: *peer_cid,
                guest_port: key.guest_port,
                peer_port: key.host_port,
                operation: VsockOperation::Reset,
                buffer_len: BUFFER_LEN as u32,
                forwarded: 0,
            };
            if device.give(packet, &[]).0 == Given::NoRoom {
                return;
            }
            self.resets.pop_front();
        }
    }
}
