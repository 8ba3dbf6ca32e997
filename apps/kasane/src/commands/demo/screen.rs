//! The demonstration in a terminal: two machines side by side.

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use anyhow::Context;
use kasane_host_images::TerminalSize;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event};
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, BorderType, Paragraph};

use super::child::Child;
use super::keys::{Key, meaning};
use crate::outcome::{ExitStatus, Failure};

/// Longest wait for a key before the machines' output is looked at.
const LOOK: Duration = Duration::from_millis(25);
const HELP: &str = " Tab: the other machine    Ctrl-]: leave ";

/// One machine's half of the screen.
struct Pane {
    child: Child,
    terminal: vt100::Parser,
    ended: Option<i32>,
}

/// The size of a machine's console: half of the terminal, less borders and the line of help.
pub(super) fn pane_size() -> Result<TerminalSize, Failure> {
    let (columns, rows) = ratatui::crossterm::terminal::size()
        .context("can't ask the terminal for its size")
        .map_err(|error| {
            Failure::host(error, "send the output into a pipe: `kasane demo | cat`")
        })?;
    Ok(TerminalSize {
        rows: rows.saturating_sub(3).max(1),
        columns: (columns / 2).saturating_sub(2).max(1),
    })
}

/// Shows the machines until both have ended, or the person leaves.
pub(super) fn show(
    children: Vec<Child>,
    size: TerminalSize,
    deadline: Option<Instant>,
) -> Result<ExitStatus, Failure> {
    let mut panes: Vec<Pane> = children
        .into_iter()
        .map(|child| Pane {
            child,
            terminal: vt100::Parser::new(at_least_one(size.rows), at_least_one(size.columns), 0),
            ended: None,
        })
        .collect();
    // `ratatui::init` restores the terminal on a panic, too.
    let mut terminal =
        ratatui::try_init().context("can't put the terminal into raw mode").map_err(|error| {
            Failure::host(error, "send the output into a pipe: `kasane demo | cat`")
        })?;
    let outcome = interact(&mut terminal, &mut panes, deadline);
    ratatui::restore();
    outcome
        .context("the terminal failed")
        .map_err(|error| Failure::host(error, "send the output into a pipe: `kasane demo | cat`"))
}

fn at_least_one(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap_or(NonZeroU16::MIN)
}

fn interact(
    terminal: &mut ratatui::DefaultTerminal,
    panes: &mut [Pane],
    deadline: Option<Instant>,
) -> std::io::Result<ExitStatus> {
    let mut focus = 0;
    let mut changed = true;
    loop {
        for pane in panes.iter_mut() {
            changed |= pane.listen();
        }
        if changed {
            terminal.draw(|frame| draw(frame, panes, focus))?;
            changed = false;
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(ExitStatus::TimedOut);
        }
        if !event::poll(LOOK)? {
            continue;
        }
        changed = true;
        let Event::Key(key) = event::read()? else { continue };
        match meaning(&key) {
            Key::Leave => return Ok(ExitStatus::Done),
            Key::Switch => focus = (focus + 1) % panes.len().max(1),
            Key::Bytes(bytes) => {
                if let Some(pane) = panes.get(focus) {
                    pane.child.type_in(&bytes);
                }
            }
            Key::Nothing => {}
        }
    }
}

impl Pane {
    /// Takes what the machine said. True if anything changed.
    fn listen(&mut self) -> bool {
        let mut changed = false;
        for bytes in self.child.output.try_iter() {
            self.terminal.process(&bytes);
            changed = true;
        }
        if self.ended.is_none() {
            self.ended = self.child.status();
            changed |= self.ended.is_some();
        }
        changed
    }

    fn title(&self) -> String {
        match self.ended {
            None => format!(" {} ", self.child.name),
            Some(0) => format!(" {}: powered off ", self.child.name),
            Some(status) => format!(" {}: ended with exit status {status} ", self.child.name),
        }
    }
}

fn draw(frame: &mut Frame<'_>, panes: &[Pane], focus: usize) {
    let [machines, help] =
        Layout::vertical([Constraint::Min(1), Constraint::Length(1)]).areas(frame.area());
    let halves: [Rect; 2] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(machines);
    for (at, (pane, area)) in panes.iter().zip(halves).enumerate() {
        draw_pane(frame, pane, area, at == focus);
    }
    let style = Style::new().add_modifier(Modifier::REVERSED);
    frame.render_widget(Paragraph::new(Line::styled(HELP, style)), help);
}

fn draw_pane(frame: &mut Frame<'_>, pane: &Pane, area: Rect, focused: bool) {
    let block = if focused {
        let style = Style::new().fg(Color::Cyan).add_modifier(Modifier::BOLD);
        Block::bordered().border_type(BorderType::Thick).border_style(style)
    } else {
        Block::bordered()
    };
    let block = block.title(pane.title());
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let screen = pane.terminal.screen();
    let buffer = frame.buffer_mut();
    for row in 0..inner.height {
        for column in 0..inner.width {
            let place = Position::new(inner.x + column, inner.y + row);
            let (Some(from), Some(to)) = (screen.cell(row, column), buffer.cell_mut(place)) else {
                continue;
            };
            if from.has_contents() {
                to.set_symbol(from.contents());
            }
            to.set_style(style_of(from));
        }
    }
    let (row, column) = screen.cursor_position();
    if focused && !screen.hide_cursor() && row < inner.height && column < inner.width {
        frame.set_cursor_position(Position::new(inner.x + column, inner.y + row));
    }
}

fn style_of(cell: &vt100::Cell) -> Style {
    let mut style = Style::new().fg(color_of(cell.fgcolor())).bg(color_of(cell.bgcolor()));
    let modifiers = [
        (cell.bold(), Modifier::BOLD),
        (cell.italic(), Modifier::ITALIC),
        (cell.underline(), Modifier::UNDERLINED),
        (cell.inverse(), Modifier::REVERSED),
    ];
    for (set, modifier) in modifiers {
        if set {
            style = style.add_modifier(modifier);
        }
    }
    style
}

fn color_of(color: vt100::Color) -> Color {
    match color {
        vt100::Color::Default => Color::Reset,
        vt100::Color::Idx(index) => Color::Indexed(index),
        vt100::Color::Rgb(red, green, blue) => Color::Rgb(red, green, blue),
    }
}
