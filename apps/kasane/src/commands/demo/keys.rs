//! From a key of the terminal to the bytes that a serial console expects.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What a key means here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// The other machine.
    Switch,
    /// The end of the demonstration.
    Leave,
    /// For the machine.
    Bytes(Vec<u8>),
    /// Nothing.
    Nothing,
}

/// The meaning of a key event.
pub(super) fn meaning(event: &KeyEvent) -> Key {
    if event.kind == KeyEventKind::Release {
        return Key::Nothing;
    }
    let control = event.modifiers.contains(KeyModifiers::CONTROL);
    match event.code {
        // A terminal sends the same byte for both; crossterm names it after the digit.
        KeyCode::Char(']' | '5') if control => Key::Leave,
        KeyCode::Tab => Key::Switch,
        KeyCode::Char(letter) if control => control_byte(letter),
        KeyCode::Char(letter) => {
            let mut bytes = [0; 4];
            let text = letter.encode_utf8(&mut bytes).as_bytes().to_vec();
            let alt = event.modifiers.contains(KeyModifiers::ALT);
            Key::Bytes(if alt { [b"\x1B", text.as_slice()].concat() } else { text })
        }
        KeyCode::Enter => Key::Bytes(b"\r".to_vec()),
        KeyCode::Backspace => Key::Bytes(b"\x7F".to_vec()),
        KeyCode::Esc => Key::Bytes(b"\x1B".to_vec()),
        KeyCode::Up => Key::Bytes(b"\x1B[A".to_vec()),
        KeyCode::Down => Key::Bytes(b"\x1B[B".to_vec()),
        KeyCode::Right => Key::Bytes(b"\x1B[C".to_vec()),
        KeyCode::Left => Key::Bytes(b"\x1B[D".to_vec()),
        KeyCode::Home => Key::Bytes(b"\x1B[H".to_vec()),
        KeyCode::End => Key::Bytes(b"\x1B[F".to_vec()),
        KeyCode::Delete => Key::Bytes(b"\x1B[3~".to_vec()),
        KeyCode::PageUp => Key::Bytes(b"\x1B[5~".to_vec()),
        KeyCode::PageDown => Key::Bytes(b"\x1B[6~".to_vec()),
        _ => Key::Nothing,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn key(code: KeyCode, modifiers: KeyModifiers) -> Key {
        meaning(&KeyEvent::new(code, modifiers))
    }

    #[test]
    fn two_keys_are_not_for_the_machine() {
        assert_eq!(key(KeyCode::Tab, KeyModifiers::NONE), Key::Switch);
        assert_eq!(key(KeyCode::Char(']'), KeyModifiers::CONTROL), Key::Leave);
        assert_eq!(key(KeyCode::Char('5'), KeyModifiers::CONTROL), Key::Leave);
    }

    #[test]
    fn others_become_what_a_terminal_sends() {
        assert_eq!(key(KeyCode::Char('ä'), KeyModifiers::NONE), Key::Bytes("ä".into()));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Key::Bytes(vec![3]));
        assert_eq!(key(KeyCode::Char('7'), KeyModifiers::CONTROL), Key::Bytes(vec![0x1F]));
        assert_eq!(key(KeyCode::Char('b'), KeyModifiers::ALT), Key::Bytes(b"\x1Bb".to_vec()));
        assert_eq!(key(KeyCode::Up, KeyModifiers::NONE), Key::Bytes(b"\x1B[A".to_vec()));
    }
}
