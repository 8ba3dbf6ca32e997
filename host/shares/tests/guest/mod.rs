//! A guest's side: messages as Linux sends them.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::PathBuf;

use kasane_host_shares::wire::{ROOT, op};
use kasane_host_shares::{Server, ShareAccess};

/// A shared folder beside a secret.
pub(crate) struct Guest {
    pub(crate) server: Server,
    pub(crate) folder: PathBuf,
    pub(crate) outside: PathBuf,
    _all: tempfile::TempDir,
}

/// Linux' error numbers.
pub(crate) mod errno {
    #![allow(missing_docs, reason = "the kernel's names")]
    pub(crate) const PERM: i32 = 1;
    pub(crate) const NOENT: i32 = 2;
    pub(crate) const ACCES: i32 = 13;
    pub(crate) const EXIST: i32 = 17;
    pub(crate) const NOTDIR: i32 = 20;
    pub(crate) const INVAL: i32 = 22;
    pub(crate) const NFILE: i32 = 23;
    pub(crate) const ROFS: i32 = 30;
    pub(crate) const NAMETOOLONG: i32 = 36;
    pub(crate) const NOSYS: i32 = 38;
    pub(crate) const LOOP: i32 = 40;
    pub(crate) const OPNOTSUPP: i32 = 95;
    pub(crate) const STALE: i32 = 116;
}

pub(crate) fn bytes(fields: &[&[u8]]) -> Vec<u8> {
    fields.concat()
}
pub(crate) fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}
pub(crate) fn n32(value: u32) -> [u8; 4] {
    value.to_le_bytes()
}
pub(crate) fn n64(value: u64) -> [u8; 8] {
    value.to_le_bytes()
}
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub(crate) fn message(operation: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let len = (40 + body.len()) as u32;
    [&n32(len)[..], &n32(operation), &n64(77), &n64(node), &[0; 16], body].concat()
}

impl Guest {
    pub(crate) fn new(access: ShareAccess) -> Self {
        let all = tempfile::tempdir().unwrap();
        let (folder, outside) = (all.path().join("shared"), all.path().join("outside"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("secret"), "secret").unwrap();
        let server = Server::open(&folder, access, 0).unwrap();
        Self { server, folder, outside, _all: all }
    }

    /// The guest goes on with another server of the same folder, as after a restore.
    pub(crate) fn restored(self, access: ShareAccess) -> Self {
        let server = Server::open(&self.folder, access, 1 << 40).unwrap();
        Self { server, ..self }
    }

    /// Sends a message: the answer's body, or its error.
    pub(crate) fn call(&self, operation: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, i32> {
        let answer = self.server.answer(&message(operation, node, body), 1 << 20).unwrap();
        assert_eq!((u32_at(&answer, 0) as usize, u64_at(&answer, 8)), (answer.len(), 77));
        match u32_at(&answer, 4) as i32 {
            0 => Ok(answer[16..].to_vec()),
            error => Err(-error),
        }
    }

    /// The node of a name.
    pub(crate) fn lookup(&self, folder: u64, name: &str) -> Result<u64, i32> {
        Ok(u64_at(&self.call(op::LOOKUP, folder, &text(name))?, 0))
    }
    /// The node of a path from the folder on.
    pub(crate) fn walk(&self, path: &str) -> Result<u64, i32> {
        path.split('/').try_fold(ROOT, |node, name| self.lookup(node, name))
    }
    pub(crate) fn open(&self, node: u64, flags: u32) -> Result<u64, i32> {
        Ok(u64_at(&self.call(op::OPEN, node, &bytes(&[&n32(flags), &n32(0)]))?, 0))
    }
    pub(crate) fn create(&self, folder: u64, name: &str, mode: u32) -> Result<(u64, u64), i32> {
        let body = bytes(&[&n32(2), &n32(mode), &n32(0), &n32(0), &text(name)]);
        let answer = self.call(op::CREATE, folder, &body)?;
        Ok((u64_at(&answer, 0), u64_at(&answer, 128)))
    }
    pub(crate) fn read(&self, file: u64, at: u64, size: u32) -> Result<Vec<u8>, i32> {
        let body = bytes(&[&n64(file), &n64(at), &n32(size), &[0; 20]]);
        self.call(op::READ, 0, &body)
    }
    pub(crate) fn write(&self, file: u64, at: u64, data: &[u8]) -> Result<u32, i32> {
        let size = n32(data.len() as u32);
        let body = bytes(&[&n64(file), &n64(at), &size, &[0; 20], data]);
        Ok(u32_at(&self.call(op::WRITE, 0, &body)?, 0))
    }
    /// Sets what `valid` names: mode, size, owner.
    pub(crate) fn set(
        &self,
        node: u64,
        valid: u32,
        values: (u64, u32, u32),
    ) -> Result<Vec<u8>, i32> {
        let (size, mode, uid) = values;
        let body = bytes(&[
            &n32(valid),
            &[0; 12],
            &n64(size),
            &[0; 32],
            &[0; 12],
            &n32(mode),
            &[0; 4],
            &n32(uid),
            &[0; 8],
        ]);
        self.call(op::SETATTR, node, &body)
    }
    /// Names of a directory.
    pub(crate) fn list(&self, node: u64, operation: u32) -> Result<Vec<(String, u64)>, i32> {
        let file = u64_at(&self.call(op::OPENDIR, node, &[0; 8])?, 0);
        let (mut names, mut from) = (Vec::new(), 0);
        loop {
            let body = bytes(&[&n64(file), &n64(from), &n32(500), &[0; 20]]);
            let answer = self.call(operation, node, &body)?;
            if answer.is_empty() {
                break;
            }
            let mut at = 0;
            while at < answer.len() {
                let mut number = 0;
                if operation == op::READDIRPLUS {
                    number = u64_at(&answer, at);
                    at += 128;
                }
                from = u64_at(&answer, at + 8);
                let len = u32_at(&answer, at + 16) as usize;
                let name = String::from_utf8(answer[at + 24..at + 24 + len].to_vec()).unwrap();
                names.push((name, number));
                at += (24 + len).next_multiple_of(8);
            }
        }
        self.call(op::RELEASEDIR, node, &bytes(&[&n64(file), &[0; 16]]))?;
        names.sort();
        Ok(names)
    }
}
