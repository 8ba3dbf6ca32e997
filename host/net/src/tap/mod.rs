//! An interface of the host's kernel (Linux's TAP): for those who have the right to one, and want
//! the guest to be a full member of the host's networks.
//!
//! The kernel and the guest agree on offloads through us: the header before each frame is theirs
//! (`struct virtio_net_hdr`), and the kernel is told what the guest takes.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Weak;
use std::time::Instant;

use kasane_ports::{
    FrameOffload, Given, NetBackend, NetDevice, NetGuestOffloads, NetInfo, NetOffloads,
};
use mio::unix::SourceFd;
use mio::{Events, Interest, Registry, Token};

use crate::error::NetError;
use crate::frame::offload::{self, HEADER};
use crate::frame::{ETHERNET, FRAME_MAX};
use crate::link::Link;
use crate::system;
use crate::thread::{self, Network, Next, Service};

const TUN: Token = Token(1);

/// Frames in one direction before the other's turn.
const TURN: usize = 64;

/// Flags of `TUNSETOFFLOAD` (`linux/if_tun.h`).
const TUN_F_CSUM: u32 = 1;
const TUN_F_TSO4: u32 = 2;
const TUN_F_TSO6: u32 = 4;

/// An interface of the kernel's. Dropping it lets it go.
pub struct Tap {
    service: Service,
    mtu: u16,
}

impl Tap {
    /// Takes the interface.
    ///
    /// # Errors
    /// If the right to it is missing, which the error's help gives the command for, or if the
    /// interface is in use.
    pub fn open(interface: &str) -> Result<Self, NetError> {
        let failed = |error| NetError::Tap { interface: interface.to_owned(), error };
        let tun = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(failed)?;
        system::attach_tap(&tun, interface).map_err(failed)?;
        system::set_tap_offloads(&tun, 0).map_err(failed)?;
        let mtu = std::fs::read_to_string(format!("/sys/class/net/{interface}/mtu"))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(1500);
        let service = thread::start("tap", |registry: Registry| {
            registry.register(
                &mut SourceFd(&tun.as_raw_fd()),
                TUN,
                Interest::READABLE | Interest::WRITABLE,
            )?;
            Ok::<_, io::Error>(Wire::new(tun))
        })
        .map_err(failed)?;
        Ok(Self { service, mtu })
    }
}

impl NetBackend for Tap {
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

/// The thread's side.
struct Wire {
    tun: File,
    /// What the kernel was told that the guest takes.
    told: NetGuestOffloads,
    readable: bool,
    writable: bool,
    /// A frame that waits for the kernel, and one that waits for the guest.
    outgoing: Option<(Vec<u8>, FrameOffload)>,
    incoming: Option<(usize, FrameOffload)>,
    frame: Vec<u8>,
    /// What was read: header and frame.
    read: Vec<u8>,
}

impl Wire {
    fn new(tun: File) -> Self {
        Self {
            tun,
            told: NetGuestOffloads::default(),
            readable: true,
            writable: true,
            outgoing: None,
            incoming: None,
            frame: Vec::with_capacity(FRAME_MAX),
            read: vec![0; HEADER + FRAME_MAX],
        }
    }

    /// Tells the kernel what the guest takes, when that has changed.
    fn agree(&mut self, link: &Link<'_>) {
        let takes = link.offloads();
        if takes == self.told {
            return;
        }
        let checksum = takes.partial_checksum;
        let bit = |set: bool, bit: u32| if set && checksum { bit } else { 0 };
        let mask =
            bit(true, TUN_F_CSUM) | bit(takes.tcp4, TUN_F_TSO4) | bit(takes.tcp6, TUN_F_TSO6);
        if system::set_tap_offloads(&self.tun, mask).is_ok() {
            self.told = takes;
        }
    }

    /// Frames of the guest's to the kernel. Says whether there may be more that can go.
    fn send(&mut self, link: &Link<'_>) -> bool {
        for _ in 0..TURN {
            if self.outgoing.is_none() {
                let mut frame = std::mem::take(&mut self.frame);
                let Some(offload) = link.take(&mut frame) else {
                    self.frame = frame;
                    return false;
                };
                self.outgoing = Some((frame, offload));
            }
            if !self.writable {
                return false;
            }
            let Some((frame, offload)) = self.outgoing.take() else { return false };
            let header = offload::encode(&offload);
            match (&self.tun).write_vectored(&[IoSlice::new(&header), IoSlice::new(&frame)]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.writable = false;
                    self.outgoing = Some((frame, offload));
                }
                // The kernel refuses frames that make no sense, and all while the interface is
                // down: they are lost, as on a cable that is not plugged in.
                Ok(_) | Err(_) => self.frame = frame,
            }
        }
        true
    }

    /// Frames of the kernel's to the guest. Says whether there may be more that can go.
    fn receive(&mut self, link: &mut Link<'_>) -> bool {
        for _ in 0..TURN {
            if self.incoming.is_none() && !self.read() {
                return false;
            }
            let Some((len, offload)) = self.incoming else { continue };
            let frame = self.read.get(HEADER..len).unwrap_or_default();
            match link.give(&[frame], offload) {
                Given::Taken | Given::Refused => self.incoming = None,
                Given::NoRoom => return false,
            }
        }
        true
    }

    /// Reads a frame. Says whether there may be more.
    fn read(&mut self) -> bool {
        if !self.readable {
            return false;
        }
        match (&self.tun).read(&mut self.read) {
            Ok(len) if len >= HEADER + ETHERNET => {
                let offload = self.read.first_chunk::<HEADER>().and_then(offload::decode);
                self.incoming = offload.map(|offload| (len, offload));
                true
            }
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(_) => {
                self.readable = false;
                false
            }
        }
    }
}

impl Network for Wire {
    fn round(&mut self, device: Option<&dyn NetDevice>, events: &Events, _: Instant) -> Next {
        for event in events {
            if event.token() == TUN {
                self.readable |= event.is_readable() || event.is_error();
                self.writable |= event.is_writable() || event.is_error();
            }
        }
        let mut link = Link::new(device);
        self.agree(&link);
        let mut more = self.send(&link);
        more |= self.receive(&mut link);
        if more { Next::Now } else { Next::Event }
    }
}
