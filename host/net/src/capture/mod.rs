//! A network whose frames are written to a file as well (pcap), for Wireshark and its like.
//!
//! The network's thread only copies: a thread of the capture writes. If the disk can't follow,
//! frames are missing in the file, never in the network; how many is told at the end.

mod writer;

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};

use kasane_ports::{FrameOffload, Given, NetBackend, NetDevice, NetGuestOffloads, NetInfo};

use crate::error::NetError;
use crate::frame::checksum;
use writer::Writer;

/// A network with a capture.
pub struct Captured {
    /// Dropped before the writer: the network's thread ends first, so that nothing is lost.
    network: Arc<dyn NetBackend>,
    device: OnceLock<Arc<Recorder>>,
    writer: Arc<Writer>,
}

/// What a capture has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureCounts {
    /// Frames that were written, or are about to be.
    pub frames: u64,
    /// Frames that are missing in the file.
    pub missed: u64,
}

impl Captured {
    /// Captures what goes over `network` to a file, which is made anew.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn new(network: Arc<dyn NetBackend>, path: &Path) -> Result<Self, NetError> {
        let failed = |error| NetError::Capture { path: path.to_owned(), error };
        let file = File::create(path).map_err(failed)?;
        let writer = Writer::start(file).map_err(failed)?;
        Ok(Self { network, device: OnceLock::new(), writer: Arc::new(writer) })
    }

    /// What was captured.
    #[must_use]
    pub fn counts(&self) -> CaptureCounts {
        self.writer.counts()
    }
}

impl NetBackend for Captured {
    fn info(&self) -> NetInfo {
        self.network.info()
    }

    fn connect(&self, device: Weak<dyn NetDevice>) {
        let recorder =
            self.device.get_or_init(|| Arc::new(Recorder { device, writer: self.writer.clone() }));
        let recorder: Weak<dyn NetDevice> =
            Arc::downgrade(&(recorder.clone() as Arc<dyn NetDevice>));
        self.network.connect(recorder);
    }

    fn wake(&self) {
        self.network.wake();
    }
}

/// The device, as the network sees it.
struct Recorder {
    device: Weak<dyn NetDevice>,
    writer: Arc<Writer>,
}

impl Recorder {
    fn record(&self, mut frame: Vec<u8>, offload: &FrameOffload) {
        // A long frame is written whole, as Linux's own captures do; its sum is right for it.
        if let Some(partial) = offload.checksum {
            let _ = checksum::complete(&mut frame, partial);
        }
        self.writer.push(frame);
    }
}

impl NetDevice for Recorder {
    fn take(&self, frame: &mut Vec<u8>) -> Option<FrameOffload> {
        let offload = self.device.upgrade()?.take(frame)?;
        if self.writer.has_room(frame.len()) {
            self.record(frame.clone(), &offload);
        }
        Some(offload)
    }

    fn give(&self, parts: &[&[u8]], offload: FrameOffload) -> Given {
        let Some(device) = self.device.upgrade() else { return Given::Refused };
        let given = device.give(parts, offload);
        let len = parts.iter().map(|part| part.len()).sum();
        if given == Given::Taken && self.writer.has_room(len) {
            self.record(parts.concat(), &offload);
        }
        given
    }

    fn flush(&self) {
        if let Some(device) = self.device.upgrade() {
            device.flush();
        }
    }

    fn guest_offloads(&self) -> NetGuestOffloads {
        self.device.upgrade().map(|device| device.guest_offloads()).unwrap_or_default()
    }

    fn is_up(&self) -> bool {
        self.device.upgrade().is_some_and(|device| device.is_up())
    }
}
