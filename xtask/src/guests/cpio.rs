//! Writes the archive that a Linux kernel unpacks as its first root file
//! system: cpio in the "newc" form (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
//! Archives are made from values, not from files, so that device nodes need
//! no root, owners are always 0 and the same content gives the same bytes.

use anyhow::{Context, Result};

const MAGIC: &str = "070701";
const END: &str = "TRAILER!!!";
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// A device's number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeviceNumber {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// An archive that grows by entries; parents must be added before children.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

struct Entry<'a> {
    path: &'a str,
    mode: u32,
    links: u32,
    device: DeviceNumber,
    data: &'a [u8],
}

impl Archive {
    pub(crate) fn directory(&mut self, path: &str, permissions: u32) -> Result<()> {
        self.add(&Entry { mode: DIRECTORY | permissions, links: 2, ..Entry::plain(path) })
    }

    pub(crate) fn file(&mut self, path: &str, permissions: u32, data: &[u8]) -> Result<()> {
        self.add(&Entry { mode: REGULAR | permissions, data, ..Entry::plain(path) })
    }

    pub(crate) fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.add(&Entry { mode: SYMLINK | 0o777, data: target.as_bytes(), ..Entry::plain(path) })
    }

    pub(crate) fn character_device(
        &mut self,
        path: &str,
        permissions: u32,
        device: DeviceNumber,
    ) -> Result<()> {
        self.add(&Entry { mode: CHARACTER_DEVICE | permissions, device, ..Entry::plain(path) })
    }

    /// Closes the archive.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        self.entries = 0;
        self.add(&Entry { mode: 0, ..Entry::plain(END) })?;
        Ok(self.bytes)
    }

    /// The header is 13 numbers of eight hexadecimal digits after the magic;
    /// it and the name together, and then the data, are padded to four bytes.
    fn add(&mut self, entry: &Entry<'_>) -> Result<()> {
        let too_long = || format!("{} is too long for a cpio archive", entry.path);
        let data_len = u32::try_from(entry.data.len()).with_context(too_long)?;
        let name_len = u32::try_from(entry.path.len() + 1).with_context(too_long)?;
        let inode = if entry.path == END { 0 } else { self.entries + 1 };
        let (owner, group, time, checksum) = (0, 0, 0, 0);
        let (disk_major, disk_minor) = (0, 0);
        let DeviceNumber { major, minor } = entry.device;
        self.bytes.extend_from_slice(MAGIC.as_bytes());
        for number in [
            inode,
            entry.mode,
            owner,
            group,
            entry.links,
            time,
            data_len,
            disk_major,
            disk_minor,
            major,
            minor,
            name_len,
            checksum,
        ] {
            self.bytes.extend_from_slice(format!("{number:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(entry.path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(entry.data);
        self.pad();
        self.entries += 1;
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

impl<'a> Entry<'a> {
    fn plain(path: &'a str) -> Self {
        let device = DeviceNumber { major: 0, minor: 0 };
        Self { path, mode: 0, links: 1, device, data: &[] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_entry_has_the_form_that_the_kernel_documents() {
        let mut archive = Archive::default();

        archive.file("init", 0o755, b"#!/bin/sh\n").unwrap();

        let text = String::from_utf8(archive.bytes).unwrap();
        let header = "070701000000010000\
            81ED00000000000000000000000100000000\
            0000000A00000000000000000000000000000000\
            0000000500000000";
        assert_eq!(
            text,
            format!("{header}init\0\0#!/bin/sh\n\0\0").replace("init\0\0", "init\0\0")
        );
    }

    #[test]
    fn every_entry_begins_at_a_multiple_of_four() {
        let mut archive = Archive::default();

        for (name, len) in [("a", 0), ("ab", 1), ("abc", 2), ("abcd", 3), ("abcde", 4)] {
            archive.file(name, 0o644, &vec![b'x'; len]).unwrap();
            assert_eq!(archive.bytes.len() % 4, 0, "{name}");
        }
    }

    #[test]
    fn a_device_has_its_number_and_no_data() {
        let mut archive = Archive::default();

        archive
            .character_device("dev/console", 0o600, DeviceNumber { major: 5, minor: 1 })
            .unwrap();

        let text = String::from_utf8(archive.bytes).unwrap();
        assert_eq!(&text[14..22], "00002180");
        assert_eq!(&text[78..94], "0000000500000001");
    }

    #[test]
    fn the_end_is_a_trailer() {
        let bytes = Archive::default().finish().unwrap();

        assert!(String::from_utf8(bytes).unwrap().contains("0000000B00000000TRAILER!!!\0"));
    }
}
