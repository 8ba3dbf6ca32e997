//! A guest: smoltcp's stack on a [`FakeDevice`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kasane_ports::{FrameOffload, NetBackend};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as StackTime;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use super::{FakeDevice, PATIENCE};

pub const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
pub const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xFEC0, 0, 0, 0, 0, 0, 0, 0x15);
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xFEC0, 0, 0, 0, 0, 0, 0, 2);

/// What smoltcp drives.
pub struct Card {
    pub device: Arc<FakeDevice>,
    backend: Arc<dyn NetBackend>,
    mtu: usize,
}

pub struct Received(Vec<u8>);

pub struct Sending<'a>(&'a Card);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.device.send(frame, FrameOffload::default());
        self.0.backend.wake();
        result
    }
}

impl Device for Card {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: StackTime) -> Option<(Received, Sending<'_>)> {
        if !self.device.has_send_room() {
            return None;
        }
        let (frame, _) = self.device.receive()?;
        self.backend.wake();
        Some((Received(frame), Sending(self)))
    }

    fn transmit(&mut self, _: StackTime) -> Option<Sending<'_>> {
        self.device.has_send_room().then_some(Sending(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + 14;
        capabilities
    }
}

/// The guest.
pub struct Guest {
    pub card: Card,
    pub iface: Interface,
    pub sockets: SocketSet<'static>,
    begun: Instant,
    next_port: u16,
}

/// Who a guest is.
#[derive(Clone, Copy)]
pub struct Identity {
    pub mac: [u8; 6],
    pub address: Option<Ipv4Addr>,
}

pub const USUAL: Identity = Identity { mac: MAC, address: Some(ADDRESS) };

impl Guest {
    pub fn new(device: Arc<FakeDevice>, backend: Arc<dyn NetBackend>) -> Self {
        Self::of(device, backend, USUAL)
    }

    pub fn of(device: Arc<FakeDevice>, backend: Arc<dyn NetBackend>, who: Identity) -> Self {
        let mtu = backend.info().mtu.into();
        let mut card = Card { device, backend, mtu };
        let hardware = HardwareAddress::Ethernet(EthernetAddress(who.mac));
        let mut config = Config::new(hardware);
        config.random_seed = 7;
        let mut iface = Interface::new(config, &mut card, StackTime::ZERO);
        iface.update_ip_addrs(|addresses| {
            if let Some(address) = who.address {
                addresses.push(IpCidr::new(address.into(), 24)).unwrap();
                addresses.push(IpCidr::new(ADDRESS6.into(), 64)).unwrap();
            }
        });
        iface.routes_mut().add_default_ipv4_route(GATEWAY).unwrap();
        iface.routes_mut().add_default_ipv6_route(GATEWAY6).unwrap();
        let sockets = SocketSet::new(Vec::new());
        Self { card, iface, sockets, begun: Instant::now(), next_port: 49_152 }
    }

    pub fn poll(&mut self) {
        let now = self.now();
        self.iface.poll(now, &mut self.card, &mut self.sockets);
    }

    fn now(&self) -> StackTime {
        StackTime::from_micros(self.begun.elapsed().as_micros() as i64)
    }

    /// Runs the stack until `done` says so.
    pub fn until<T>(&mut self, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        self.within(PATIENCE, &mut done).expect("it happens in time")
    }

    pub fn within<T>(
        &mut self,
        patience: Duration,
        done: &mut dyn FnMut(&mut Self) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            self.poll();
            if let Some(value) = done(self) {
                return Some(value);
            }
            let now = self.now();
            let delay = self.iface.poll_delay(now, &self.sockets);
            let delay = delay.map_or(5000, |delay| delay.total_micros().min(5000));
            if delay > 0 {
                self.card.device.wait(Duration::from_micros(delay));
            }
        }
        None
    }

    pub fn port(&mut self) -> u16 {
        self.next_port += 1;
        self.next_port
    }

    /// A socket with buffers of this size, in a connection that is begun.
    pub fn begin(&mut self, to: SocketAddr, buffer: usize) -> SocketHandle {
        let mut socket = tcp::Socket::new(
            tcp::SocketBuffer::new(vec![0; buffer]),
            tcp::SocketBuffer::new(vec![0; buffer]),
        );
        socket.set_ack_delay(None);
        let port = self.port();
        let to = (smoltcp::wire::IpAddress::from(to.ip()), to.port());
        socket.connect(self.iface.context(), to, port).unwrap();
        self.sockets.add(socket)
    }

    /// A connection; panics if it is refused.
    pub fn connect(&mut self, to: SocketAddr, buffer: usize) -> SocketHandle {
        let handle = self.begin(to, buffer);
        let state = self.until(|guest| {
            let state = guest.tcp(handle).state();
            (state != tcp::State::SynSent).then_some(state)
        });
        assert_eq!(state, tcp::State::Established);
        handle
    }

    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Sends all of it.
    pub fn send_all(&mut self, handle: SocketHandle, mut bytes: &[u8]) {
        self.until(|guest| {
            let socket = guest.tcp(handle);
            assert!(socket.may_send(), "the connection was closed: {}", socket.state());
            while !bytes.is_empty() && socket.can_send() {
                let sent = socket.send_slice(bytes).unwrap();
                bytes = &bytes[sent..];
            }
            bytes.is_empty().then_some(())
        });
    }

    /// Receives until the other side closes.
    pub fn receive_all(&mut self, handle: SocketHandle) -> Vec<u8> {
        let mut all = Vec::new();
        self.until(|guest| {
            let socket = guest.tcp(handle);
            while socket.can_recv() {
                socket
                    .recv(|bytes| {
                        all.extend_from_slice(bytes);
                        (bytes.len(), ())
                    })
                    .unwrap();
            }
            (!socket.may_recv()).then_some(())
        });
        all
    }
}

/// The host's loopback as the guest sees it.
pub fn host(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(GATEWAY), port)
}
