//! The file under a qcow2 image, as `imago` wants it. Ours and not `imago`'s, so that the file is
//! locked, opened once, and reached for data without a copy.

use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use imago::io_buffers::{IoVector, IoVectorMut};
use imago::storage::PreallocateMode;
use imago::storage::drivers::CommonStorageHelper;
use imago::{Storage, StorageOpenOptions};

use super::header::Header;
use super::order::Order;
use crate::sys;

/// An open, locked file.
pub(crate) struct ImageFile {
    file: File,
    path: PathBuf,
    helper: CommonStorageHelper,
    /// For an image that is written to while it has its name.
    order: Option<Order>,
}

impl ImageFile {
    /// A file whose contents nobody trusts yet, or that is only read.
    pub(crate) fn new(file: File, path: &Path) -> Self {
        Self { file, path: path.to_owned(), helper: CommonStorageHelper::default(), order: None }
    }
    /// An image that is sound at every moment.
    ///
    /// # Errors
    /// The host refuses.
    pub(crate) fn ordered(file: File, path: &Path, header: &Header) -> io::Result<Self> {
        let order = Some(Order::new(&file, header)?);
        Ok(Self { order, ..Self::new(file, path) })
    }
    /// See [`Order::settled`].
    pub(crate) fn settled(&self) {
        self.order.iter().for_each(Order::settled);
    }
    fn write(&self, data: &[u8], offset: u64) -> io::Result<()> {
        match &self.order {
            Some(order) => order.write(&self.file, data, offset),
            None => sys::write_at(&self.file, data, offset),
        }
    }
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl fmt::Debug for ImageFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl fmt::Display for ImageFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

/// Bytes of zeros that are written at once.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

fn write_zeros(file: &File, mut offset: u64, len: u64) -> io::Result<()> {
    let end = offset.saturating_add(len);
    while offset < end {
        let part = end.saturating_sub(offset).min(ZEROS.len() as u64);
        sys::write_at(file, ZEROS.get(..part as usize).unwrap_or_default(), offset)?;
        offset = offset.saturating_add(part);
    }
    Ok(())
}

impl Storage for ImageFile {
    fn open(_: StorageOpenOptions) -> io::Result<Self> {
        // Only files that we have opened and locked.
        Err(io::ErrorKind::Unsupported.into())
    }

    fn size(&self) -> io::Result<u64> {
        // Asked for before a cluster is taken, on a vCPU's thread too, which may not make the call
        // behind `metadata`. Nothing goes by the position.
        (&self.file).seek(SeekFrom::End(0))
    }

    fn resolve_relative_path<P: AsRef<Path>>(&self, relative: P) -> io::Result<PathBuf> {
        Ok(self.path.parent().unwrap_or(Path::new("")).join(relative))
    }

    fn get_filename(&self) -> Option<PathBuf> {
        Some(self.path.clone())
    }

    unsafe fn pure_readv(&self, bufv: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        let mut at = offset;
        let slices: Vec<IoSliceMut<'_>> = bufv.into_inner();
        for mut slice in slices {
            let read = sys::read_at(&self.file, &mut slice, at)?;
            slice.get_mut(read..).unwrap_or_default().fill(0);
            at = at.saturating_add(slice.len() as u64);
        }
        Ok(())
    }

    unsafe fn pure_writev(&self, bufv: IoVector<'_>, offset: u64) -> io::Result<()> {
        let mut at = offset;
        let slices: Vec<IoSlice<'_>> = bufv.into_inner();
        for slice in slices {
            self.write(&slice, at)?;
            at = at.saturating_add(slice.len() as u64);
        }
        Ok(())
    }

    unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        // A hole must not lie behind the end, where it would leave the file as short as it is.
        if offset.checked_add(length).is_some_and(|end| self.size().is_ok_and(|size| end <= size))
            && sys::punch_hole(&self.file, offset, length).is_ok()
        {
            return Ok(());
        }
        write_zeros(&self.file, offset, length)
    }

    unsafe fn pure_write_allocated_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        if offset.checked_add(length).is_some_and(|end| self.size().is_ok_and(|size| end <= size))
            && sys::zero_range(&self.file, offset, length).is_ok()
        {
            return Ok(());
        }
        write_zeros(&self.file, offset, length)
    }

    unsafe fn pure_discard(&self, offset: u64, length: u64) -> io::Result<()> {
        match sys::punch_hole(&self.file, offset, length) {
            Err(error) if !sys::is_unsupported(&error) => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        match &self.order {
            Some(order) => order.sync(&self.file),
            None => self.file.sync_data(),
        }
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        &self.helper
    }

    fn resize(&self, new_size: u64, prealloc_mode: PreallocateMode) -> io::Result<()> {
        match prealloc_mode {
            PreallocateMode::None | PreallocateMode::Zero => self.file.set_len(new_size),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}
