//! From a key of the terminal to the bytes that a serial console expects.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What a key means here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// The other machine.
    Switch,
    /// The end of the demonstration.
    Leave,
    /// Older lines, by so many half screens; newer ones if negative.
    Scroll(isize),
    /// For the machine.
    Bytes(Vec<u8>),
    /// Nothing.
    Nothing,
}

/// What the page keys send.
pub(super) const PAGE_UP: &[u8] = b"\x1B[5~";
pub(super) const PAGE_DOWN: &[u8] = b"\x1B[6~";

/// What the cursor keys send (DECCKM).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CursorKeys {
    Normal,
    Application,
}

impl From<&vt100::Screen> for CursorKeys {
    fn from(screen: &vt100::Screen) -> Self {
        if screen.application_cursor() { Self::Application } else { Self::Normal }
    }
}

/// The meaning of a key event.
pub(super) fn meaning(event: &KeyEvent, cursor: CursorKeys) -> Key {
    if event.kind == KeyEventKind::Release {
        return Key::Nothing;
    }
    let control = event.modifiers.contains(KeyModifiers::CONTROL);
    let away = event.modifiers.intersects(KeyModifiers::SHIFT | KeyModifiers::ALT);
    match event.code {
        // A terminal sends the same byte for both; crossterm names it after the digit.
        KeyCode::Char(']' | '5') if control => Key::Leave,
        KeyCode::Tab if event.modifiers.contains(KeyModifiers::SHIFT) => Key::Bytes(vec![b'\t']),
        KeyCode::BackTab => Key::Bytes(vec![b'\t']),
        KeyCode::Tab => Key::Switch,
        KeyCode::PageUp if away => Key::Scroll(1),
        KeyCode::PageDown if away => Key::Scroll(-1),
        KeyCode::Char(letter) if control => control_byte(letter),
        KeyCode::Char(letter) => {
            let mut bytes = [0; 4];
            let text = letter.encode_utf8(&mut bytes).as_bytes().to_vec();
            let alt = event.modifiers.contains(KeyModifiers::ALT);
            Key::Bytes(if alt { [b"\x1B", text.as_slice()].concat() } else { text })
        }
        other => sequence(other, cursor)
            .map_or(Key::Nothing, |sequence| Key::Bytes(sequence.as_bytes().to_vec())),
    }
}

/// What a key without a character sends.
fn sequence(key: KeyCode, cursor: CursorKeys) -> Option<&'static str> {
    let application = cursor == CursorKeys::Application;
    Some(match key {
        KeyCode::Enter => "\r",
        KeyCode::Backspace => "\x7F",
        KeyCode::Esc => "\x1B",
        KeyCode::Up if application => "\x1BOA",
        KeyCode::Down if application => "\x1BOB",
        KeyCode::Right if application => "\x1BOC",
        KeyCode::Left if application => "\x1BOD",
        KeyCode::Up => "\x1B[A",
        KeyCode::Down => "\x1B[B",
        KeyCode::Right => "\x1B[C",
        KeyCode::Left => "\x1B[D",
        KeyCode::Home => "\x1B[H",
        KeyCode::End => "\x1B[F",
        KeyCode::Insert => "\x1B[2~",
        KeyCode::Delete => "\x1B[3~",
        KeyCode::PageUp => "\x1B[5~",
        KeyCode::PageDown => "\x1B[6~",
        KeyCode::F(1) => "\x1BOP",
        KeyCode::F(2) => "\x1BOQ",
        KeyCode::F(3) => "\x1BOR",
        KeyCode::F(4) => "\x1BOS",
        _ => return None,
    })
}

fn control_byte(letter: char) -> Key {
    match letter.to_ascii_uppercase() {
        upper @ '@'..='_' => Key::Bytes(vec![upper as u8 & 0x1F]),
        ' ' => Key::Bytes(vec![0]),
        // As terminals have it, and so crossterm: Ctrl with a digit.
        digit @ '4'..='7' => Key::Bytes(vec![digit as u8 - b'4' + 0x1C]),
        _ => Key::Nothing,
    }
}

/// What is pasted, as if typed: lines end by Enter.
pub(super) fn pasted(text: &str) -> Vec<u8> {
    text.replace("\r\n", "\r").replace('\n', "\r").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(code: KeyCode, modifiers: KeyModifiers) -> Key {
        meaning(&KeyEvent::new(code, modifiers), CursorKeys::Normal)
    }

    #[test]
    fn some_keys_are_not_for_the_machine() {
        assert_eq!(key(KeyCode::Tab, KeyModifiers::NONE), Key::Switch);
        assert_eq!(key(KeyCode::Char(']'), KeyModifiers::CONTROL), Key::Leave);
        assert_eq!(key(KeyCode::Char('5'), KeyModifiers::CONTROL), Key::Leave);
        assert_eq!(key(KeyCode::PageUp, KeyModifiers::SHIFT), Key::Scroll(1));
    }

    #[test]
    fn others_become_what_a_terminal_sends() {
        assert_eq!(key(KeyCode::Char('ä'), KeyModifiers::NONE), Key::Bytes("ä".into()));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Key::Bytes(vec![3]));
        assert_eq!(key(KeyCode::Char('7'), KeyModifiers::CONTROL), Key::Bytes(vec![0x1F]));
        assert_eq!(key(KeyCode::Char('b'), KeyModifiers::ALT), Key::Bytes(b"\x1Bb".to_vec()));
        assert_eq!(key(KeyCode::Up, KeyModifiers::NONE), Key::Bytes(b"\x1B[A".to_vec()));
        assert_eq!(key(KeyCode::PageUp, KeyModifiers::NONE), Key::Bytes(b"\x1B[5~".to_vec()));
        assert_eq!(key(KeyCode::BackTab, KeyModifiers::SHIFT), Key::Bytes(b"\t".to_vec()));
    }

    #[test]
    fn a_program_may_ask_for_other_cursor_keys() {
        let up = KeyEvent::new(KeyCode::Up, KeyModifiers::NONE);

        assert_eq!(meaning(&up, CursorKeys::Application), Key::Bytes(b"\x1BOA".to_vec()));
    }

    #[test]
    fn pasted_lines_end_as_typed_ones() {
        assert_eq!(pasted("a\nb\r\nc"), b"a\rb\rc");
    }
}
