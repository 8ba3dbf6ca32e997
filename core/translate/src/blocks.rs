//! Maps of very many small things, made for caches of the processor: a lookup of what is not there
//! reads a byte or two of a table of small numbers, not of one with the things themselves in it.

use alloc::vec::Vec;

use hashbrown::HashTable;

use crate::cache::{Block, Key};

/// The numbers of things that are kept elsewhere.
#[derive(Default)]
pub(crate) struct Index(HashTable<Entry>);

/// A number with what is left of the hash, so that the table grows without a look at the things.
#[derive(Clone, Copy)]
struct Entry {
    number: u32,
    hash: u32,
}

impl Entry {
    fn spread(hash: u32) -> u64 {
        u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

/// Mixes words into one.
pub(crate) fn hash_of(words: [u64; 3]) -> u32 {
    let mixed = words.into_iter().fold(0u64, |hash, word| {
        let mixed = (hash ^ word).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        mixed ^ mixed >> 32
    });
    mixed as u32
}

impl Index {
    /// The number of the one that `is` it, among those with this hash.
    pub(crate) fn find(&self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let is_it = |entry: &Entry| entry.hash == hash && is(entry.number);
        self.0.find(Entry::spread(hash), is_it).map(|entry| entry.number)
    }
    /// One that is not in it.
    pub(crate) fn insert(&mut self, hash: u32, number: u32) {
        let spread = |entry: &Entry| Entry::spread(entry.hash);
        self.0.insert_unique(Entry::spread(hash), Entry { number, hash }, spread);
    }
    pub(crate) fn remove(&mut self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let is_it = |entry: &Entry| entry.hash == hash && is(entry.number);
        let found = self.0.find_entry(Entry::spread(hash), is_it).ok()?;
        Some(found.remove().0.number)
    }
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Blocks by what identifies them.
#[derive(Default)]
pub(crate) struct Blocks {
    index: Index,
    entries: Vec<(Key, Block)>,
    /// Numbers of entries that are not in use.
    free: Vec<u32>,
}

fn hash(key: Key) -> u32 {
    hash_of([key.gpa, key.rip, key.mode.number()])
}

impl Blocks {
    fn number(&self, key: Key) -> Option<usize> {
        let is = |number: u32| self.entries.get(number as usize).is_some_and(|(k, _)| *k == key);
        self.index.find(hash(key), is).map(|number| number as usize)
    }
    pub(crate) fn get(&self, key: Key) -> Option<&Block> {
        self.entries.get(self.number(key)?).map(|(_, block)| block)
    }
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Block> {
        let number = self.number(key)?;
        self.entries.get_mut(number).map(|(_, block)| block)
    }
    /// Takes the place of the one that was there. Gives its number.
    #[inline]
    pub(crate) fn insert(&mut self, key: Key, block: Block) -> u32 {
        if let Some(number) = self.number(key) {
            if let Some((_, place)) = self.entries.get_mut(number) {
                *place = block;
            }
            return number as u32;
        }
        let number = match self.free.pop() {
            Some(number) => {
                if let Some(place) = self.entries.get_mut(number as usize) {
                    *place = (key, block);
                }
                number
            }
            None => {
                self.entries.push((key, block));
                self.entries.len().wrapping_sub(1) as u32
            }
        };
        self.index.insert(hash(key), number);
        number
    }
    /// Whose the number is.
    pub(crate) fn key(&self, number: u32) -> Option<Key> {
        self.entries.get(number as usize).map(|(key, _)| *key)
    }
    pub(crate) fn remove(&mut self, key: Key) -> Option<Block> {
        let Self { index, entries, free } = self;
        let is = |number: u32| entries.get(number as usize).is_some_and(|(k, _)| *k == key);
        let number = index.remove(hash(key), is)?;
        free.push(number);
        entries.get(number as usize).map(|(_, block)| *block)
    }
    pub(crate) fn clear(&mut self) {
        self.index.clear();
        self.entries.clear();
        self.free.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64, u32),
        Remove(u64),
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            20 => (0u64..200, any::<u32>()).prop_map(|(key, entry)| Step::Insert(key, entry)),
            10 => (0u64..200).prop_map(Step::Remove),
            1 => Just(Step::Clear),
        ]
    }

    fn key(n: u64) -> Key {
        Key { gpa: n & 7, rip: n >> 3, mode: crate::mode::Mode::NONE }
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec(step(), 0..400)) {
            let mut blocks = Blocks::default();
            let mut model = HashMap::new();
            for step in steps {
                match step {
                    Step::Insert(n, entry) => {
                        blocks.insert(key(n), Block::at(entry));
                        model.insert(n, entry);
                    }
                    Step::Remove(n) => {
                        let removed = blocks.remove(key(n)).map(|block| block.entry);
                        prop_assert_eq!(removed, model.remove(&n));
                    }
                    Step::Clear => {
                        blocks.clear();
                        model.clear();
                    }
                }
                for n in 0..200 {
                    let found = blocks.get(key(n)).map(|block| block.entry);
                    prop_assert_eq!(found, model.get(&n).copied());
                }
            }
        }
    }
}
