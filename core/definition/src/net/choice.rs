//! Which network a machine is on.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use crate::hint::hint;

/// The longest name of a LAN, in bytes: it is a part of a Unix socket's path, which is short.
const LAN_NAME_MAX: usize = 32;

/// The longest name of a network interface in bytes (Linux: `IFNAMSIZ` less the final NUL).
const INTERFACE_NAME_MAX: usize = 15;

/// The words that may begin a choice, for hints.
const WORDS: &[&str] = &["nat", "lan:NAME", "tap:INTERFACE", "none"];

/// The network that a machine is on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NetChoice {
    /// The host's network through a user-mode NAT; needs no privilege.
    #[default]
    Nat,
    /// A switch between the machines of one user.
    Lan(LanName),
    /// An interface of the host's kernel, by its name; needs the right to use it.
    Tap(String),
    /// No network card.
    None,
}

/// The name of a LAN: 1 to 32 of `a`-`z`, `0`-`9`, `-`, `_` and `.`, the first a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LanName(String);

impl LanName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LanName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LanName {
    type Err = ParseNetError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let sound = name.len() <= LAN_NAME_MAX
            && name.starts_with(plain)
            && name.chars().all(|c| plain(c) || matches!(c, '-' | '_' | '.'));
        if sound { Ok(Self(name.to_owned())) } else { Err(ParseNetError::LanName(name.to_owned())) }
    }
}

/// A text that is no [`NetChoice`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseNetError {
    /// None of the words.
    Word(String),
    /// Not the name of a LAN.
    LanName(String),
    /// Not the name of an interface.
    Interface(String),
}

impl ParseNetError {
    /// One action that may help.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Word(text) => {
                let word = text.split(':').next().unwrap_or(text);
                hint(word, &["nat", "lan", "tap", "none"])
            }
            Self::LanName(_) | Self::Interface(_) => None,
        }
    }
}

impl fmt::Display for ParseNetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(text) => {
                write!(f, "`{text}` is no network: write ")?;
                for (index, word) in WORDS.iter().enumerate() {
                    let between = match index {
                        0 => "",
                        _ if index + 1 == WORDS.len() => " or ",
                        _ => ", ",
                    };
                    write!(f, "{between}`{word}`")?;
                }
                Ok(())
            }
            Self::LanName(name) => write!(
                f,
                "`{name}` is no name of a LAN: 1 to {LAN_NAME_MAX} of a-z, 0-9, `-`, `_` and `.`, \
                 the first a letter or a digit"
            ),
            Self::Interface(name) => write!(
                f,
                "`{name}` is no name of an interface: 1 to {INTERFACE_NAME_MAX} bytes without \
                 `/`, `:`, `%` and blanks"
            ),
        }
    }
}

impl core::error::Error for ParseNetError {}

impl fmt::Display for NetChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nat => f.write_str("nat"),
            Self::Lan(name) => write!(f, "lan:{name}"),
            Self::Tap(interface) => write!(f, "tap:{interface}"),
            Self::None => f.write_str("none"),
        }
    }
}

impl FromStr for NetChoice {
    type Err = ParseNetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "nat" => Ok(Self::Nat),
            None if text == "none" => Ok(Self::None),
            None if text == "lan" => Err(ParseNetError::LanName(String::new())),
            None if text == "tap" => Err(ParseNetError::Interface(String::new())),
            Some(("lan", name)) => name.parse().map(Self::Lan),
            Some(("tap", name)) => interface(name).map(Self::Tap),
            None | Some(_) => Err(ParseNetError::Word(text.to_owned())),
        }
    }
}

/// What Linux's `dev_valid_name` takes, and no `%`, which would ask the kernel to number it.
fn interface(name: &str) -> Result<String, ParseNetError> {
    let odd = |c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control();
    let sound = (1..=INTERFACE_NAME_MAX).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(odd);
    if sound { Ok(name.to_owned()) } else { Err(ParseNetError::Interface(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn error(text: &str) -> ParseNetError {
        text.parse::<NetChoice>().unwrap_err()
    }

    #[test]
    fn each_choice_is_written_as_it_is_read() {
        for text in ["nat", "lan:lab-1", "tap:tap0", "none"] {
            assert_eq!(text.parse::<NetChoice>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_wrong_word_says_what_can_stand_there() {
        assert_eq!(
            error("net").to_string(),
            "`net` is no network: write `nat`, `lan:NAME`, `tap:INTERFACE` or `none`"
        );
        assert_eq!(error("nta").help().unwrap(), "did you mean `nat`?");
        assert_eq!(error("lna:x").help().unwrap(), "did you mean `lan`?");
    }

    #[test]
    fn names_that_could_leave_their_folder_are_refused() {
        for name in ["", "..", ".hidden", "a/b", "A", "-x", "a b", "\u{e4}", &"a".repeat(33)] {
            assert_eq!(error(&["lan:", name].concat()), ParseNetError::LanName(name.to_owned()));
        }
        for name in ["", ".", "..", "a/b", "a%d", "a b", "a:b", &"a".repeat(16)] {
            assert_eq!(error(&["tap:", name].concat()), ParseNetError::Interface(name.to_owned()));
        }
        assert_eq!(error("lan"), ParseNetError::LanName(String::new()));
    }
}
