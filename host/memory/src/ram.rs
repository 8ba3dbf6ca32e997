//! One mapping of guest RAM.

use std::fs::File;
use std::io;
use std::ops::Range;

use kasane_memory::RamBacking;
use memmap2::{MmapOptions, MmapRaw};

/// The granularity of sizes and releases, in bytes.
const PAGE: u64 = 4096;

/// Guest RAM that the host refused.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// The size is zero or no multiple of a page.
    #[error("guest RAM of {len_bytes} bytes is no whole number of 4096-byte pages")]
    Size {
        /// What was asked for, in bytes.
        len_bytes: u64,
    },
    /// The host has no such memory.
    #[error("the host gives no {len_bytes} bytes of memory for `{name}`")]
    Host {
        /// The slot's name.
        name: String,
        /// What was asked for, in bytes.
        len_bytes: u64,
        /// The host's reason.
        source: io::Error,
    },
    /// A range to give back that is not inside, or not of whole pages.
    #[error("can't give back {start:#x}..{end:#x} of a slot of {len_bytes:#x} bytes")]
    Range {
        /// Offset of the first byte.
        start: u64,
        /// Offset behind the last byte.
        end: u64,
        /// The slot's length in bytes.
        len_bytes: u64,
    },
    /// The host can't give pages back.
    #[error("the host takes no memory back")]
    Release(#[source] io::Error),
}

/// RAM of one slot. Zeroed at first; the host gives each page when it is first touched.
#[derive(Debug)]
pub struct HostRam {
    map: MmapRaw,
    file: Option<File>,
}

impl HostRam {
    /// RAM of `len_bytes`, a multiple of 4096; `name` is what the host's tools show.
    ///
    /// # Errors
    /// A wrong size, or the host's refusal.
    pub fn new(name: &str, len_bytes: u64) -> Result<Self, RamError> {
        if len_bytes == 0 || !len_bytes.is_multiple_of(PAGE) {
            return Err(RamError::Size { len_bytes });
        }
        let refused = |source| RamError::Host { name: name.to_owned(), len_bytes, source };
        let file = memory_file(name, len_bytes).map_err(refused)?;
        let map = match &file {
            Some(file) => MmapOptions::new().map_raw(file),
            None => {
                let len = usize::try_from(len_bytes).map_err(|_| RamError::Size { len_bytes })?;
                MmapOptions::new().len(len).map_anon().map(MmapRaw::from)
            }
        };
        let map = map.map_err(refused)?;
        advise_huge_pages(&map);
        Ok(Self { map, file })
    }

    /// The file behind the memory, to map it again elsewhere; none on hosts without memory files.
    #[must_use]
    pub fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Gives pages back to the host; they read as zero afterwards. `range` is in bytes from the
    /// slot's start and in whole pages.
    ///
    /// # Errors
    /// A range that is not inside, or a host that takes nothing back.
    pub fn release(&self, range: Range<u64>) -> Result<(), RamError> {
        let Range { start, end } = range;
        let len_bytes = self.map.len() as u64;
        let whole = start.is_multiple_of(PAGE) && end.is_multiple_of(PAGE);
        if start > end || end > len_bytes || !whole {
            return Err(RamError::Range { start, end, len_bytes });
        }
        if start == end {
            return Ok(());
        }
        punch_hole(self.file.as_ref(), start, end - start).map_err(RamError::Release)
    }
}

// SAFETY: the mapping is made once in `new`, never moved or resized, page-aligned, valid for reads
// and writes of `len` bytes until drop, and nobody makes a Rust reference into it: `map` is a
// `MmapRaw`, which gives pointers only. The file can't shrink under it: it is sealed.
unsafe impl RamBacking for HostRam {
    fn as_ptr(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }
    fn len(&self) -> usize {
        self.map.len()
    }
}

/// A memory file that can't change its size.
#[cfg(target_os = "linux")]
#[allow(clippy::unnecessary_wraps)] // other hosts have none
fn memory_file(name: &str, len_bytes: u64) -> io::Result<Option<File>> {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create(name, flags)?);
    file.set_len(len_bytes)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(Some(file))
}

#[cfg(not(target_os = "linux"))]
fn memory_file(_name: &str, _len_bytes: u64) -> io::Result<Option<File>> {
    Ok(None)
}

/// Asks for huge pages: fewer TLB misses. A host that refuses runs the guest all the same.
#[cfg(target_os = "linux")]
fn advise_huge_pages(map: &MmapRaw) {
    let _refused = map.advise(memmap2::Advice::HugePage);
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_map: &MmapRaw) {}

#[cfg(target_os = "linux")]
fn punch_hole(file: Option<&File>, start: u64, len: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};

    let file = file.ok_or(io::ErrorKind::Unsupported)?;
    fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, start, len)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn punch_hole(_file: Option<&File>, _start: u64, _len: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kasane_memory::{GuestMemory, Ram, RamSlot};

    #[test]
    fn guest_ram_is_zero_and_keeps_what_is_written() {
        let ram = Ram::new(vec![RamSlot::from_backing(
            0,
            Box::new(HostRam::new("test", 1 << 20).unwrap()),
        )]);
        let mut before = [0xFF; 4];
        ram.read(0x8000, &mut before).unwrap();
        ram.write(0x8000, b"ram!").unwrap();
        let mut after = [0; 4];
        ram.read(0x8000, &mut after).unwrap();

        assert_eq!(before, [0; 4]);
        assert_eq!(&after, b"ram!");
    }

    #[test]
    fn sizes_are_whole_pages() {
        let error = HostRam::new("test", 4097).unwrap_err();

        assert_eq!(
            error.to_string(),
            "guest RAM of 4097 bytes is no whole number of 4096-byte pages"
        );
        assert!(HostRam::new("test", 0).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_given_lazily_and_taken_back() {
        use std::os::unix::fs::MetadataExt;
        let blocks = |ram: &HostRam| ram.file().unwrap().metadata().unwrap().blocks();
        let backing = HostRam::new("test", 16 << 30).unwrap();
        let untouched = blocks(&backing);

        // SAFETY: inside the mapping, which lives to the end of the test.
        unsafe { backing.as_ptr().add(0x10_0000).write_volatile(1) };
        let touched = blocks(&backing);
        backing.release(0..16 << 30).unwrap();
        let released = blocks(&backing);
        // SAFETY: as above.
        let byte = unsafe { backing.as_ptr().add(0x10_0000).read_volatile() };

        assert_eq!(untouched, 0);
        assert!(touched > 0);
        assert_eq!(released, 0);
        assert_eq!(byte, 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_file_is_the_same_memory() {
        use std::os::unix::fs::FileExt;
        let backing = HostRam::new("test", 1 << 16).unwrap();
        // SAFETY: inside the mapping, which lives to the end of the test.
        unsafe { backing.as_ptr().add(100).write_volatile(42) };
        let mut byte = [0];
        backing.file().unwrap().read_exact_at(&mut byte, 100).unwrap();

        assert_eq!(byte, [42]);
    }

    #[test]
    fn ranges_outside_are_not_released() {
        let backing = HostRam::new("test", 1 << 16).unwrap();

        assert!(backing.release(0..(1 << 16) + 4096).is_err());
        assert!(backing.release(1..4096).is_err());
        assert_eq!(
            backing.release(4096..0x2_0000).unwrap_err().to_string(),
            "can't give back 0x1000..0x20000 of a slot of 0x10000 bytes"
        );
    }
}
