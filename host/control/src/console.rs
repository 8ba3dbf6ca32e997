//! Where a serial port's bytes go: a file or a stream behind a queue.

use std::io::Write;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kasane_ports::Console;
use parking_lot::{Condvar, Mutex};

/// Bytes that may wait for a slow reader before the guest has to wait for it.
const QUEUE_BYTES: usize = 256 << 10;

/// A console whose bytes a thread writes to a stream, so that a vCPU doesn't wait for a terminal.
/// Only when the reader is far behind does the guest wait, as with a real serial line.
pub struct QueuedConsole {
    queue: Arc<Queue>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    /// Bytes are with the stream right now.
    writing: bool,
    /// Nothing more will be written: the reader is gone, or the console is closed.
    closed: bool,
}

impl QueuedConsole {
    /// A console that writes to `stream`.
    ///
    /// # Errors
    /// When the host gives no thread.
    pub fn new(stream: impl Write + Send + 'static) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let drained = Arc::clone(&queue);
        let writer = std::thread::Builder::new()
            .name("console".to_owned())
            .spawn(move || drained.drain(stream))?;
        Ok(Self { queue, writer: Mutex::new(Some(writer)) })
    }

    /// Waits until all bytes are written, no longer than `patience`, and closes the console.
    /// Later bytes are dropped.
    pub fn close(&self, patience: Duration) {
        let end = Instant::now().checked_add(patience);
        let mut state = self.queue.state.lock();
        while !state.closed && (state.writing || !state.bytes.is_empty()) {
            let waited = match end {
                Some(end) => self.queue.changed.wait_until(&mut state, end).timed_out(),
                None => true,
            };
            if waited {
                break;
            }
        }
        let idle = !state.writing;
        state.closed = true;
        self.queue.changed.notify_all();
        drop(state);
        // A thread that hangs in its stream is left to the process's end.
        if let Some(writer) = self.writer.lock().take().filter(|_| idle) {
            let _panicked = writer.join();
        }
    }
}

impl Console for QueuedConsole {
    fn output(&self, bytes: &[u8]) {
        let mut state = self.queue.state.lock();
        while state.bytes.len() >= QUEUE_BYTES && !state.closed {
            self.queue.changed.wait(&mut state);
        }
        if state.closed {
            return;
        }
        if state.bytes.is_empty() && !state.writing {
            self.queue.changed.notify_all();
        }
        state.bytes.extend_from_slice(bytes);
    }
}

impl Queue {
    /// The writer's life.
    fn drain(&self, mut stream: impl Write) {
        let mut taken = Vec::new();
        let mut state = self.state.lock();
        loop {
            while state.bytes.is_empty() && !state.closed {
                self.changed.wait(&mut state);
            }
            if state.bytes.is_empty() {
                return;
            }
            std::mem::swap(&mut taken, &mut state.bytes);
            state.writing = true;
            drop(state);
            let written = stream.write_all(&taken).and_then(|()| stream.flush());
            taken.clear();
            state = self.state.lock();
            state.writing = false;
            // A reader that went away doesn't stop the guest.
            if written.is_err() {
                state.closed = true;
                state.bytes.clear();
            }
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// A stream whose bytes the test can see.
    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<u8>>>);

    impl Write for Seen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A stream that never takes anything.
    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A stream that hangs.
    struct Hung;

    impl Write for Hung {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            loop {
                std::thread::park();
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn every_byte_arrives_in_order() {
        let seen = Seen::default();
        let console = QueuedConsole::new(seen.clone()).unwrap();
        (0..=255u8).for_each(|byte| console.output(&[byte]));
        console.close(PATIENCE);

        assert_eq!(*seen.0.lock(), (0..=255u8).collect::<Vec<u8>>());
    }

    #[test]
    fn more_than_the_queue_holds_arrives_too() {
        let seen = Seen::default();
        let console = QueuedConsole::new(seen.clone()).unwrap();
        (0..10).for_each(|_| console.output(&[b'x'; QUEUE_BYTES / 2]));
        console.close(PATIENCE);

        assert_eq!(seen.0.lock().len(), 5 * QUEUE_BYTES);
    }

    #[test]
    fn a_reader_that_went_away_does_not_stop_the_guest() {
        let console = QueuedConsole::new(Gone).unwrap();
        (0..10).for_each(|_| console.output(&[b'x'; QUEUE_BYTES]));
        let start = Instant::now();
        console.close(PATIENCE);

        assert!(start.elapsed() < PATIENCE);
    }

    #[test]
    fn a_stream_that_hangs_does_not_keep_the_program() {
        let console = QueuedConsole::new(Hung).unwrap();
        console.output(b"lost");
        let start = Instant::now();
        console.close(Duration::from_millis(20));

        assert!(start.elapsed() < PATIENCE);
    }
}
