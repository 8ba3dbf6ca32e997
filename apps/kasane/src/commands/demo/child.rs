//! One machine in a process of its own: this program again, its console on pipes.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use kasane_definition::{CpuCount, MemorySize};

use super::ending::Ending;
use crate::outcome::Failure;

/// How long what a machine said about itself may take after its end.
const PATIENCE: Duration = Duration::from_secs(3);
/// Chunks of output that may wait; then the machine does.
const CHUNKS: usize = 256;

/// What to start.
pub(super) struct Machine<'a> {
    pub(super) name: &'a str,
    pub(super) kernel: &'a Path,
    pub(super) initrd: &'a Path,
    pub(super) append: &'a str,
    pub(super) memory: MemorySize,
    pub(super) cpus: CpuCount,
}

/// A running machine. Dropping it ends its process.
pub(super) struct Child {
    pub(super) name: String,
    process: std::process::Child,
    began: Instant,
    /// What the machine says; the end of the channel is the end of its output.
    pub(super) output: Receiver<Vec<u8>>,
    input: Sender<Vec<u8>>,
    complaints: Receiver<String>,
}

impl Child {
    pub(super) fn start(machine: &Machine<'_>) -> Result<Self, Failure> {
        Self::try_start(machine)
            .with_context(|| format!("can't start the machine `{}`", machine.name))
            .map_err(|error| Failure::host(error, "end other programs and try again"))
    }

    fn try_start(machine: &Machine<'_>) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["run", "--json", "--no-reboot", "--end-with-input"]);
        command.args(["--serial", "stdio", "--name", machine.name]);
        command.arg("--kernel").arg(machine.kernel).arg("--initrd").arg(machine.initrd);
        command.args(["--append", machine.append]);
        command.args(["--memory", &machine.memory.to_string()]);
        command.args(["--cpus", &machine.cpus.get().to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn()?;
        let (said, output) = sync_channel(CHUNKS);
        if let Some(stdout) = process.stdout.take() {
            std::thread::spawn(move || forward(stdout, &said));
        }
        let (typed, input) = channel::<Vec<u8>>();
        if let Some(mut stdin) = process.stdin.take() {
            // A machine that went away takes no more.
            std::thread::spawn(move || {
                let mut chunks = input.into_iter();
                chunks.try_for_each(|bytes| stdin.write_all(&bytes).and_then(|()| stdin.flush()))
            });
        }
        let (complained, complaints) = channel();
        if let Some(mut stderr) = process.stderr.take() {
            std::thread::spawn(move || {
                let mut text = String::new();
                let _cut_off = stderr.read_to_string(&mut text);
                complained.send(text)
            });
        }
        let (name, began) = (machine.name.to_owned(), Instant::now());
        Ok(Self { name, process, began, output, input: typed, complaints })
    }

    /// The process's number.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Since the start.
    pub(super) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Types into the machine.
    pub(super) fn type_in(&self, bytes: &[u8]) {
        let _gone = self.input.send(bytes.to_owned());
    }

    /// How it ended, if the process has ended. To be asked once after that.
    pub(super) fn ending(&mut self) -> Option<Ending> {
        let status = self.process.try_wait().ok().flatten()?;
        let said = self.complaints.recv_timeout(PATIENCE).unwrap_or_default();
        Some(Ending::new(status.code(), &said))
    }

    /// Waits for the process's end.
    pub(super) fn wait(&mut self, deadline: Option<Instant>) -> Option<Ending> {
        loop {
            if let Some(ending) = self.ending() {
                return Some(ending);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// Passes on what comes, until the end.
fn forward(mut stream: impl Read, to: &SyncSender<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        let bytes = buffer.get(..len).unwrap_or_default().to_owned();
        if to.send(bytes).is_err() {
            return;
        }
    }
}
