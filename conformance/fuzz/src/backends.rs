//! Backends of virtio devices that do a little when they are told to, and look whether what they
//! get makes sense.

use std::sync::{Arc, Weak};

use kasane_ports::{
    Console, FrameOffload, NetBackend, NetDevice, NetInfo, NetOffloads, PageReclaim,
    PartialChecksum, ShareBackend, ShareCompletions, ShareRequest, VsockBackend, VsockDevice,
    VsockOperation, VsockPacket,
};
use parking_lot::Mutex;

/// A place for the device that a backend is connected to.
struct Slot<T: ?Sized>(Mutex<Option<Weak<T>>>);

impl<T: ?Sized> Slot<T> {
    fn new() -> Self {
        Self(Mutex::new(None))
    }
    fn put(&self, device: Weak<T>) {
        *self.0.lock() = Some(device);
    }
    fn get(&self) -> Option<Arc<T>> {
        self.0.lock().clone()?.upgrade()
    }
}

/// A network that takes frames and gives some.
pub struct Net(Slot<dyn NetDevice>);

impl Net {
    /// Without a device.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Slot::new()))
    }
    /// A round.
    pub fn work(&self, count: u8, fails: bool, data: u8) {
        let Some(device) = self.0.get() else { return };
        let mut frame = Vec::new();
        for _ in 0..count {
            let Some(offload) = device.take(&mut frame) else { break };
            let sum_end =
                |sum: PartialChecksum| usize::from(sum.start) + usize::from(sum.offset) + 2;
            assert!((14..=66_000).contains(&frame.len()));
            assert!(offload.checksum.is_none_or(|sum| sum_end(sum) <= frame.len()));
            if let Some(cut) = offload.segmentation {
                assert!(cut.size != 0 && usize::from(cut.header_len) < frame.len());
                assert!(offload.checksum.is_some());
            }
        }
        let offload = FrameOffload {
            checksum: fails.then_some(PartialChecksum { start: 14, offset: 2 }),
            ..FrameOffload::default()
        };
        let bytes = vec![data; usize::from(count) * 40];
        let (one, two) = bytes.split_at(bytes.len() / 3);
        device.give(&[one, two], offload);
        device.flush();
        let _offloads = device.guest_offloads();
    }
}

impl NetBackend for Net {
    fn info(&self) -> NetInfo {
        NetInfo { mtu: 1500, offloads: NetOffloads::ALL, queue_pairs: 4 }
    }
    fn connect(&self, device: Weak<dyn NetDevice>) {
        self.0.put(device);
    }
    fn wake(&self) {}
}

/// Sockets that take packets and give some.
pub struct Sockets(Slot<dyn VsockDevice>);

impl Sockets {
    /// Without a device.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Slot::new()))
    }
    /// A round.
    pub fn work(&self, count: u8, fails: bool, data: u8) {
        let Some(device) = self.0.get() else { return };
        let mut bytes = Vec::new();
        for _ in 0..count {
            let Some(packet) = device.take(&mut bytes) else { break };
            assert!(bytes.len() <= 64 << 10);
            assert!(bytes.is_empty() || packet.operation == VsockOperation::Data);
        }
        let operation = if fails { VsockOperation::Reset } else { VsockOperation::Data };
        let packet = VsockPacket {
            peer_cid: 2,
            guest_port: data.into(),
            peer_port: count.into(),
            operation,
            buffer_len: 1 << 16,
            forwarded: 0,
        };
        let bytes = vec![data; if fails { 0 } else { usize::from(count) * 9 }];
        let (_, taken) = device.give(packet, &bytes);
        assert!(taken <= bytes.len());
        device.flush();
        let _epoch = device.epoch();
    }
}

impl VsockBackend for Sockets {
    fn connect(&self, device: Weak<dyn VsockDevice>) {
        self.0.put(device);
    }
    fn wake(&self) {}
}

/// A server that answers with nonsense, in time or late.
pub struct Share {
    device: Slot<dyn ShareCompletions>,
    waiting: Mutex<Vec<ShareRequest>>,
}

impl Share {
    /// Without a device.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { device: Slot::new(), waiting: Mutex::default() })
    }
    /// Ends some requests.
    pub fn work(&self, count: u8, fails: bool, data: u8) {
        let done: Vec<_> = {
            let mut waiting = self.waiting.lock();
            let count = usize::from(count).min(waiting.len());
            waiting.drain(..count).collect()
        };
        let Some(device) = self.device.get() else { return };
        for request in done {
            device.completed(request.token, if fails { u32::MAX } else { data.into() });
            device.completed(request.token, 0);
        }
    }
}

impl ShareBackend for Share {
    fn connect(&self, to: Weak<dyn ShareCompletions>) {
        self.device.put(to);
    }
    fn submit(&self, requests: Vec<ShareRequest>) {
        self.waiting.lock().extend(requests);
    }
    fn drain(&self) {
        let all = std::mem::take(&mut *self.waiting.lock());
        let Some(device) = self.device.get() else { return };
        for request in all {
            device.completed(request.token, 0);
        }
    }
    fn reset(&self) {
        assert!(self.waiting.lock().is_empty());
    }
}

/// Takes what comes.
pub struct Sink;

impl Console for Sink {
    fn output(&self, bytes: &[u8]) {
        assert!(!bytes.is_empty());
    }
}

impl PageReclaim for Sink {
    fn discard(&self, gpa: u64, len: u64) {
        assert!(gpa % 4096 == 0 && len % 4096 == 0 && len != 0);
    }
}
