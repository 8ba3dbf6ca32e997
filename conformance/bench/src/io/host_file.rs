//! The host's own file, read and written as the guests' disks are: sequentially, 64 KiB at a time,
//! through the host's cache or past it.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::disk::Access;

const BLOCK: usize = 64 << 10;
const BLOCK_BYTES: u64 = BLOCK as u64;
const MIB: f64 = 1048576.0;
/// What direct I/O wants of addresses, at most.
const PAGE: usize = 4096;

/// Where a disk's data come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cache {
    /// The host's memory, which holds all of the file: what is measured is the way there.
    Host,
    /// The host's disk (`O_DIRECT`).
    None,
}

/// A file full of data, removed at the end.
pub(super) struct DataFile {
    path: PathBuf,
    file: File,
    len_bytes: u64,
    cache: Cache,
}

impl DataFile {
    /// Without holes, which could be read without reading.
    pub(super) fn create(name: &str, cache: Cache, len_mib: u64) -> Result<Self> {
        let name = format!("kasane-bench-{}-{name}-{cache:?}.raw", std::process::id());
        let path = std::env::temp_dir().join(name);
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .custom_flags(if cache == Cache::None { libc::O_DIRECT } else { 0 })
            .open(&path)
            .with_context(|| format!("could not create {}", path.display()))?;
        let len_bytes = len_mib.max(1) << 20;
        let data = Self { path, file, len_bytes, cache };
        let mut block = Block::new();
        for offset in (0..len_bytes).step_by(BLOCK) {
            data.write_block(block.bytes(), offset)?;
        }
        data.settle()?;
        Ok(data)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn cache(&self) -> Cache {
        self.cache
    }

    /// What one measurement has written is not left for the next to wait for.
    pub(super) fn settle(&self) -> Result<()> {
        self.file.sync_data().with_context(|| format!("could not sync {}", self.path.display()))
    }

    /// Goes through the file, again and again, for this time.
    ///
    /// # Returns
    /// MiB in a second.
    pub(super) fn sequential(&self, access: Access, seconds: u64) -> Result<f64> {
        let (time, begin) = (Duration::from_secs(seconds), Instant::now());
        let mut block = Block::new();
        let mut done = 0u64;
        while begin.elapsed() < time {
            let offset = done % self.len_bytes;
            match access {
                Access::Read => {
                    let read = self.file.read_exact_at(block.bytes(), offset);
                    read.with_context(|| format!("could not read {}", self.path.display()))?;
                }
                Access::Write => self.write_block(block.bytes(), offset)?,
            }
            done += BLOCK_BYTES;
        }
        ensure!(done > 0, "nothing was done in {seconds} s");
        Ok(done as f64 / MIB / begin.elapsed().as_secs_f64())
    }

    fn write_block(&self, block: &[u8], offset: u64) -> Result<()> {
        let written = self.file.write_all_at(block, offset);
        written.with_context(|| format!("could not write {}", self.path.display()))
    }
}

/// 64 KiB at an address that direct I/O takes.
struct Block {
    memory: Vec<u8>,
    start: usize,
}

impl Block {
    fn new() -> Self {
        let memory = vec![0x5A; BLOCK + PAGE];
        let start = memory.as_ptr().align_offset(PAGE);
        Self { memory, start }
    }

    fn bytes(&mut self) -> &mut [u8] {
        let rest = self.memory.get_mut(self.start..).unwrap_or_default();
        rest.get_mut(..BLOCK).unwrap_or_default()
    }
}

impl Drop for DataFile {
    fn drop(&mut self) {
        let _left_behind = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_full_of_data_and_is_gone_at_the_end() {
        let data = DataFile::create("test", Cache::Host, 1).unwrap();
        let path = data.path().to_owned();

        let content = std::fs::read(&path).unwrap();
        drop(data);

        assert_eq!(content.len(), 1 << 20);
        assert!(content.iter().all(|byte| *byte == 0x5A));
        assert!(!path.exists());
    }
}
