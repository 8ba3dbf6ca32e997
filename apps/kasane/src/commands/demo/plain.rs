//! The demonstration into a pipe: both machines run a few commands, and what they said is printed.

use std::io::Write;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use kasane_host_images::prompt;

use super::child::Child;
use super::ending::Ending;
use super::readable::Readable;
use super::signalled::Signalled;
use crate::outcome::{ExitStatus, Failure};

/// What is typed into each shell.
const COMMANDS: &[u8] = b"uname -a; cat /proc/cpuinfo; poweroff\n";
/// How often a quiet machine is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Both run at the same time; the second's console is printed when the first has ended.
pub(super) fn show(
    children: Vec<Child>,
    deadline: Option<Instant>,
    signalled: &Signalled,
) -> Result<ExitStatus, Failure> {
    let mut consoles: Vec<Console> = children.into_iter().map(Console::new).collect();
    let mut stdout = std::io::stdout().lock();
    let mut failure = None;
    for turn in 0..consoles.len() {
        if let Some(console) = consoles.get(turn) {
            let _closed = writeln!(stdout, "=== machine `{}` ===", console.child.name);
        }
        let mut more = true;
        while more {
            let in_time = deadline.is_none_or(|deadline| Instant::now() < deadline);
            consoles.iter_mut().for_each(Console::listen);
            if let Some(console) = consoles.get_mut(turn) {
                console.print(&mut stdout);
                more = in_time && !console.closed;
            }
            if signalled.by().is_some() {
                return Ok(ExitStatus::Done);
            }
        }
        if let Some(console) = consoles.get_mut(turn) {
            let ended = console.finish(&mut stdout, deadline);
            failure = failure.or(ended.err());
        }
    }
    failure.map_or(Ok(ExitStatus::Done), Err)
}

/// What came from one machine.
struct Console {
    child: Child,
    text: Readable,
    printed: usize,
    typed: bool,
    closed: bool,
    /// Its age when it had said all.
    lived: Duration,
}

impl Console {
    fn new(child: Child) -> Self {
        Self {
            child,
            text: Readable::default(),
            printed: 0,
            typed: false,
            closed: false,
            lived: Duration::ZERO,
        }
    }

    /// Takes what came; types the commands when the shell is there.
    fn listen(&mut self) {
        match self.child.output.recv_timeout(LOOK) {
            Ok(bytes) => self.text.take(&bytes),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.closed = true,
        }
        if !self.closed {
            self.lived = self.child.age();
        }
        for bytes in self.child.output.try_iter() {
            self.text.take(&bytes);
        }
        if !self.typed && contains(self.text.bytes(), prompt(&self.child.name).as_bytes()) {
            self.typed = true;
            self.child.type_in(COMMANDS);
        }
    }

    /// Prints what is new.
    fn print(&mut self, stdout: &mut impl Write) {
        let new = self.text.bytes().get(self.printed..).unwrap_or_default();
        if !new.is_empty() {
            let _closed = stdout.write_all(new).and_then(|()| stdout.flush());
        }
        self.printed = self.text.bytes().len();
    }

    /// Says how the machine ended, after its last line.
    fn finish(
        &mut self,
        stdout: &mut impl Write,
        deadline: Option<Instant>,
    ) -> Result<(), Failure> {
        if self.text.bytes().last().is_some_and(|byte| *byte != b'\n') {
            let _closed = writeln!(stdout);
        }
        let seconds = self.lived.as_secs_f64();
        // A machine that has closed its console is about to end, however late it is.
        let soon = Instant::now().checked_add(Duration::from_secs(5));
        let ending = self.child.wait(if self.closed { deadline.max(soon) } else { deadline });
        let words =
            ending.as_ref().map_or("has not powered off in time", |ending| ending.words.as_str());
        let name = self.child.name.clone();
        let _closed =
            writeln!(stdout, "=== `{name}` {words}, {seconds:.1} s after its start ===\n");
        match ending.as_ref().map(|ending| Ending::failure(ending, &name)) {
            None => Err(timed_out(&name)),
            Some(failure) => failure.map_or(Ok(()), Err),
        }
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

fn timed_out(name: &str) -> Failure {
    Failure::timed_out(
        anyhow::anyhow!("the machine `{name}` has not powered off in time"),
        "give it more with `--timeout SECONDS`",
    )
}
