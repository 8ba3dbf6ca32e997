//! A network for a guest without any privilege on the host: the guest's packets become sockets of
//! the host's, and what those say becomes packets (NAT in user mode).
//!
//! One thread does it all. It waits with the system's poll (epoll on Linux), which tells of each
//! flow by itself; deadlines stand in ordered sets; flows with something to do in a queue. So a
//! flow that is idle costs nothing, however many there are. `tcp/flow.rs` says how TCP is done.
//!
//! What the guest finds is in `plan.rs`: QEMU's addresses, with the host's loopback behind the
//! gateway. Nothing that a guest or a peer sends makes more than a bounded number of flows, and a
//! bounded number of bytes for each and for all.

mod arp;
mod dhcp;
mod dns;
mod echo;
mod emit;
mod forward;
mod gateway;
mod icmp;
mod lookup;
mod ndp;
mod outbox;
mod owner;
mod packet;
mod plan;
mod reassembly;
mod slots;
mod tcp;
mod timers;
mod udp;

use std::sync::Weak;
use std::time::Instant;

use kasane_definition::Forward;
use kasane_ports::{NetBackend, NetDevice, NetInfo, NetOffloads};

pub use dns::NameServers;
pub use plan::Reach;

use crate::error::NetError;
use crate::thread::{self, Service};
use dns::Resolver;
use forward::Forwards;
use gateway::{Gateway, Parts};

/// Descriptors that the flows may need, and some for the rest of the program.
#[cfg(unix)]
const DESCRIPTORS: u64 = (tcp::FLOWS_MAX + udp::SOCKETS_MAX) as u64 + 512;

/// How a NAT is to be.
#[derive(Clone, Debug)]
pub struct NatConfig {
    /// Ports of the host that lead into the guest.
    pub forwards: Vec<Forward>,
    /// What the guest may reach.
    pub reach: Reach,
    /// Who answers for names.
    pub name_servers: NameServers,
    /// Largest payload of an Ethernet frame in bytes, 1280 to 65,520.
    pub mtu: u16,
}

impl Default for NatConfig {
    fn default() -> Self {
        Self {
            forwards: Vec::new(),
            reach: Reach::default(),
            name_servers: NameServers::default(),
            mtu: 1500,
        }
    }
}

/// A user-mode network. Dropping it ends its connections.
pub struct Nat {
    service: Service,
    mtu: u16,
    forwards: Vec<Forward>,
}

impl Nat {
    /// Starts the network's thread.
    ///
    /// # Errors
    /// If a forward's port can't be had, or the system has no more threads or descriptors.
    pub fn start(config: &NatConfig) -> Result<Self, NetError> {
        let mut bound = Vec::new();
        let mut forwards = Vec::new();
        for forward in &config.forwards {
            let (port, actual) = forward::bind(forward)?;
            bound.push(port);
            forwards.push(actual);
        }
        #[cfg(unix)]
        raise_descriptor_limit();
        let mtu = config.mtu.clamp(1280, 65_520);
        let reach = config.reach.clone();
        let resolver = Resolver::new(&config.name_servers);
        let service = thread::start::<_, NetError>("nat", |registry| {
            let now = Instant::now();
            let forwards = Forwards::new(bound, &registry, now)?;
            Ok(Gateway::new(Parts { reach, mtu, registry, forwards, resolver, now }))
        })?;
        Ok(Self { service, mtu, forwards })
    }

    /// The forwards, with the ports that the system chose where any was asked for.
    #[must_use]
    pub fn forwards(&self) -> &[Forward] {
        &self.forwards
    }
}

impl NetBackend for Nat {
    fn info(&self) -> NetInfo {
        NetInfo { mtu: self.mtu, offloads: NetOffloads::ALL, queue_pairs: 1 }
    }

    fn connect(&self, device: Weak<dyn NetDevice>) {
        self.service.connect(device);
    }

    fn wake(&self) {
        self.service.wake();
    }
}

/// Each flow has a descriptor, and many systems let a process have 1,024 unless it asks for more,
/// which is its right. What isn't given is missed only when so many flows are there.
#[cfg(unix)]
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS));
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        let _ = setrlimit(Resource::Nofile, raised);
    }
}
