//! Files in a cpio archive ("newc"), for loaders that pass a single module without a name, as
//! QEMU's `-initrd` does (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).

/// What a member begins with.
const MAGIC: &[u8] = b"070701";
/// Bytes of a member's head.
const HEAD: usize = 110;
/// The name that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// A member with content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File<'a> {
    /// The last part of its path.
    pub name: &'a str,
    /// Its content.
    pub data: &'a [u8],
}

/// Whether `bytes` begin like an archive.
#[must_use]
pub fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// The files of an archive, until its end or the first member that is malformed.
pub fn files(bytes: &[u8]) -> impl Iterator<Item = File<'_>> {
    let mut at = 0usize;
    core::iter::from_fn(move || {
        loop {
            let member = Member::at(bytes, at)?;
            at = member.next;
            if member.name == TRAILER {
                return None;
            }
            if !member.data.is_empty() {
                let name = member.name.rsplit('/').next().unwrap_or(member.name);
                return Some(File { name, data: member.data });
            }
        }
    })
}

struct Member<'a> {
    name: &'a str,
    data: &'a [u8],
    next: usize,
}

impl<'a> Member<'a> {
    fn at(bytes: &'a [u8], at: usize) -> Option<Self> {
        let head = bytes.get(at..at.checked_add(HEAD)?)?;
        if !is_archive(head) {
            return None;
        }
        let (data_len, name_len) = (field(head, 6)?, field(head, 11)?);
        let name_at = at.checked_add(HEAD)?;
        let name_end = name_at.checked_add(name_len)?;
        let name = crate::read::text(bytes.get(name_at..name_end)?);
        let data_at = name_end.checked_next_multiple_of(4)?;
        let data_end = data_at.checked_add(data_len)?;
        let data = bytes.get(data_at..data_end)?;
        Some(Self { name, data, next: data_end.checked_next_multiple_of(4)? })
    }
}

/// Field number `index`: eight hexadecimal digits.
fn field(head: &[u8], index: usize) -> Option<usize> {
    let at = MAGIC.len().checked_add(index.checked_mul(8)?)?;
    let digits = core::str::from_utf8(head.get(at..at.checked_add(8)?)?).ok()?;
    usize::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::vec::Vec;

    fn member(name: &str, data: &[u8]) -> Vec<u8> {
        let fields = [0, 0, 0, 0, 0, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0];
        let mut bytes = MAGIC.to_vec();
        fields.iter().for_each(|field| bytes.extend(format!("{field:08X}").bytes()));
        bytes.extend(name.bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn files_are_listed_and_folders_left_out() {
        let archive = [
            member("boot", b""),
            member("boot/vm.toml", b"name = 'a'"),
            member("k", b"12345"),
            member(TRAILER, b""),
            member("behind", b"x"),
        ]
        .concat();

        let files: Vec<_> = files(&archive).map(|file| (file.name, file.data.len())).collect();

        assert_eq!(files, [("vm.toml", 10), ("k", 5)]);
    }

    #[test]
    fn a_member_that_reaches_behind_the_end_is_none() {
        let mut archive = member("k", b"12345");
        archive.truncate(archive.len() - 8);

        assert_eq!(files(&archive).count(), 0);
        assert_eq!(files(b"070701").count(), 0);
    }
}
