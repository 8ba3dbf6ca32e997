//! The archive that Linux unpacks into its first file system: cpio in its "newc" form
//! (Linux, `Documentation/driver-api/early-userspace/buffer-format.rst`).

/// An archive being written. All files belong to root, with modification time 0, so that equal
/// contents give equal bytes.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const SYMBOLIC_LINK: u32 = 0o120_000;

/// Major and minor number of a device.
type DeviceNumber = (u32, u32);

impl Archive {
    /// An empty archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory. Parents have to come first.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, (0, 0), b"");
    }

    /// Adds a file that anybody may read and execute.
    pub fn executable(&mut self, path: &str, contents: &[u8]) {
        self.entry(path, REGULAR | 0o755, (0, 0), contents);
    }

    /// Adds a file that anybody may read.
    pub fn file(&mut self, path: &str, contents: &[u8]) {
        self.entry(path, REGULAR | 0o644, (0, 0), contents);
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.entry(path, SYMBOLIC_LINK | 0o777, (0, 0), target.as_bytes());
    }

    /// Adds a character device.
    pub fn device(&mut self, path: &str, number: (u32, u32)) {
        self.entry(path, CHARACTER_DEVICE | 0o600, number, b"");
    }

    /// The finished archive.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), b"");
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, number: DeviceNumber, contents: &[u8]) {
        self.inode = self.inode.saturating_add(1);
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        // Lengths beyond 32 bits can't be written; no file of an initramfs comes near.
        let length = u32::try_from(contents.len()).unwrap_or(u32::MAX);
        let name_length = u32::try_from(path.len()).unwrap_or(u32::MAX).saturating_add(1);
        let (major, minor) = number;
        let fields = [self.inode, mode, 0, 0, links, 0, length, 0, 0, major, minor, name_length, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(contents);
        self.align();
    }

    /// Header with name, and contents, each end at a multiple of 4.
    fn align(&mut self) {
        let len = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(len, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_header_a_name_and_contents_each_aligned() {
        let mut archive = Archive::new();
        archive.file("hi", b"hello");
        let bytes = archive.finish();

        let header = "070701\
            00000001000081A400000000000000000000000100000000\
            0000000500000000000000000000000000000000\
            0000000300000000";
        assert_eq!(&bytes[..110], header.as_bytes());
        assert_eq!(&bytes[110..124], b"hi\0\0\0\0hello\0\0\0");
        assert_eq!(&bytes[124..130], b"070701");
        assert!(bytes.ends_with(b"TRAILER!!!\0\0\0\0"));
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn kinds_have_their_modes() {
        let mut archive = Archive::new();
        archive.directory("dev");
        archive.device("dev/console", (5, 1));
        archive.link("init", "bin/busybox");
        let text = String::from_utf8(archive.finish()).unwrap();

        assert!(text.contains("07070100000001000041ED"));
        assert!(text.contains("0707010000000200002180"));
        assert!(text.contains("000000050000000100000"));
        assert!(text.contains("070701000000030000A1FF"));
        assert!(text.contains("bin/busybox"));
    }
}
