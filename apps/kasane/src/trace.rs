//! `--trace FILE`: every event as a line of JSON.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use kasane_ports::{Trace, TraceEvent, TraceKind};
use parking_lot::Mutex;
use serde::Serialize;

/// Events that may wait for the writer; then the guest waits, so that a trace has no gaps.
const CHANNEL_EVENTS: usize = 1 << 16;

/// A trace that a thread writes to a file.
pub(crate) struct TraceFile {
    events: Mutex<Option<SyncSender<TraceEvent>>>,
    writer: Mutex<Option<JoinHandle<io::Result<()>>>>,
}

impl TraceFile {
    /// Starts a trace to a new file.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let stream = BufWriter::new(File::create(path)?);
        let (events, taken) = sync_channel(CHANNEL_EVENTS);
        let writer = std::thread::Builder::new()
            .name("trace".to_owned())
            .spawn(move || write(&taken, stream))?;
        Ok(Self { events: Mutex::new(Some(events)), writer: Mutex::new(Some(writer)) })
    }

    /// Ends the trace when all events are in the file.
    pub(crate) fn finish(&self) -> io::Result<()> {
        self.events.lock().take();
        match self.writer.lock().take().map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Err(io::Error::other("the trace's thread ended by a panic")),
            None => Ok(()),
        }
    }
}

impl Trace for TraceFile {
    fn enabled(&self) -> bool {
        true
    }
    fn emit(&self, event: &TraceEvent) {
        let sender = self.events.lock().clone();
        if let Some(sender) = sender {
            // The writer goes away only at the end, when nobody cares for more.
            let _ended = sender.send(*event);
        }
    }
    fn lane(&self) -> usize {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static LANE: usize = NEXT.fetch_add(1, Ordering::Relaxed);
        }
        LANE.with(|lane| *lane)
    }
}

/// One line.
#[derive(Serialize)]
struct Line {
    time_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vcpu: Option<u32>,
    kind: &'static str,
    subject: &'static str,
    a: u64,
    b: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u8>,
}

impl From<TraceEvent> for Line {
    fn from(event: TraceEvent) -> Self {
        let TraceEvent { time_ns, id, vcpu, kind, subject, a, b, size } = event;
        let kind = match kind {
            TraceKind::Exit => "exit",
            TraceKind::DeviceRead => "device-read",
            TraceKind::DeviceWrite => "device-write",
            TraceKind::Interrupt => "interrupt",
            TraceKind::Deadline => "deadline",
            TraceKind::Backend => "backend",
        };
        Self {
            time_ns,
            id: (id.0 != 0).then_some(id.0),
            vcpu: (vcpu != u32::MAX).then_some(vcpu),
            kind,
            subject,
            a,
            b,
            size: (size != 0).then_some(size),
        }
    }
}

/// The writer's life. After an error it goes on taking, so that the guest isn't stopped.
fn write(events: &Receiver<TraceEvent>, mut stream: impl Write) -> io::Result<()> {
    let mut outcome = Ok(());
    for event in events {
        if outcome.is_ok() {
            outcome = serde_json::to_writer(&mut stream, &Line::from(event))
                .map_err(io::Error::from)
                .and_then(|()| stream.write_all(b"\n"));
        }
    }
    outcome.and_then(|()| stream.flush())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kasane_ports::TraceId;

    #[test]
    fn an_event_becomes_a_line() {
        let (events, taken) = sync_channel(1);
        let event = TraceEvent {
            time_ns: 7,
            id: TraceId(0),
            vcpu: 1,
            kind: TraceKind::DeviceWrite,
            subject: "serial.0",
            a: 0x3F8,
            b: 65,
            size: 1,
        };
        events.send(event).unwrap();
        drop(events);
        let mut bytes = Vec::new();
        write(&taken, &mut bytes).unwrap();

        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "{\"time_ns\":7,\"vcpu\":1,\"kind\":\"device-write\",\"subject\":\"serial.0\",\"a\":1016,\"b\":65,\"size\":1}\n"
        );
    }
}
