//! The demonstration into a pipe: both machines run a few commands, and what they said is printed.

use std::io::Write;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use kasane_host_images::prompt;

use super::child::Child;
use crate::outcome::{ExitStatus, Failure};

/// What is typed into each shell.
const COMMANDS: &[u8] = b"uname -a; cat /proc/cpuinfo; poweroff\n";
/// How often a quiet machine is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Both run at the same time; the second's console is printed when the first has ended.
pub(super) fn show(
    mut children: Vec<Child>,
    deadline: Option<Instant>,
) -> Result<ExitStatus, Failure> {
    let mut consoles: Vec<Console> = children.iter().map(|_| Console::default()).collect();
    let mut stdout = std::io::stdout().lock();
    for turn in 0..children.len() {
        let name = children.get(turn).map_or("", |child| &child.name);
        let _closed = writeln!(stdout, "=== machine `{name}` ===");
        while consoles.get(turn).is_some_and(|console| !console.ended) {
            for (child, console) in children.iter().zip(&mut consoles) {
                console.listen(child);
            }
            if let Some(console) = consoles.get_mut(turn) {
                console.print(&mut stdout);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(timed_out(name));
            }
        }
        let _closed = writeln!(stdout);
    }
    for child in &mut children {
        match child.wait(deadline) {
            Some((0, _)) => {}
            Some((status, said)) => return Err(failed(&child.name, status, &said)),
            None => return Err(timed_out(&child.name)),
        }
    }
    Ok(ExitStatus::Done)
}

/// What came from one machine.
#[derive(Default)]
struct Console {
    bytes: Vec<u8>,
    printed: usize,
    typed: bool,
    ended: bool,
}

impl Console {
    /// Takes what came; types the commands when the shell is there.
    fn listen(&mut self, child: &Child) {
        match child.output.recv_timeout(LOOK) {
            Ok(bytes) => self.bytes.extend(bytes),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.ended = true,
        }
        self.bytes.extend(child.output.try_iter().flatten());
        let prompt = prompt(&child.name);
        if !self.typed && contains(&self.bytes, prompt.as_bytes()) {
            self.typed = true;
            child.type_in(COMMANDS);
        }
    }

    /// Prints what is new, without the carriage returns that a terminal wants.
    fn print(&mut self, stdout: &mut impl Write) {
        let new = self.bytes.get(self.printed..).unwrap_or_default();
        let text: Vec<u8> = new.iter().copied().filter(|byte| *byte != b'\r').collect();
        let _closed = stdout.write_all(&text).and_then(|()| stdout.flush());
        self.printed = self.bytes.len();
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

fn failed(name: &str, status: i32, said: &str) -> Failure {
    let causes = said.trim().replace('\n', "\n    ");
    Failure::host(
        anyhow::anyhow!("{causes}")
            .context(format!("the machine `{name}` ended with exit status {status}")),
        "run it alone to see more: `kasane run --kernel FILE --initrd FILE`",
    )
}
