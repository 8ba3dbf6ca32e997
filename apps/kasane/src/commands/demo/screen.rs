//! The demonstration in a terminal: two machines that a person types into.

use std::io::stdout;
use std::time::{Duration, Instant};

use anyhow::Context;
use kasane_host_control::{Typing, await_typing};
use kasane_host_images::TerminalSize;
use ratatui::crossterm::event::{
    self, DisableBracketedPaste, EnableBracketedPaste, Event, KeyEvent,
};
use ratatui::crossterm::{execute, terminal};

use super::child::Child;
use super::draw::{draw, terminal_sizes};
use super::keys::{CursorKeys, Key, PAGE_DOWN, PAGE_UP, meaning, pasted};
use super::pane::Pane;
use super::signalled::Signalled;
use crate::outcome::{ExitStatus, Failure};

/// Longest wait for a key before the machines' output is looked at.
const LOOK: Duration = Duration::from_millis(25);
const HELP: &str = "send the output into a pipe: `kasane demo | cat`";

/// The sizes of the machines' consoles in this terminal.
pub(super) fn sizes() -> Result<[TerminalSize; 2], Failure> {
    let (columns, rows) = terminal::size()
        .context("can't ask the terminal for its size")
        .map_err(|error| Failure::host(error, HELP))?;
    Ok(terminal_sizes(columns, rows))
}

/// Shows the machines until the person leaves.
pub(super) fn show(
    children: Vec<Child>,
    sizes: [TerminalSize; 2],
    deadline: Option<Instant>,
    signalled: &Signalled,
) -> Result<ExitStatus, Failure> {
    let panes = children.into_iter().zip(sizes).map(|(child, size)| Pane::new(child, size));
    let mut screen = Screen { panes: panes.collect(), focus: 0, deadline, size: None };
    signalled.watch_terminal()?;
    // `ratatui::init` restores the terminal on a panic, too.
    let mut terminal = ratatui::try_init()
        .context("can't put the terminal into raw mode")
        .map_err(|error| Failure::host(error, HELP))?;
    // Without it what is pasted comes as keys.
    let _unknown_there = execute!(stdout(), EnableBracketedPaste);
    let outcome = screen.interact(&mut terminal, signalled);
    if matches!(await_typing(Duration::ZERO), Ok(Typing::Gone)) {
        signalled.hang_up();
        // There is nothing to restore. Dropped, it would say that on the same terminal and panic.
        std::mem::forget(terminal);
    } else {
        let _unknown_there = execute!(stdout(), DisableBracketedPaste);
        ratatui::restore();
    }
    let outcome =
        outcome.context("the terminal failed").map_err(|error| Failure::host(error, HELP));
    if signalled.by().is_none() {
        screen.panes.iter().for_each(|pane| eprintln!("{}", pane.epitaph()));
    }
    match outcome? {
        Leave::Person => screen.verdict(),
        Leave::TimeIsUp => Err(Failure::timed_out(
            anyhow::anyhow!("the time is up"),
            "give it more with `--timeout SECONDS`",
        )),
    }
}

/// Why the demonstration is over.
enum Leave {
    /// By a key or a signal.
    Person,
    TimeIsUp,
}

struct Screen {
    panes: Vec<Pane>,
    focus: usize,
    deadline: Option<Instant>,
    /// The terminal's, in columns and rows, when it was last asked for.
    size: Option<(u16, u16)>,
}

impl Screen {
    fn interact(
        &mut self,
        terminal: &mut ratatui::DefaultTerminal,
        signalled: &Signalled,
    ) -> std::io::Result<Leave> {
        let mut changed = true;
        loop {
            for pane in &mut self.panes {
                changed |= pane.listen();
            }
            if changed {
                terminal.draw(|frame| draw(frame, &self.panes, self.focus))?;
                changed = false;
            }
            if signalled.by().is_some() {
                return Ok(Leave::Person);
            }
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(Leave::TimeIsUp);
            }
            match await_typing(LOOK)? {
                Typing::Gone => {
                    signalled.hang_up();
                    return Ok(Leave::Person);
                }
                Typing::Nothing => {}
                Typing::Some => {
                    // All keys that are there, then one look at the machines.
                    let mut taken = false;
                    while event::poll(Duration::ZERO)? {
                        taken = true;
                        if self.take(event::read()?) == Flow::Leave {
                            return Ok(Leave::Person);
                        }
                    }
                    changed |= taken;
                    if !taken {
                        // Bytes that are no key yet: not to be asked for again at once.
                        std::thread::sleep(LOOK);
                    }
                }
            }
            changed |= self.follow_size();
        }
    }

    /// Follows the terminal's size. True if it changed. It is asked for, because its event comes
    /// the same way as keys, which are asked for only when there are some. Where it can't be asked
    /// for (on Windows), there is the event.
    fn follow_size(&mut self) -> bool {
        let Ok(window) = terminal::window_size() else { return false };
        let size = (window.columns, window.rows);
        if self.size == Some(size) {
            return false;
        }
        self.size = Some(size);
        self.resize(size);
        true
    }

    fn resize(&mut self, (columns, rows): (u16, u16)) {
        for (pane, size) in self.panes.iter_mut().zip(terminal_sizes(columns, rows)) {
            pane.resize(size);
        }
    }

    fn take(&mut self, event: Event) -> Flow {
        match event {
            Event::Key(key) => return self.press(&key),
            Event::Paste(text) => {
                if let Some(pane) = self.panes.get_mut(self.focus) {
                    pane.type_in(&pasted(&text));
                }
            }
            Event::Resize(columns, rows) => self.resize((columns, rows)),
            Event::FocusGained | Event::FocusLost | Event::Mouse(_) => {}
        }
        Flow::GoOn
    }

    fn press(&mut self, key: &KeyEvent) -> Flow {
        let over = self.panes.iter().all(|pane| pane.ended.is_some());
        let next = (self.focus + 1) % self.panes.len().max(1);
        let Some(pane) = self.panes.get_mut(self.focus) else { return Flow::Leave };
        let cursor = CursorKeys::from(pane.screen());
        match meaning(key, cursor) {
            Key::Leave => return Flow::Leave,
            Key::Bytes(bytes) if over && bytes == b"q" => return Flow::Leave,
            Key::Switch => self.focus = next,
            Key::Scroll(half_screens) => pane.scroll(half_screens),
            // A machine that has ended doesn't want them.
            Key::Bytes(bytes) if pane.ended.is_some() => pane.scroll(match bytes.as_slice() {
                PAGE_UP => 1,
                PAGE_DOWN => -1,
                _ => 0,
            }),
            Key::Bytes(bytes) => pane.type_in(&bytes),
            Key::Nothing => {}
        }
        Flow::GoOn
    }

    /// The worst end of a machine; one that was still running ended well.
    fn verdict(&self) -> Result<ExitStatus, Failure> {
        let mut ends = self.panes.iter().filter_map(|pane| Some((pane, pane.ended.as_ref()?)));
        match ends.find_map(|(pane, ending)| ending.failure(&pane.child.name)) {
            Some(failure) => Err(failure),
            None => Ok(ExitStatus::Done),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    GoOn,
    Leave,
}
