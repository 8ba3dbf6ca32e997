//! Files that are open.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{self, FallocateFlags, FileType, OFlags, SeekFrom};
use rustix::io::Errno;

use super::lookup::mode_for;
use super::open::Open;
use super::{Request, Server, open_flags, writes};
use crate::wire::{DATA_MAX, Writer};

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Offsets are signed on the host.
fn offset(value: u64) -> Result<u64, Errno> {
    i64::try_from(value).map(|_| value).map_err(|_| Errno::INVAL)
}

fn write_open(number: u64, out: &mut Writer) {
    out.u64(number).zeros(8);
}

impl Server {
    fn keep(&self, file: File, node: u64) -> Result<u64, Errno> {
        let number = self.files.lock().add(Open::File { file, node })?;
        self.nodes.lock().opened(node, number);
        Ok(number)
    }

    fn opened(&self, number: u64) -> Result<Arc<Open>, Errno> {
        self.files.lock().get(number)
    }

    pub(super) fn open_file(&self, mut request: Request<'_>) -> Result<Vec<u8>, Errno> {
        let flags = open_flags(request.body.u32()?);
        if writes(flags) {
            self.may_change()?;
        }
        self.files.lock().has_room()?;
        let file = self.place_of(request.node)?.open(flags)?;
        let mut out = Writer::default();
        write_open(self.keep(file, request.node)?, &mut out);
        Ok(out.finish())
    }

    pub(super) fn create(&self, mut request: Request<'_>) -> Result<Vec<u8>, Errno> {
        let asked = request.body.u32()?;
        let mode = mode_for(FileType::RegularFile, request.body.u32()?);
        request.body.skip(8)?;
        let name = request.body.name()?;
        self.may_change()?;
        self.files.lock().has_room()?;
        let place = self.place_in(request.node, name)?;
        let exclusive = OFlags::from_bits_retain(asked) & (OFlags::EXCL | OFlags::TRUNC);
        let file = place.create(open_flags(asked) | exclusive, mode)?;
        let mut out = Writer::default();
        let node = self.entry(request.node, &place, &mut out)?;
        write_open(self.keep(file, node)?, &mut out);
        Ok(out.finish())
    }

    pub(super) fn read(&self, mut request: Request<'_>) -> Result<Vec<u8>, Errno> {
        let (number, at, size) =
            (request.body.u64()?, offset(request.body.u64()?)?, request.body.u32()?);
        let open = self.opened(number)?;
        let file = open.file()?;
        let mut bytes = vec![0; (size as usize).min(request.room).min(DATA_MAX)];
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, at.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(len) => done += len,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) if done > 0 => break,
                Err(error) => return Err(errno(&error)),
            }
        }
        bytes.truncate(done);
        Ok(bytes)
    }

    pub(super) fn write(&self, mut request: Request<'_>) -> Result<Vec<u8>, Errno> {
        let (number, at) = (request.body.u64()?, offset(request.body.u64()?)?);
        let size = request.body.u32()? as usize;
        request.body.skip(20)?;
        let data = request.body.bytes(size)?;
        // What is open for writing was opened when that was allowed; still.
        self.may_change()?;
        let open = self.opened(number)?;
        open.file()?.write_all_at(data, at).map_err(|error| errno(&error))?;
        let mut out = Writer::default();
        out.u32(size as u32).zeros(4);
        Ok(out.finish())
    }

    pub(super) fn fsync(&self, mut request: Request<'_>) -> Result<(), Errno> {
        let (number, flags) = (request.body.u64()?, request.body.u32()?);
        let open = self.opened(number)?;
        if flags & 1 != 0 { fs::fdatasync(open.file()?) } else { fs::fsync(open.file()?) }
    }

    pub(super) fn release(&self, mut request: Request<'_>) -> Result<(), Errno> {
        let number = request.body.u64()?;
        let open = self.files.lock().remove(number)?;
        self.nodes.lock().closed(open.node(), number);
        Ok(())
    }

    pub(super) fn allocate(&self, mut request: Request<'_>) -> Result<(), Errno> {
        let (number, at, len) = (request.body.u64()?, request.body.u64()?, request.body.u64()?);
        let mode = FallocateFlags::from_bits(request.body.u32()?).ok_or(Errno::OPNOTSUPP)?;
        self.may_change()?;
        let open = self.opened(number)?;
        fs::fallocate(open.file()?, mode, offset(at)?, offset(len)?)
    }

    /// Only for data and holes: all other positions the guest knows itself.
    pub(super) fn seek(&self, mut request: Request<'_>) -> Result<Vec<u8>, Errno> {
        let (number, at, whence) =
            (request.body.u64()?, offset(request.body.u64()?)?, request.body.u32()?);
        let to = match whence {
            3 => SeekFrom::Data(at),
            4 => SeekFrom::Hole(at),
            _ => return Err(Errno::INVAL),
        };
        let found = fs::seek(self.opened(number)?.file()?, to)?;
        let mut out = Writer::default();
        out.u64(found);
        Ok(out.finish())
    }

    pub(super) fn copy(&self, mut request: Request<'_>) -> Result<Vec<u8>, Errno> {
        let (from, mut from_at) = (request.body.u64()?, offset(request.body.u64()?)?);
        request.body.skip(8)?;
        let (to, mut to_at) = (request.body.u64()?, offset(request.body.u64()?)?);
        let len = request.body.u64()?.min(1 << 30) as usize;
        self.may_change()?;
        let (from, to) = (self.opened(from)?, self.opened(to)?);
        let copied = fs::copy_file_range(
            from.file()?,
            Some(&mut from_at),
            to.file()?,
            Some(&mut to_at),
            len,
        )?;
        let mut out = Writer::default();
        out.u32(copied as u32).zeros(4);
        Ok(out.finish())
    }
}
