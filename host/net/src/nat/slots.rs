//! A table whose entries are named by index and generation, so that a late event or deadline of an
//! entry that is gone never meets its successor.

use mio::Token;

/// What an entry is: a part of its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A TCP flow.
    Tcp,
    /// A UDP socket of the guest's.
    Udp,
    /// A socket for echo requests.
    Echo,
    /// A TCP port of the host that leads into the guest.
    TcpForward,
    /// A UDP port of the host that leads into the guest.
    UdpForward,
}

/// The name of an entry. Its kind comes first in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    pub(crate) kind: Kind,
    index: u32,
    generation: u32,
}

/// Bits of a token for the generation; it wraps, after which a stale event would have to be
/// a hundred million lives of its slot late to do any harm.
const GENERATION_BITS: u32 = 28;

impl Id {
    /// The token under which the host's events come. 0 is none of them.
    pub(crate) fn token(self) -> Token {
        let kind: u64 = match self.kind {
            Kind::Tcp => 1,
            Kind::Udp => 2,
            Kind::Echo => 3,
            Kind::TcpForward => 4,
            Kind::UdpForward => 5,
        };
        let token = kind << 60 | u64::from(self.generation) << 32 | u64::from(self.index);
        Token(token as usize)
    }

    /// The entry of a token.
    pub(crate) fn of(token: Token) -> Option<Self> {
        let token = token.0 as u64;
        let kind = match token >> 60 {
            1 => Kind::Tcp,
            2 => Kind::Udp,
            3 => Kind::Echo,
            4 => Kind::TcpForward,
            5 => Kind::UdpForward,
            _ => return None,
        };
        let generation = (token >> 32) as u32 & ((1 << GENERATION_BITS) - 1);
        Some(Self { kind, index: token as u32, generation })
    }
}

/// Entries of one kind.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    kind: Kind,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slots<T> {
    /// An empty table.
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, slots: Vec::new(), free: Vec::new() }
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The name that the next entry will have.
    pub(crate) fn next_id(&self) -> Id {
        let index = self.free.last().copied().unwrap_or(self.slots.len() as u32);
        let generation = self.slots.get(index as usize).map_or(0, |slot| slot.generation);
        Id { kind: self.kind, index, generation }
    }

    /// Puts an entry in; its name is what [`Self::next_id`] said.
    pub(crate) fn insert(&mut self, value: T) -> Id {
        let id = self.next_id();
        self.free.pop();
        match self.slots.get_mut(id.index as usize) {
            Some(slot) => slot.value = Some(value),
            None => self.slots.push(Slot { generation: id.generation, value: Some(value) }),
        }
        id
    }

    /// The entry, if it is still there.
    pub(crate) fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        self.slots
            .get_mut(id.index as usize)
            .filter(|slot| slot.generation == id.generation && id.kind == self.kind)?
            .value
            .as_mut()
    }

    /// Takes the entry out.
    pub(crate) fn remove(&mut self, id: Id) -> Option<T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = (slot.generation + 1) & ((1 << GENERATION_BITS) - 1);
        self.free.push(id.index);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_dies_with_its_entry() {
        let mut slots = Slots::new(Kind::Udp);
        let old = slots.insert("old");
        assert_eq!(Id::of(old.token()), Some(old));
        assert_eq!(slots.remove(old), Some("old"));
        let new = slots.insert("new");
        assert_ne!(old, new);
        assert_eq!(slots.get_mut(old), None);
        assert_eq!(slots.remove(old), None);
        assert_eq!(slots.get_mut(new), Some(&mut "new"));
        assert_eq!(slots.len(), 1);
    }

    #[test]
    fn the_waking_token_is_nobodys() {
        assert_eq!(Id::of(kasane_host_rounds::WAKE), None);
    }
}
