//! Talking with a guest's shell over its serial console, which is the program's standard input and
//! output. Nothing here looks at a clock: a guest that hangs is ended by the program's `--timeout`,
//! and then the console is at its end.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::Kasane;

/// A guest that runs, and what it said. It is killed when this is dropped.
pub struct Dialogue {
    child: Child,
    input: Box<dyn Write + Send>,
    output: Box<dyn Read + Send>,
    /// All that the guest said, without carriage returns.
    said: String,
    /// What of it was not looked at yet begins here.
    seen: usize,
}

/// How a command in the guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Exit status; 0 is success.
    pub status: i32,
    /// What it printed, both streams.
    pub output: String,
}

impl Dialogue {
    /// Starts the program with these arguments.
    ///
    /// # Errors
    /// A sentence, if the program is not there or can't be started.
    pub fn start<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Result<Self, String> {
        let failed = |error| format!("kasane did not start: {error}");
        Self::of(Kasane::find()?.start_to_talk(arguments).map_err(failed)?)
    }

    /// Starts any other program whose standard input and output are a guest's console.
    ///
    /// # Errors
    /// A sentence, if it can't be started.
    pub fn with(command: &mut Command) -> Result<Self, String> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        Self::of(child.map_err(|error| {
            format!("{} did not start: {error}", command.get_program().display())
        })?)
    }

    fn of(mut child: Child) -> Result<Self, String> {
        match (child.stdin.take(), child.stdout.take()) {
            (Some(input), Some(output)) => Ok(Self::over(child, input, output)),
            (_, _) => Err("the program's input and output are no pipes".to_owned()),
        }
    }

    /// A program whose guest's console is somewhere else.
    pub(crate) fn over(
        child: Child,
        input: impl Write + Send + 'static,
        output: impl Read + Send + 'static,
    ) -> Self {
        let (input, output) = (Box::new(input), Box::new(output));
        Self { child, input, output, said: String::new(), seen: 0 }
    }

    /// The program's process.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Reads until the guest says `wanted`, and gives what it said before.
    ///
    /// # Errors
    /// All that it said, if it never does.
    pub fn expect(&mut self, wanted: &str) -> Result<String, String> {
        let mut bytes = [0; 4096];
        loop {
            let unseen = self.said.get(self.seen..).unwrap_or_default();
            if let Some((before, _)) = unseen.split_once(wanted) {
                self.seen += before.len() + wanted.len();
                return Ok(before.to_owned());
            }
            match self.output.read(&mut bytes) {
                Ok(len @ 1..) => {
                    let text = String::from_utf8_lossy(bytes.get(..len).unwrap_or_default());
                    self.said.push_str(&text.replace('\r', ""));
                }
                Ok(0) | Err(_) => {
                    return Err(format!("the guest never said `{wanted}`:\n{}", self.said));
                }
            }
        }
    }

    /// Has the guest's shell run a command line, and waits for its end.
    ///
    /// # Errors
    /// All that the guest said, if the command doesn't end.
    pub fn run(&mut self, command: &str) -> Result<Answer, String> {
        // Broken by quotes, so that the echo of what is typed isn't taken for an answer.
        self.type_line(&format!("echo be''gins; {{ {command}; }} 2>&1; echo en''ds=$?=en''ds"))?;
        self.expect("begins\n")?;
        let output = self.expect("ends=")?;
        let status = self.expect("=ends\n")?;
        let status = status.parse().map_err(|_| format!("`{command}` ended with `{status}`"))?;
        Ok(Answer { status, output })
    }

    /// The same for a command that must not fail; gives what it printed.
    ///
    /// # Errors
    /// What it said, if it fails.
    pub fn succeed(&mut self, command: &str) -> Result<String, String> {
        match self.run(command)? {
            Answer { status: 0, output } => Ok(output),
            Answer { status, output } => {
                Err(format!("`{command}` ended with {status} in the guest:\n{output}"))
            }
        }
    }

    /// Types a line and waits for the program's end; gives how it ended and all that was said.
    ///
    /// # Errors
    /// If the program can't be waited for.
    pub fn leave_by(mut self, command: &str) -> Result<(ExitStatus, String), String> {
        self.type_line(command)?;
        self.rest()
    }

    /// Waits for the program's end; gives how it ended and all that was said.
    ///
    /// # Errors
    /// If the program can't be waited for.
    pub fn rest(&mut self) -> Result<(ExitStatus, String), String> {
        let mut rest = Vec::new();
        let _read = self.output.read_to_end(&mut rest);
        let mut said = std::mem::take(&mut self.said);
        said.push_str(&String::from_utf8_lossy(&rest).replace('\r', ""));
        let status = self.child.wait().map_err(|error| format!("no end: {error}"))?;
        Ok((status, said))
    }

    /// Types bytes as they are.
    ///
    /// # Errors
    /// If the program takes nothing any more.
    pub fn type_bytes(&mut self, bytes: &[u8]) -> Result<(), String> {
        let written = self.input.write_all(bytes).and_then(|()| self.input.flush());
        written.map_err(|error| format!("could not be typed: {error}\n{}", self.said))
    }

    fn type_line(&mut self, line: &str) -> Result<(), String> {
        writeln!(self.input, "{line}")
            .and_then(|()| self.input.flush())
            .map_err(|error| format!("`{line}` could not be typed: {error}\n{}", self.said))
    }
}

impl std::fmt::Debug for Dialogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialogue").field("process", &self.child.id()).finish_non_exhaustive()
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _waited_already = self.child.wait();
    }
}
