//! The first serial port's way to the outside and back.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kasane_host_control::{LeaveKey, QueuedConsole, Typed, stdin_is_terminal};
use kasane_host_runtime::Parker;
use kasane_ports::{Console, Kick};
use parking_lot::Mutex;

use crate::outcome::Failure;
use crate::settings::SerialTarget;
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

/// The machine that input goes to: another one after each reset.
#[derive(Clone, Default)]
pub(crate) struct InputTarget {
    machine: Arc<Mutex<Option<Arc<HostedMachine>>>>,
    /// Where the input's thread waits for room in the serial port, or for another machine.
    room: Arc<Parker>,
}

impl InputTarget {
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
            let taken = machine.map_or(0, |machine| machine.console_input(bytes));
            bytes = bytes.get(taken..).unwrap_or_default();
            if bytes.is_empty() {
                return;
            }
            self.room.park(None);
        }
    }
}

/// Reads standard input on a thread of its own for as long as the process lives; `leave` is called
/// when a person types `Ctrl-]`. The end of a pipe leaves the guest running.
pub(crate) fn read_stdin(
    target: InputTarget,
    leave: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let key = if stdin_is_terminal() { LeaveKey::Active } else { LeaveKey::Off };
    std::thread::Builder::new().name("input".to_owned()).spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = [0; 4096];
        loop {
            let len = match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            match key.split(buffer.get(..len).unwrap_or_default()) {
                Typed::Guest(bytes) => target.deliver(bytes),
                Typed::Leave(_) => {
                    leave();
                    return;
                }
            }
        }
    })?;
    Ok(())
}
