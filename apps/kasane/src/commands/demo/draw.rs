//! How the demonstration looks: two framed terminals and a line of keys.

use kasane_host_images::TerminalSize;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Paragraph};

use super::pane::Pane;
use crate::outcome::ExitStatus;

/// Narrower windows have the machines one above the other.
const SIDE_BY_SIDE_COLUMNS: u16 = 120;
const FOCUS: Color = Color::Cyan;
const QUIET: Color = Color::DarkGray;

/// Until the machine's first word.
const STARTING: &str = "the kernel unpacks itself and starts:\nits first words take some seconds";

/// Keys and what they do, the most important first: what doesn't fit is left out.
const KEYS: [(&str, &str); 4] = [
    ("Tab", "other machine"),
    ("Ctrl-]", "leave"),
    ("Shift-PgUp", "older lines"),
    ("Shift-Tab", "a Tab for the machine"),
];

/// Where the machines and the line of keys are.
fn areas(window: Rect) -> ([Rect; 2], Rect) {
    let [machines, keys] =
        Layout::vertical([Constraint::Min(1), Constraint::Length(1)]).areas(window);
    let halves = [Constraint::Fill(1), Constraint::Fill(1)];
    let areas = if machines.width >= SIDE_BY_SIDE_COLUMNS {
        Layout::horizontal(halves).areas(machines)
    } else {
        Layout::vertical(halves).areas(machines)
    };
    (areas, keys)
}

/// The sizes of the machines' terminals in a window of this size: what is within the frames.
pub(super) fn terminal_sizes(columns: u16, rows: u16) -> [TerminalSize; 2] {
    let (areas, _) = areas(Rect::new(0, 0, columns, rows));
    areas.map(|area| TerminalSize {
        rows: area.height.saturating_sub(2).max(1),
        columns: area.width.saturating_sub(2).max(1),
    })
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, panes: &[Pane], focus: usize) {
    let (areas, keys) = areas(frame.area());
    for (at, (pane, area)) in panes.iter().zip(areas).enumerate() {
        draw_pane(frame, pane, area, at == focus);
    }
    let over = panes.iter().all(|pane| pane.ended.is_some());
    frame.render_widget(Paragraph::new(key_line(keys.width, over)), keys);
}

fn key_line(width: u16, over: bool) -> Line<'static> {
    let mut spans = Vec::new();
    let mut used = 0;
    let over = over.then_some(("q", "both machines have ended: leave"));
    for (key, meaning) in over.into_iter().chain(KEYS) {
        used += key.len() + meaning.len() + 5;
        if used > usize::from(width) {
            break;
        }
        let style = Style::new().fg(FOCUS).add_modifier(Modifier::BOLD | Modifier::REVERSED);
        spans.push(Span::styled(format!(" {key} "), style));
        spans.push(Span::raw(format!(" {meaning}  ")));
    }
    Line::from(spans)
}

fn draw_pane(frame: &mut Frame<'_>, pane: &Pane, area: Rect, focused: bool) {
    let (border, kind) = if focused {
        (Style::new().fg(FOCUS).add_modifier(Modifier::BOLD), BorderType::Thick)
    } else {
        (Style::new().fg(QUIET), BorderType::Rounded)
    };
    let name = if focused { border.add_modifier(Modifier::REVERSED) } else { Style::new() };
    let state = Line::from(vec![
        Span::styled(" ● ", Style::new().fg(lamp(pane))),
        Span::styled(format!("{} ", pane.state()), Style::new()),
    ]);
    let block = Block::bordered()
        .border_type(kind)
        .border_style(border)
        .title(Span::styled(format!(" {} ", pane.child.name), name))
        .title(state.alignment(Alignment::Right));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    draw_screen(frame, pane.screen(), inner, focused && pane.ended.is_none());
    if pane.is_silent() && pane.ended.is_none() {
        let [_, middle, _] =
            Layout::vertical([Constraint::Fill(1), Constraint::Length(2), Constraint::Fill(1)])
                .areas(inner);
        let text = Paragraph::new(STARTING).style(Style::new().fg(QUIET));
        frame.render_widget(text.alignment(Alignment::Center), middle);
    }
}

/// A machine's state as a color.
fn lamp(pane: &Pane) -> Color {
    match pane.ended.as_ref().map(|ending| ending.status) {
        None => Color::Green,
        Some(ExitStatus::Done) => QUIET,
        Some(_) => Color::Red,
    }
}

fn draw_screen(frame: &mut Frame<'_>, screen: &vt100::Screen, inner: Rect, cursor: bool) {
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
    let shown = cursor && !screen.hide_cursor() && screen.scrollback() == 0;
    if shown && row < inner.height {
        // After the last column the cursor stands on it.
        let column = column.min(inner.width.saturating_sub(1));
        frame.set_cursor_position(Position::new(inner.x + column, inner.y + row));
    }
}

fn style_of(cell: &vt100::Cell) -> Style {
    let mut style = Style::new().fg(color_of(cell.fgcolor())).bg(color_of(cell.bgcolor()));
    let modifiers = [
        (cell.bold(), Modifier::BOLD),
        (cell.dim(), Modifier::DIM),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_window_has_the_machines_side_by_side_and_a_narrow_one_stacked() {
        let [wide, _] = terminal_sizes(160, 48);
        let [upper, lower] = terminal_sizes(80, 24);

        assert_eq!(wide, TerminalSize { rows: 45, columns: 78 });
        assert_eq!(upper.columns, 78);
        assert_eq!(upper.rows + lower.rows + 5, 24);
    }

    #[test]
    fn the_smallest_window_has_terminals_too() {
        let [one, other] = terminal_sizes(1, 1);

        assert_eq!((one.rows, one.columns), (1, 1));
        assert_eq!((other.rows, other.columns), (1, 1));
    }

    #[test]
    fn keys_that_do_not_fit_are_left_out() {
        assert_eq!(key_line(22, false).width(), 21);
        assert!(key_line(160, true).to_string().starts_with(" q  both machines have ended"));
    }
}
