//! Messages of FUSE (Linux' `include/uapi/linux/fuse.h`, protocol 7): what of them is read and
//! written here. Numbers are of the machine's byte order, which is little-endian.

use rustix::fs::Stat;
use rustix::io::Errno;

/// The most data in a message.
pub const DATA_MAX: usize = 1 << 20;
/// The longest message: data, and room for its headers.
pub const MESSAGE_MAX: usize = DATA_MAX + 4096;
/// Bytes of the header of a request, and of an answer.
pub const IN_HEADER: usize = 40;
/// Bytes of an answer's header.
pub const OUT_HEADER: usize = 16;
/// The longest name, in bytes.
pub const NAME_MAX: usize = 255;
/// The longest target of a symbolic link, in bytes.
pub const TARGET_MAX: usize = 4095;
/// The node of the folder itself.
pub const ROOT: u64 = 1;

/// Operations.
pub mod op {
    #![allow(missing_docs, reason = "the kernel's names")]
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const IOCTL: u32 = 39;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
}

/// What both sides can (INIT).
pub mod init {
    #![allow(missing_docs, reason = "the kernel's names")]
    pub const MAJOR: u32 = 7;
    pub const MINOR: u32 = 36;
    /// Below this, messages have other lengths.
    pub const OLDEST_MINOR: u32 = 31;
    pub const ASYNC_READ: u32 = 1 << 0;
    pub const BIG_WRITES: u32 = 1 << 5;
    pub const AUTO_INVAL_DATA: u32 = 1 << 12;
    pub const DO_READDIRPLUS: u32 = 1 << 13;
    pub const READDIRPLUS_AUTO: u32 = 1 << 14;
    pub const PARALLEL_DIROPS: u32 = 1 << 18;
    pub const MAX_PAGES: u32 = 1 << 22;
}

/// What SETATTR sets, and the flag of GETATTR.
pub mod set {
    #![allow(missing_docs, reason = "the kernel's names")]
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const FH: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const GETATTR_FH: u32 = 1;
}

/// A message that is being read. What isn't there is `EINVAL`.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from their beginning.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(Errno::INVAL)?;
        self.rest = rest;
        Ok(*array)
    }
    /// The next 32 bits.
    ///
    /// # Errors
    /// `EINVAL`, as for all.
    pub fn u32(&mut self) -> Result<u32, Errno> {
        self.array().map(u32::from_le_bytes)
    }
    /// The next 64 bits.
    ///
    /// # Errors
    /// `EINVAL`.
    pub fn u64(&mut self) -> Result<u64, Errno> {
        self.array().map(u64::from_le_bytes)
    }
    /// Leaves bytes out.
    ///
    /// # Errors
    /// `EINVAL`.
    pub fn skip(&mut self, len: usize) -> Result<(), Errno> {
        self.bytes(len).map(drop)
    }
    /// The next bytes.
    ///
    /// # Errors
    /// `EINVAL`.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Errno> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(Errno::INVAL)?;
        self.rest = rest;
        Ok(bytes)
    }
    /// Bytes up to a zero, which must come.
    fn text(&mut self) -> Result<&'a [u8], Errno> {
        let len = self.rest.iter().position(|byte| *byte == 0).ok_or(Errno::INVAL)?;
        let text = self.bytes(len)?;
        self.skip(1)?;
        Ok(text)
    }
    /// A name in a directory: one component that is neither `.` nor `..`.
    ///
    /// # Errors
    /// `EINVAL`, or `ENAMETOOLONG`.
    pub fn name(&mut self) -> Result<&'a [u8], Errno> {
        let name = self.text()?;
        match name {
            b"" | b"." | b".." => Err(Errno::INVAL),
            name if name.contains(&b'/') => Err(Errno::INVAL),
            name if name.len() > NAME_MAX => Err(Errno::NAMETOOLONG),
            name => Ok(name),
        }
    }
    /// The target of a symbolic link: any text.
    ///
    /// # Errors
    /// `EINVAL`, or `ENAMETOOLONG`.
    pub fn target(&mut self) -> Result<&'a [u8], Errno> {
        match self.text()? {
            b"" => Err(Errno::INVAL),
            text if text.len() > TARGET_MAX => Err(Errno::NAMETOOLONG),
            text => Ok(text),
        }
    }
}

/// The header of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InHeader {
    /// Operation.
    pub op: u32,
    /// Comes back with the answer.
    pub unique: u64,
    /// What it is about.
    pub node: u64,
}

impl InHeader {
    /// Reads it; whose process it was is not of interest.
    ///
    /// # Errors
    /// `EINVAL` when it isn't whole.
    pub fn read(from: &mut Reader<'_>) -> Result<Self, Errno> {
        from.skip(4)?;
        let header = Self { op: from.u32()?, unique: from.u64()?, node: from.u64()? };
        from.skip(IN_HEADER - 24)?;
        Ok(header)
    }
}

/// An answer's fields, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// 16 bits.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }
    /// 32 bits.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }
    /// 64 bits.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }
    /// Bytes.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }
    /// Zeros.
    pub fn zeros(&mut self, len: usize) -> &mut Self {
        self.bytes.resize(self.bytes.len().saturating_add(len), 0);
        self
    }
    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
    /// The bytes.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
    /// Attributes (`fuse_attr`). A device's number is not told.
    pub fn attributes(&mut self, stat: &Stat) -> &mut Self {
        self.u64(stat.st_ino).u64(stat.st_size as u64).u64(stat.st_blocks as u64);
        self.u64(stat.st_atime as u64).u64(stat.st_mtime as u64).u64(stat.st_ctime as u64);
        self.u32(stat.st_atime_nsec as u32).u32(stat.st_mtime_nsec as u32);
        self.u32(stat.st_ctime_nsec as u32).u32(stat.st_mode);
        self.u32(u32::try_from(stat.st_nlink).unwrap_or(u32::MAX));
        self.u32(stat.st_uid).u32(stat.st_gid).u32(0).u32(stat.st_blksize as u32).u32(0)
    }
}

/// An answer: its header, and what follows it if it is no error.
#[must_use]
pub fn answer(unique: u64, result: Result<&[u8], Errno>) -> Vec<u8> {
    let (code, body) = match result {
        Ok(body) => (0, body),
        Err(error) => (error.raw_os_error().wrapping_neg(), &[][..]),
    };
    let mut out = Writer::default();
    out.u32((OUT_HEADER + body.len()) as u32).u32(code as u32).u64(unique).raw(body);
    out.finish()
}
