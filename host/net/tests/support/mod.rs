//! A device as a backend sees it, and a guest's network stack (smoltcp's, whole) behind it.
#![allow(dead_code, unreachable_pub, missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

pub mod guest;
pub mod raw;
pub mod server;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kasane_ports::{FrameOffload, Given, NetBackend, NetDevice, NetGuestOffloads};
use parking_lot::{Condvar, Mutex};

/// How long a test waits for something that has to happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Frames in each direction's ring.
const RING: usize = 256;

/// A network card with two rings and a driver.
pub struct FakeDevice {
    sent: Mutex<VecDeque<(Vec<u8>, FrameOffload)>>,
    received: Mutex<VecDeque<(Vec<u8>, FrameOffload)>>,
    arrived: Condvar,
    offloads: NetGuestOffloads,
    /// The driver runs.
    up: AtomicBool,
    /// The guest refuses longer frames.
    pub longest: AtomicUsize,
    /// Of so many frames that the guest has taken, one is lost in its stack; 0 for none.
    pub loses_one_in: AtomicUsize,
    taken: AtomicUsize,
}

pub const ALL_OFFLOADS: NetGuestOffloads =
    NetGuestOffloads { partial_checksum: true, tcp4: true, tcp6: true };

impl FakeDevice {
    pub fn new(offloads: NetGuestOffloads) -> Arc<Self> {
        Arc::new(Self {
            sent: Mutex::default(),
            received: Mutex::default(),
            arrived: Condvar::new(),
            offloads,
            up: AtomicBool::new(true),
            longest: AtomicUsize::new(usize::MAX),
            loses_one_in: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
        })
    }

    /// A device on this network.
    pub fn on(backend: &dyn NetBackend, offloads: NetGuestOffloads) -> Arc<Self> {
        let device = Self::new(offloads);
        let weak: std::sync::Weak<dyn NetDevice> =
            Arc::downgrade(&(device.clone() as Arc<dyn NetDevice>));
        backend.connect(weak);
        device
    }

    pub fn has_send_room(&self) -> bool {
        self.sent.lock().len() < RING
    }

    /// The guest sends a frame.
    pub fn send(&self, frame: Vec<u8>, offload: FrameOffload) {
        self.sent.lock().push_back((frame, offload));
    }

    /// The next frame that the guest has got, with its checksums completed, as hardware does.
    pub fn receive(&self) -> Option<(Vec<u8>, FrameOffload)> {
        let (mut frame, offload) = self.received.lock().pop_front()?;
        if let Some(partial) = offload.checksum {
            complete(&mut frame, partial.start.into(), partial.offset.into());
        }
        Some((frame, offload))
    }

    pub fn received_len(&self) -> usize {
        self.received.lock().len()
    }

    /// Waits until there is a frame to receive, this long at most.
    pub fn wait(&self, timeout: Duration) {
        let mut received = self.received.lock();
        if received.is_empty() {
            self.arrived.wait_for(&mut received, timeout);
        }
    }

    /// Waits for a frame that `wanted` takes; others are dropped.
    pub fn expect(
        &self,
        backend: &dyn NetBackend,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Vec<u8> {
        self.try_expect(backend, PATIENCE, &mut wanted).expect("the frame comes")
    }

    pub fn try_expect(
        &self,
        backend: &dyn NetBackend,
        patience: Duration,
        wanted: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Option<Vec<u8>> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            while let Some((frame, _)) = self.receive() {
                backend.wake();
                if wanted(&frame) {
                    return Some(frame);
                }
            }
            self.wait(Duration::from_millis(20));
        }
        None
    }

    pub fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::SeqCst);
    }
}

/// RFC 1071, the plain way.
pub fn complete(frame: &mut [u8], start: usize, offset: usize) {
    let mut sum: u32 = 0;
    for pair in frame[start..].chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    frame[start + offset..start + offset + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

impl NetDevice for FakeDevice {
    fn take(&self, frame: &mut Vec<u8>) -> Option<FrameOffload> {
        let (taken, offload) = self.sent.lock().pop_front()?;
        *frame = taken;
        Some(offload)
    }

    fn give(&self, parts: &[&[u8]], offload: FrameOffload) -> Given {
        if !self.is_up() {
            return Given::Refused;
        }
        let frame: Vec<u8> = parts.concat();
        if offload.segmentation.is_some() {
            assert!(offload.checksum.is_some() && self.offloads.tcp4);
        }
        assert!(offload.checksum.is_none() || self.offloads.partial_checksum);
        if frame.len() > self.longest.load(Ordering::SeqCst) {
            return Given::Refused;
        }
        let mut received = self.received.lock();
        if received.len() >= RING {
            return Given::NoRoom;
        }
        let lose = self.loses_one_in.load(Ordering::SeqCst);
        let count = self.taken.fetch_add(1, Ordering::SeqCst) + 1;
        if lose == 0 || !count.is_multiple_of(lose) {
            received.push_back((frame, offload));
        }
        Given::Taken
    }

    fn flush(&self) {
        self.arrived.notify_all();
    }

    fn guest_offloads(&self) -> NetGuestOffloads {
        self.offloads
    }

    fn is_up(&self) -> bool {
        self.up.load(Ordering::SeqCst)
    }
}
