//! qcow2 images: `imago` knows where their data is, and allocates it; the data itself goes between
//! guest memory and the file without a copy.
//!
//! `imago`'s own reads and writes want Rust references to the memory, which there may not be to a
//! guest's. So it is asked for the place of each range in the file (`get_mapping`,
//! `prepare_data_mapping`), and the data is moved by the host. Only compressed clusters go through
//! a buffer.

mod chain;
mod check;
mod header;
mod order;
mod storage;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use imago::{FormatAccess, Mapping, StorageExt};
use kasane_ports::{BlockError, BlockInfo, ZeroedSpace};
use parking_lot::{RwLock, RwLockWriteGuard};

use crate::error::DiskError;
use crate::image::Image;
use crate::job::{Failed, Job, Work, Zeroing};
use crate::options::DiskAccess;
use crate::sys::{self, Patience};

pub(crate) use chain::{files, open};
pub use check::CheckReport;
pub(crate) use check::check;
pub(crate) use header::Header;
pub(crate) use storage::ImageFile;

/// Bytes of a compressed range that go through a buffer at once.
const BUFFER: u64 = 1 << 20;

/// An open qcow2 image.
pub(crate) struct Qcow2Image {
    /// Shared by requests that move data; alone for those that give space back, after which
    /// a place that a request has learnt would be another's.
    access: RwLock<FormatAccess<ImageFile>>,
    info: BlockInfo,
    /// The file itself, and the bytes of a cluster.
    file: File,
    cluster: u64,
    /// Its tables turned out to be wrong: it is not written to any more.
    damaged: AtomicBool,
}

impl Qcow2Image {
    /// Opens an image with its backing files.
    ///
    /// # Errors
    /// See [`DiskError`].
    pub(crate) fn open(path: &Path, access: DiskAccess) -> Result<Self, DiskError> {
        let (image, header) = open(path, access)?;
        let storage = image.inner().collect_storage_dependencies().pop();
        let file =
            storage.map_or(Err(io::ErrorKind::NotFound.into()), |top| top.file().try_clone());
        let file = file.map_err(DiskError::host("open", path))?;
        if header.size == 0 {
            return Err(DiskError::unsupported(path, "is a disk of 0 bytes"));
        }
        let info = BlockInfo {
            // A part of a sector can't be asked for.
            capacity: header.size - header.size % 512,
            read_only: access == DiskAccess::ReadOnly,
            block_size: 512,
            discard: access == DiskAccess::ReadWrite,
        };
        Ok(Self {
            access: RwLock::new(image),
            info,
            file,
            cluster: header.cluster(),
            damaged: AtomicBool::new(false),
        })
    }

    fn failed(&self, error: io::Error) -> Failed {
        if matches!(error.kind(), io::ErrorKind::InvalidData) {
            self.damaged.store(true, Ordering::Release);
        }
        error.into()
    }

    /// Moves data. `WouldBlock` if it has to wait and must not.
    fn transfer(&self, job: &mut Job, patience: Patience) -> io::Result<()> {
        let access = match patience {
            Patience::Full => self.access.read(),
            Patience::None => self.access.try_read().ok_or(io::ErrorKind::WouldBlock)?,
        };
        while job.left() > 0 {
            match job.work {
                Work::Write => write_part(&access, job)?,
                _ => read_part(&access, job, patience)?,
            }
        }
        Ok(())
    }

    fn others(&self, job: &Job) -> io::Result<()> {
        match job.work {
            Work::Flush => {
                // Alone, so that what was written is all that there is.
                let access = self.access.write();
                access.flush()?;
                let files = access.inner().collect_storage_dependencies();
                files.into_iter().for_each(ImageFile::settled);
                RwLockWriteGuard::downgrade(access).sync()
            }
            Work::Zero(ZeroedSpace::Keep) => {
                let access = self.access.read();
                match access.write_zeroes(job.offset, job.len) {
                    Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                        write_zeros(&access, job)
                    }
                    other => other,
                }
            }
            Work::Zero(ZeroedSpace::Release) => {
                let mut access = self.access.write();
                self.give_back(&self.freed_by(&access, job)?);
                match access.discard_to_zero(job.offset, job.len) {
                    Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                        write_zeros(&access, job)
                    }
                    other => other,
                }
            }
            Work::Discard => {
                let mut access = self.access.write();
                self.give_back(&self.freed_by(&access, job)?);
                match access.discard_to_any(job.offset, job.len) {
                    Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
                    other => other,
                }
            }
            Work::Read | Work::Write => Ok(()),
        }
    }
}

/// Space of the file.
impl Qcow2Image {
    /// Where the clusters lie that a job will free: whole ones, and of this image alone (neither a
    /// snapshot nor a backing file has them).
    fn freed_by(&self, access: &FormatAccess<ImageFile>, job: &Job) -> io::Result<Vec<(u64, u64)>> {
        let end = job.offset.saturating_add(job.len);
        let end = end - end % self.cluster;
        let mut at = job.offset.next_multiple_of(self.cluster);
        let mut freed = Vec::new();
        while at < end {
            let (mapping, len) = access.get_mapping(at, end.saturating_sub(at))?;
            if let Mapping::Raw { offset, writable: true, .. } = mapping {
                freed.push((offset, len));
            }
            at = at.saturating_add(len.max(1));
        }
        Ok(freed)
    }

