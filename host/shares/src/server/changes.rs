//! Names that come, go and change.

use rustix::fs::{self, AtFlags, FileType, OFlags, RenameFlags};
use rustix::io::Errno;

use super::lookup::mode_for;
use super::{Request, Server};
use crate::beneath::Place;
use crate::wire::{ROOT, Writer};

/// What is removed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    File,
    Folder,
}

/// Which of the two messages it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RenameForm {
    Plain,
    WithFlags,
}

impl Server {
    fn made(&self, folder: u64, place: &Place) -> Result<Vec<u8>, Errno> {
        let mut out = Writer::default();
        self.entry(folder, place, &mut out)?;
        Ok(out.finish())
    }

    pub(super) fn symlink(&self, mut request: Request<'_>) -> Result<Vec<u8>, Errno> {
        let (name, target) = (request.body.name()?, request.body.target()?);
        self.may_change()?;
        let place = self.place_in(request.node, name)?;
        fs::symlinkat(target, &place.folder, name)?;
        self.made(request.node, &place)
    }

    /// Files, FIFOs and sockets; no devices.
    pub(super) fn make_node(&self, mut request: Request<'_>) -> Result<Vec<u8>, Errno> {
        let mode = request.body.u32()?;
        request.body.skip(12)?;
        let name = request.body.name()?;
        self.may_change()?;
        let place = self.place_in(request.node, name)?;
        let kind = FileType::from_raw_mode(mode);
        match kind {
            FileType::RegularFile => {
                place.create(OFlags::WRONLY | OFlags::EXCL, mode_for(kind, mode))?;
            }
            FileType::Fifo | FileType::Socket => {
                fs::mknodat(&place.folder, name, kind, mode_for(kind, mode), 0)?;
            }
            FileType::Directory
            | FileType::Symlink
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => return Err(Errno::PERM),
        }
        self.made(request.node, &place)
    }

    pub(super) fn make_folder(&self, mut request: Request<'_>) -> Result<Vec<u8>, Errno> {
        let mode = request.body.u32()?;
        request.body.skip(4)?;
        let name = request.body.name()?;
        self.may_change()?;
        let place = self.place_in(request.node, name)?;
        fs::mkdirat(&place.folder, name, mode_for(FileType::Directory, mode))?;
        self.made(request.node, &place)
    }

    pub(super) fn unlink(&self, mut request: Request<'_>, gone: Gone) -> Result<(), Errno> {
        let name = request.body.name()?;
        self.may_change()?;
        let place = self.place_in(request.node, name)?;
        let flags = match gone {
            Gone::File => AtFlags::empty(),
            Gone::Folder => AtFlags::REMOVEDIR,
        };
        fs::unlinkat(&place.folder, name, flags)?;
        self.nodes.lock().removed(request.node, name);
        Ok(())
    }

    pub(super) fn rename(&self, mut request: Request<'_>, form: RenameForm) -> Result<(), Errno> {
        let new_folder = request.body.u64()?;
        let mut flags = RenameFlags::empty();
        if form == RenameForm::WithFlags {
            flags = RenameFlags::from_bits_retain(request.body.u32()?);
            request.body.skip(4)?;
        }
        if !(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE).contains(flags) {
            return Err(Errno::INVAL);
        }
        let (name, new_name) = (request.body.name()?, request.body.name()?);
        self.may_change()?;
        let from = self.place_in(request.node, name)?;
        let to = self.place_in(new_folder, new_name)?;
        fs::renameat_with(&from.folder, name, &to.folder, new_name, flags)?;
        let (from, to) = ((request.node, name), (new_folder, new_name));
        let mut nodes = self.nodes.lock();
        if flags.contains(RenameFlags::EXCHANGE) {
            nodes.exchanged(from, to);
        } else if from != to {
            nodes.moved(from, to);
        }
        Ok(())
    }

    pub(super) fn link(&self, mut request: Request<'_>) -> Result<Vec<u8>, Errno> {
        let (old, name) = (request.body.u64()?, request.body.name()?);
        self.may_change()?;
        if old == ROOT {
            return Err(Errno::PERM);
        }
        let from = self.place_of(old)?;
        let place = self.place_in(request.node, name)?;
        // A link itself is linked to, never what it points to.
        fs::linkat(&from.folder, &from.name, &place.folder, name, AtFlags::empty())?;
        self.made(request.node, &place)
    }
}
