//! The way of the first serial port, and of the virtio console, to the outside and back.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use anyhow::Context;
use kasane_host_control::{LeaveKey, QueuedConsole, Typed, stdin_is_terminal};
use kasane_host_runtime::Parker;
use kasane_ports::{Console, Kick};
use parking_lot::Mutex;

use crate::outcome::Failure;
use crate::settings::{OnInputEnd, SerialTarget};
use crate::vm::HostedMachine;

/// How long the end of the program waits for a slow reader of the console.
const PATIENCE: Duration = Duration::from_secs(5);

/// A console that drops what it gets.
struct Nowhere;

impl Console for Nowhere {
    fn output(&self, _bytes: &[u8]) {}
}

/// Where the serial port's output goes.
pub(crate) struct SerialOutput {
    queued: Option<Arc<QueuedConsole>>,
}

impl SerialOutput {
    pub(crate) fn open(target: &SerialTarget) -> Result<Self, Failure> {
        let queued = match target {
            SerialTarget::None => None,
            SerialTarget::Stdio => Some(QueuedConsole::new(io::stdout())),
            SerialTarget::File(path) => {
                let file = File::create(path)
                    .with_context(|| format!("can't write the console to `{}`", path.display()))
                    .map_err(|error| {
                        Failure::usage(
                            error,
                            "name a file that can be written: `--serial file:PATH`",
                        )
                    })?;
                Some(QueuedConsole::new(file))
            }
        };
        let queued = queued
            .transpose()
            .context("no thread for the console")
            .map_err(|error| Failure::host(error, "end other programs and try again"))?;
        Ok(Self { queued: queued.map(Arc::new) })
    }

    /// What the machine writes to.
    pub(crate) fn console(&self) -> Arc<dyn Console> {
        match &self.queued {
            Some(console) => Arc::clone(console) as Arc<dyn Console>,
            None => Arc::new(Nowhere),
        }
    }

    /// Waits until all is written.
    pub(crate) fn close(&self) {
        if let Some(console) = &self.queued {
            console.close(PATIENCE);
        }
    }
}

/// What of a machine takes input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum InputPort {
    #[default]
    Serial,
    VirtioConsole,
}

/// The machine that input goes to: another one after each reset.
#[derive(Clone, Default)]
pub(crate) struct InputTarget {
    port: InputPort,
    machine: Arc<Mutex<Option<Arc<HostedMachine>>>>,
    /// Where the input's thread waits for room in the serial port, or for another machine.
    room: Arc<Parker>,
}

impl InputTarget {
    pub(crate) fn new(port: InputPort) -> Self {
        Self { port, ..Self::default() }
    }

    /// From now on input goes to `machine`.
    pub(crate) fn set(&self, machine: Option<Arc<HostedMachine>>) {
        *self.machine.lock() = machine;
        self.room.unpark();
    }

    /// What the machine kicks when its serial port takes input again.
    pub(crate) fn room(&self) -> Arc<dyn Kick> {
        Arc::clone(&self.room) as Arc<dyn Kick>
    }

    /// Gives all bytes to the guest, at its pace.
    fn deliver(&self, mut bytes: &[u8]) {
        loop {
            let machine = self.machine.lock().clone();
            let taken = machine.map_or(0, |machine| match self.port {
                InputPort::Serial => machine.console_input(bytes),
                InputPort::VirtioConsole => machine.virtio_console_input(bytes),
            });
            bytes = bytes.get(taken..).unwrap_or_default();
            if bytes.is_empty() {
                return;
            }
            self.room.park(None);
        }
    }
}

/// Chunks of input that may wait for the guest.
const CHUNKS: usize = 1024;

/// Reads standard input on a thread of its own for as long as the process lives; `leave` is called
/// when a person types `Ctrl-]`, and if `at_end` says so when the input ends.
///
/// What was read waits in a queue for the guest, so that `Ctrl-]` works when the guest takes no
/// input. A pipe waits when the queue is full; what a person types then is lost.
pub(crate) fn read_stdin(
    target: InputTarget,
    at_end: OnInputEnd,
    leave: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let key = if stdin_is_terminal() { LeaveKey::Active } else { LeaveKey::Off };
    let (queue, queued) = sync_channel::<Vec<u8>>(CHUNKS);
    let thread = std::thread::Builder::new().name("input to guest".to_owned());
    thread.spawn(move || queued.iter().for_each(|bytes| target.deliver(&bytes)))?;
    std::thread::Builder::new().name("input".to_owned()).spawn(move || {
        let end = read(key, &queue);
        if end == InputEnd::Left || at_end == OnInputEnd::End {
            leave();
        }
    })?;
    Ok(())
}

/// Why there is no more input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InputEnd {
    /// The person typed the key that leaves.
    Left,
    Closed,
}

/// The reader's life.
fn read(key: LeaveKey, queue: &SyncSender<Vec<u8>>) -> InputEnd {
    let mut stdin = io::stdin().lock();
    let mut buffer = [0; 4096];
    loop {
        let len = match stdin.read(&mut buffer) {
            Ok(len @ 1..) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => return InputEnd::Closed,
        };
        let typed = key.split(buffer.get(..len).unwrap_or_default());
        let (Typed::Guest(bytes) | Typed::Leave(bytes)) = typed;
        let taken = match key {
            LeaveKey::Off => queue.send(bytes.to_owned()).is_ok(),
            LeaveKey::Active => {
                !matches!(queue.try_send(bytes.to_owned()), Err(TrySendError::Disconnected(_)))
            }
        };
        if matches!(typed, Typed::Leave(_)) {
            return InputEnd::Left;
        }
        if !taken {
            return InputEnd::Closed;
        }
    }
}
