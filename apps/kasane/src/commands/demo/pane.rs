//! One machine's part of the screen: its terminal, and what is known of it.

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use kasane_host_images::{TerminalSize, prompt};

use super::child::Child;
use super::ending::Ending;
use super::load::Load;

/// Lines that scrolled away and can be looked at.
const SCROLLBACK: usize = 5000;
/// Bytes that are taken at a time, so that a machine that talks fast doesn't keep the keys waiting.
const BYTES_AT_A_TIME: usize = 256 << 10;
/// A window's size has to rest for so long before the machine is told.
const SETTLED: Duration = Duration::from_millis(250);

/// A machine and the terminal that shows it.
pub(super) struct Pane {
    pub(super) child: Child,
    terminal: vt100::Parser<Answers>,
    pub(super) ended: Option<Ending>,
    /// How long it lived, once it has ended.
    lived: Duration,
    load: Load,
    size: TerminalSize,
    /// The machine has said something.
    heard: bool,
    /// The machine was not told of `size` yet, and since when.
    untold: Option<Instant>,
}

impl Pane {
    pub(super) fn new(child: Child, size: TerminalSize) -> Self {
        let (rows, columns) = (at_least_one(size.rows), at_least_one(size.columns));
        let answers = Answers::default();
        let load = Load::of(child.id());
        Self {
            child,
            terminal: vt100::Parser::new_with_callbacks(rows, columns, SCROLLBACK, answers),
            ended: None,
            lived: Duration::ZERO,
            load,
            size,
            heard: false,
            untold: None,
        }
    }

    /// What is on the screen.
    pub(super) fn screen(&self) -> &vt100::Screen {
        self.terminal.screen()
    }

    /// Takes what the machine said. True if anything changed.
    pub(super) fn listen(&mut self) -> bool {
        let mut taken = 0;
        while taken < BYTES_AT_A_TIME
            && let Ok(bytes) = self.child.output.try_recv()
        {
            self.terminal.process(&bytes);
            taken += bytes.len();
        }
        let answers = std::mem::take(&mut self.terminal.callbacks_mut().0);
        if !answers.is_empty() {
            self.child.type_in(&answers);
        }
        let mut changed = taken > 0;
        self.heard |= changed;
        if self.ended.is_none() {
            self.ended = self.child.ending();
            self.lived = self.child.age();
            changed |= self.ended.is_some() | self.load.look();
            self.tell_size();
        }
        changed
    }

    /// Whether the machine has not said a word yet.
    pub(super) fn is_silent(&self) -> bool {
        !self.heard
    }

    /// Types into the machine. One that has ended takes nothing.
    pub(super) fn type_in(&mut self, bytes: &[u8]) {
        self.terminal.screen_mut().set_scrollback(0);
        self.child.type_in(bytes);
    }

    /// Shows older lines, or newer ones if negative: by so many half screens.
    pub(super) fn scroll(&mut self, half_screens: isize) {
        let step = isize::try_from(self.size.rows / 2).unwrap_or(1).max(1);
        let at = self.screen().scrollback().saturating_add_signed(step * half_screens);
        self.terminal.screen_mut().set_scrollback(at);
    }

    /// Gives the terminal another size.
    pub(super) fn resize(&mut self, size: TerminalSize) {
        if size != self.size {
            self.size = size;
            self.terminal.set_size(at_least_one(size.rows), at_least_one(size.columns));
            self.untold = Some(Instant::now());
        }
    }

    /// A serial line has no way to tell a size, so it is typed, as a person would: when the shell
    /// waits at an empty line. The line that was typed is wiped away again.
    fn tell_size(&mut self) {
        if self.untold.is_none_or(|since| since.elapsed() < SETTLED) || !self.at_empty_prompt() {
            return;
        }
        self.untold = None;
        let TerminalSize { rows, columns } = self.size;
        let command = format!(" stty rows {rows} columns {columns}; printf '\\33[A\\33[2K'\n");
        self.child.type_in(command.as_bytes());
    }

    fn at_empty_prompt(&self) -> bool {
        let screen = self.screen();
        let (row, column) = screen.cursor_position();
        let line = screen.rows(0, self.size.columns).nth(usize::from(row)).unwrap_or_default();
        let prompt = prompt(&self.child.name);
        line.trim_end() == prompt.trim_end() && usize::from(column) == prompt.len()
    }

    /// State in a few words.
    pub(super) fn state(&self) -> String {
        let clock = clock(self.lived);
        let words = match &self.ended {
            Some(ending) => format!("{} after {clock}", ending.words),
            None => match self.load.percent() {
                Some(percent) => format!("running {clock}  CPU {percent} %"),
                None => format!("running {clock}"),
            },
        };
        match self.screen().scrollback() {
            0 => words,
            lines => format!("{lines} lines back  {words}"),
        }
    }

    /// The last words about it, when the demonstration is over.
    pub(super) fn epitaph(&self) -> String {
        let words = self.ended.as_ref().map_or("was still running", |ending| &ending.words);
        format!("kasane: `{}` {words} after {}", self.child.name, clock(self.lived))
    }
}

fn at_least_one(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap_or(NonZeroU16::MIN)
}

/// Minutes and seconds.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// What the terminal answers to a machine's questions.
#[derive(Default)]
struct Answers(Vec<u8>);

impl vt100::Callbacks for Answers {
    fn unhandled_csi(
        &mut self,
        screen: &mut vt100::Screen,
        first: Option<u8>,
        _second: Option<u8>,
        parameters: &[&[u16]],
        letter: char,
    ) {
        let parameter = parameters.first().and_then(|one| one.first()).copied().unwrap_or(0);
        let answer = match (first, letter, parameter) {
            // DSR: where the cursor is; that all is well.
            (None, 'n', 6) => {
                let (row, column) = screen.cursor_position();
                format!("\x1B[{};{}R", u32::from(row) + 1, u32::from(column) + 1)
            }
            (None, 'n', 5) => "\x1B[0n".to_owned(),
            // DA: a VT102.
            (None, 'c', 0) => "\x1B[?6c".to_owned(),
            _ => return,
        };
        self.0.extend(answer.into_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_of_a_machine_are_answered() {
        let two = at_least_one(20);
        let mut terminal = vt100::Parser::new_with_callbacks(two, two, 0, Answers::default());
        terminal.process(b"\x1B[3;4H\x1B[6n\x1B[5n\x1B[c\x1B[?25h");

        assert_eq!(terminal.callbacks().0, b"\x1B[3;4R\x1B[0n\x1B[?6c");
    }

    #[test]
    fn a_clock_has_minutes_and_seconds() {
        assert_eq!(clock(Duration::from_secs(7)), "0:07");
        assert_eq!(clock(Duration::from_secs(3725)), "62:05");
    }
}
