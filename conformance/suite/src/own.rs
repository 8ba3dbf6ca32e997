//! Our own guests: running one, and its last line, `guest NAME: N passed, M failed`.

use crate::{Guests, Kasane, Run};

/// A run of one of our own guests.
#[derive(Clone, Copy, Debug)]
pub struct OwnGuest<'a> {
    /// Its folder in `guests/`.
    pub name: &'a str,
    /// Processors.
    pub cpus: u32,
    /// As `--engine` takes it.
    pub engine: &'a str,
    /// Command line.
    pub append: &'a str,
    /// After so many seconds the program gives up.
    pub timeout_s: u32,
}

impl OwnGuest<'_> {
    /// Boots it with 64 MiB and gives what came out.
    ///
    /// # Errors
    /// A sentence, if the program or the guest is not there, or the program can't be started.
    pub fn run(&self) -> Result<Run, String> {
        let image = Guests::find().image(&format!("asm/{}.elf", self.name))?;
        let (cpus, timeout) = (self.cpus.to_string(), self.timeout_s.to_string());
        let arguments = [
            ["--memory", "64M"],
            ["--kernel", &image.display().to_string()],
            ["--cpus", &cpus],
            ["--engine", self.engine],
            ["--append", self.append],
            ["--timeout", &timeout],
        ];
        let arguments = [&["run"], arguments.as_flattened()].concat();
        Kasane::find()?.run(&arguments).map_err(|error| format!("kasane did not start: {error}"))
    }
}

impl Run {
    /// How many cases of the guest `name` passed and failed; nothing if it did not come to its end.
    #[must_use]
    pub fn verdict(&self, name: &str) -> Option<(u32, u32)> {
        let head = format!("guest {name}: ");
        let last = self.console.lines().find_map(|line| line.trim_end().strip_prefix(&head))?;
        let (passed, failed) = last.strip_suffix(" failed")?.split_once(" passed, ")?;
        Some((passed.parse().ok()?, failed.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(console: &str) -> Run {
        Run { code: 0, console: console.to_owned(), messages: String::new() }
    }

    #[test]
    fn the_last_line_is_the_verdict() {
        let run =
            said("ok a\r\nFAIL b: expected 1 got 2 (line 3)\r\nguest it: 1 passed, 1 failed\r\n");

        assert_eq!((run.verdict("it"), run.verdict("other")), (Some((1, 1)), None));
    }

    #[test]
    fn a_guest_that_died_has_no_verdict() {
        assert_eq!(said("ok a\r\nguest it: 1 pass").verdict("it"), None);
    }
}
