//! The thread that writes a capture.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{DataLink, Endianness, TsResolution};

use super::CaptureCounts;
use crate::frame::FRAME_MAX;

/// Bytes that may wait for the disk.
const WAITING_MAX: usize = 16 << 20;

/// The writer. Dropping it writes what waits.
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<(Duration, Vec<u8>)>,
    bytes: usize,
    counts: CaptureCounts,
    /// The file takes no more.
    broken: bool,
    closed: bool,
}

impl Writer {
    pub(super) fn start(file: File) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("capture".to_owned())
            .spawn(move || write(&of_thread, file))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Whether a frame of this length finds room; counts it as missed if not. It is asked before
    /// the frame is copied.
    pub(super) fn has_room(&self, len: usize) -> bool {
        let mut queue = self.shared.queue.lock();
        let room = !queue.broken && queue.bytes.saturating_add(len) <= WAITING_MAX;
        queue.counts.missed += u64::from(!room);
        room
    }

    /// Hands a frame over.
    pub(super) fn push(&self, frame: Vec<u8>) {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut queue = self.shared.queue.lock();
        queue.bytes += frame.len();
        queue.counts.frames += 1;
        queue.frames.push_back((time, frame));
        if queue.frames.len() == 1 {
            self.shared.changed.notify_one();
        }
    }

    pub(super) fn counts(&self) -> CaptureCounts {
        self.shared.queue.lock().counts
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.changed.notify_one();
        let Some(thread) = self.thread.take() else { return };
        if thread.thread().id() != std::thread::current().id() {
            let _ = thread.join();
        }
    }
}

fn write(shared: &Shared, file: File) {
    let header = PcapHeader {
        version_major: 2,
        version_minor: 4,
        ts_correction: 0,
        ts_accuracy: 0,
        snaplen: FRAME_MAX as u32,
        datalink: DataLink::ETHERNET,
        ts_resolution: TsResolution::NanoSecond,
        endianness: Endianness::native(),
    };
    let out = Out(Rc::new(RefCell::new(BufWriter::with_capacity(1 << 20, file))));
    let Ok(mut writer) = PcapWriter::with_header(out.clone(), header) else {
        shared.queue.lock().broken = true;
        return;
    };
    loop {
        let (frames, closed) = {
            let mut queue = shared.queue.lock();
            while queue.frames.is_empty() && !queue.closed {
                shared.changed.wait(&mut queue);
            }
            (std::mem::take(&mut queue.frames), queue.closed)
        };
        let mut bytes = 0;
        let mut broken = false;
        for (time, frame) in frames {
            bytes += frame.len();
            let packet = PcapPacket::new(time, frame.len() as u32, &frame);
            broken |= writer.write_packet(&packet).is_err();
        }
        // What was captured can be looked at while the machine runs, and after it was killed.
        broken |= out.0.borrow_mut().flush().is_err();
        let mut queue = shared.queue.lock();
        queue.bytes = queue.bytes.saturating_sub(bytes);
        queue.broken |= broken;
        if closed {
            return;
        }
    }
}

/// The file, which the pcap writer owns but can't flush.
#[derive(Clone)]
struct Out(Rc<RefCell<BufWriter<File>>>);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().flush()
    }
}
