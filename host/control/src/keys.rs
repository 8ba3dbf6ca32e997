//! What a person types, with the one key that is not for the guest.

/// `Ctrl-]`.
const LEAVE: u8 = 0x1D;

/// What was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typed<'a> {
    /// For the guest.
    Guest(&'a [u8]),
    /// For the guest, and then the person leaves.
    Leave(&'a [u8]),
}

/// Looks for the key that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveKey {
    /// A person types: `Ctrl-]` leaves.
    Active,
    /// Bytes of a pipe all go to the guest.
    Off,
}

impl LeaveKey {
    /// Splits what was typed.
    #[must_use]
    pub fn split(self, bytes: &[u8]) -> Typed<'_> {
        let found = match self {
            Self::Active => bytes.iter().position(|byte| *byte == LEAVE),
            Self::Off => None,
        };
        match found {
            Some(at) => Typed::Leave(bytes.get(..at).unwrap_or_default()),
            None => Typed::Guest(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_leaves_and_what_was_typed_before_it_arrives() {
        assert_eq!(LeaveKey::Active.split(b"ls\n\x1Dmore"), Typed::Leave(b"ls\n"));
        assert_eq!(LeaveKey::Active.split(b"\x03"), Typed::Guest(b"\x03"));
    }

    #[test]
    fn a_pipe_has_no_such_key() {
        assert_eq!(LeaveKey::Off.split(b"a\x1Db"), Typed::Guest(b"a\x1Db"));
    }
}
