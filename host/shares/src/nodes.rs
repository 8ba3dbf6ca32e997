//! What the guest knows: nodes, each a name in another, and so a path. The host's files are found
//! by these paths anew each time, so that no descriptor is held for what a guest merely knows of.
//!
//! A node whose name is gone (removed, or replaced by another file) keeps its number until the
//! guest forgets it, and is reached by the files that are still open.

use std::collections::HashMap;

use rustix::io::Errno;

use crate::wire::ROOT;

/// The most nodes that a guest can know.
pub const NODES_MAX: usize = 1 << 20;
/// The longest path on the host, in bytes, from the folder on.
const PATH_MAX: usize = 4000;

/// What tells files apart: device and number.
pub(crate) type Identity = (u64, u64);

struct Node {
    parent: u64,
    name: Vec<u8>,
    /// Whether the name is still its own.
    named: bool,
    identity: Identity,
    /// How often the guest was told of it, less what it has forgotten.
    lookups: u64,
    /// Open files.
    files: Vec<u64>,
}

/// All nodes but the root.
#[derive(Default)]
pub(crate) struct Nodes {
    nodes: HashMap<u64, Node>,
    names: HashMap<(u64, Vec<u8>), u64>,
    last: u64,
}

impl Nodes {
    /// None; there will be some, with numbers behind `last`.
    pub(crate) fn behind(last: u64) -> Self {
        Self { last, ..Self::default() }
    }

    /// All are forgotten; their numbers don't come again.
    pub(crate) fn forget_all(&mut self) {
        *self = Self::behind(self.last);
    }

    /// The path of a node.
    pub(crate) fn path(&self, node: u64) -> Result<Vec<u8>, Errno> {
        let mut names: Vec<&[u8]> = Vec::new();
        let (mut at, mut len) = (node, 0);
        while at != ROOT {
            let node = self.nodes.get(&at).filter(|node| node.named).ok_or(Errno::STALE)?;
            len += node.name.len() + 1;
            if len > PATH_MAX {
                return Err(Errno::NAMETOOLONG);
            }
            names.push(&node.name);
            at = node.parent;
        }
        names.reverse();
        Ok(names.join(&b'/'))
    }

    /// The path of the directory that a node's name is in, and the name.
    pub(crate) fn place(&self, node: u64) -> Result<(Vec<u8>, Vec<u8>), Errno> {
        let found = self.nodes.get(&node).filter(|node| node.named).ok_or(Errno::STALE)?;
        Ok((self.path(found.parent)?, found.name.clone()))
    }

    /// The guest is told of a name: its node.
    pub(crate) fn told(
        &mut self,
        parent: u64,
        name: &[u8],
        identity: Identity,
    ) -> Result<u64, Errno> {
        let key = (parent, name.to_vec());
        let known = self.names.get(&key).copied();
        if let Some(number) = known
            && let Some(node) = self.nodes.get_mut(&number)
            && node.identity == identity
        {
            node.lookups = node.lookups.saturating_add(1);
            return Ok(number);
        }
        if self.nodes.len() >= NODES_MAX {
            return Err(Errno::NFILE);
        }
        self.removed(parent, name);
        self.last = self.last.max(ROOT).wrapping_add(1);
        let (number, name) = (self.last, key.1.clone());
        let node = Node { parent, name, named: true, identity, lookups: 1, files: Vec::new() };
        self.nodes.insert(number, node);
        self.names.insert(key, number);
        Ok(number)
    }

    /// The guest forgets that it was told so often.
    pub(crate) fn forget(&mut self, number: u64, times: u64) {
        let Some(node) = self.nodes.get_mut(&number) else { return };
        node.lookups = node.lookups.saturating_sub(times);
        if node.lookups != 0 {
            return;
        }
        if let Some(node) = self.nodes.remove(&number)
            && node.named
        {
            self.names.remove(&(node.parent, node.name));
        }
    }

    /// A name is gone.
    pub(crate) fn removed(&mut self, parent: u64, name: &[u8]) {
        let number = self.names.remove(&(parent, name.to_vec()));
        if let Some(node) = number.and_then(|number| self.nodes.get_mut(&number)) {
            node.named = false;
        }
    }

    fn put(&mut self, number: u64, parent: u64, name: &[u8]) {
        if let Some(node) = self.nodes.get_mut(&number) {
            (node.parent, node.name, node.named) = (parent, name.to_vec(), true);
            self.names.insert((parent, name.to_vec()), number);
        }
    }

    /// A name is another now, and what had that name before has gone.
    pub(crate) fn moved(&mut self, from: (u64, &[u8]), to: (u64, &[u8])) {
        let number = self.names.remove(&(from.0, from.1.to_vec()));
        self.removed(to.0, to.1);
        if let Some(number) = number {
            self.put(number, to.0, to.1);
        }
    }

    /// Two names have changed places.
    pub(crate) fn exchanged(&mut self, one: (u64, &[u8]), two: (u64, &[u8])) {
        let first = self.names.remove(&(one.0, one.1.to_vec()));
        let second = self.names.remove(&(two.0, two.1.to_vec()));
        if let Some(number) = first {
            self.put(number, two.0, two.1);
        }
        if let Some(number) = second {
            self.put(number, one.0, one.1);
        }
    }

    /// A file of the node was opened.
    pub(crate) fn opened(&mut self, number: u64, file: u64) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.files.push(file);
        }
    }

    /// A file of the node was closed.
    pub(crate) fn closed(&mut self, number: u64, file: u64) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.files.retain(|open| *open != file);
        }
    }

    /// An open file of the node.
    pub(crate) fn open_file(&self, number: u64) -> Option<u64> {
        self.nodes.get(&number)?.files.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_directory_takes_what_is_in_it_along() {
        let mut nodes = Nodes::default();
        let a = nodes.told(ROOT, b"a", (1, 1)).unwrap();
        let file = nodes.told(a, b"f", (1, 2)).unwrap();
        let b = nodes.told(ROOT, b"b", (1, 3)).unwrap();
        nodes.moved((ROOT, b"a"), (b, b"c"));
        assert_eq!(nodes.path(file).unwrap(), b"b/c/f");
        nodes.exchanged((b, b"c"), (ROOT, b"none"));
        assert_eq!(nodes.path(file).unwrap(), b"none/f");
    }

    #[test]
    fn a_name_that_is_another_file_is_another_node() {
        let mut nodes = Nodes::default();
        let first = nodes.told(ROOT, b"a", (1, 1)).unwrap();
        assert_eq!(nodes.told(ROOT, b"a", (1, 1)), Ok(first));
        let second = nodes.told(ROOT, b"a", (1, 2)).unwrap();
        assert_ne!(first, second);
        assert_eq!(nodes.path(first), Err(Errno::STALE));
        nodes.forget(first, 2);
        assert_eq!(nodes.path(second).unwrap(), b"a");
        nodes.forget(second, u64::MAX);
        assert!(nodes.nodes.is_empty() && nodes.names.is_empty());
    }

    #[test]
    fn a_path_has_an_end() {
        let mut nodes = Nodes::default();
        let mut at = ROOT;
        for n in 0..100 {
            at = nodes.told(at, &[b'x'; 100], (1, n)).unwrap();
        }
        assert_eq!(nodes.path(at), Err(Errno::NAMETOOLONG));
    }
}