    /// `imago` frees clusters for itself, but leaves their data where it is. It is given back before
    /// they are freed, and not after: in the same call `imago` may give them out again, for the
    /// ends of the range. If we are killed in between, they read as zeros, which is as good.
    fn give_back(&self, freed: &[(u64, u64)]) {
        for (offset, len) in freed {
            let _kept_then = sys::punch_hole(&self.file, *offset, *len);
        }
    }
}

/// The way where there are no clusters of zeros: in version 2.
fn write_zeros(access: &FormatAccess<ImageFile>, job: &Job) -> io::Result<()> {
    let zeros = vec![0; job.len.min(BUFFER) as usize];
    let mut done = 0u64;
    while done < job.len {
        let part = job.len.saturating_sub(done).min(BUFFER);
        let data = zeros.get(..part as usize).unwrap_or_default();
        access.write(data, job.offset.saturating_add(done))?;
        done = done.saturating_add(part);
    }
    Ok(())
}

fn read_part(
    access: &FormatAccess<ImageFile>,
    job: &mut Job,
    patience: Patience,
) -> io::Result<()> {
    let (mapping, len) = access.get_mapping(job.at(), job.left())?;
    match mapping {
        Mapping::Raw { storage, offset, .. } => {
            job.aim(len);
            // SAFETY: the vectors are memory that `job` has pinned for the host to write.
            let read = unsafe { sys::read_vectors(storage.file(), &job.vectors, offset, patience) };
            match read {
                // A file may end in the middle of its last cluster.
                Ok(0) => zero_part(job, len),
                Ok(bytes) => job.done = job.done.saturating_add(bytes as u64),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if patience == Patience::None && sys::is_unsupported(&error) => {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Err(error) => return Err(error),
            }
        }
        Mapping::Zero { .. } => zero_part(job, len),
        Mapping::Special { .. } => {
            let mut buffer = vec![0; len.min(BUFFER) as usize];
            access.read(buffer.as_mut_slice(), job.at())?;
            if let Some(memory) = &job.memory {
                memory.copy_from(job.done, &buffer);
            }
            job.done = job.done.saturating_add(buffer.len() as u64);
        }
        // Mappings end inside of the disk, and so does the job.
        _ => return Err(io::ErrorKind::UnexpectedEof.into()),
    }
    Ok(())
}

fn zero_part(job: &mut Job, len: u64) {
    let len = len.min(job.left());
    if let Some(memory) = &job.memory {
        memory.zero(job.done, len);
    }
    job.done = job.done.saturating_add(len);
}

fn write_part(access: &FormatAccess<ImageFile>, job: &mut Job) -> io::Result<()> {
    let mapping = access.prepare_data_mapping(job.at(), job.left(), true)?;
    let (storage, offset, len) = (mapping.storage(), mapping.offset(), mapping.length());
    let end = job.done.saturating_add(len);
    let _guard = storage.weak_write_blocker(offset..offset.saturating_add(len));
    let (mut at, mut left) = (offset, len);
    while job.done < end {
        job.aim(left);
        // SAFETY: the vectors are memory that `job` has pinned.
        match unsafe { sys::write_vectors(storage.file(), &job.vectors, at) } {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => {
                let bytes = bytes as u64;
                job.done = job.done.saturating_add(bytes);
                at = at.saturating_add(bytes);
                left = left.saturating_sub(bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Dropping the mapping takes the allocation back.
            Err(error) => return Err(error),
        }
    }
    access.commit_data_mapping(mapping)
}

impl Image for Qcow2Image {
    fn info(&self) -> BlockInfo {
        self.info
    }

    fn zeroing(&self, _space: ZeroedSpace) -> Zeroing {
        Zeroing::Write
    }

    fn quick(&self, job: &mut Job) -> Option<Result<(), Failed>> {
        if !matches!(job.work, Work::Read | Work::Write) || self.damaged.load(Ordering::Acquire) {
            return None;
        }
        match self.transfer(job, Patience::None) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            result => Some(result.map_err(|error| self.failed(error))),
        }
    }

    fn run(&self, job: &mut Job) -> Result<(), Failed> {
        let reads = job.work == Work::Read;
        if self.damaged.load(Ordering::Acquire) && !reads {
            let why = "the image is damaged, and is not written to any more";
            return Err(Failed::new(BlockError::Io, why));
        }
        let result = match job.work {
            Work::Read | Work::Write => self.transfer(job, Patience::Full),
            Work::Flush | Work::Discard | Work::Zero(_) => self.others(job),
        };
        result.map_err(|error| self.failed(error))
    }
}
