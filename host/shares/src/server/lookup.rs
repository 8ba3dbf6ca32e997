//! Names and attributes.

use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT,
    Uid,
};
use rustix::io::Errno;

use super::{Request, Server, VALID_S};
use crate::beneath::kind;
use crate::wire::{ROOT, Reader, TARGET_MAX, Writer, set};

/// Permission bits that a file may have; directories have the sticky bit too.
const FILE_MODE: u32 = 0o777;
const FOLDER_MODE: u32 = 0o1777;

/// The mode that a file of this type gets of what the guest wants.
pub(super) fn mode_for(kind: FileType, wanted: u32) -> Mode {
    let bits = if kind == FileType::Directory { FOLDER_MODE } else { FILE_MODE };
    Mode::from_raw_mode(wanted & bits)
}

/// What SETATTR says.
struct Wanted {
    valid: u32,
    file: u64,
    size: u64,
    times: Timestamps,
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Wanted {
    fn read(body: &mut Reader<'_>) -> Result<Self, Errno> {
        let valid = body.u32()?;
        body.skip(4)?;
        let (file, size) = (body.u64()?, body.u64()?);
        body.skip(8)?;
        let (atime, mtime) = (body.u64()?, body.u64()?);
        body.skip(8)?;
        let (atime_ns, mtime_ns) = (body.u32()?, body.u32()?);
        body.skip(4)?;
        let mode = body.u32()?;
        body.skip(4)?;
        let (uid, gid) = (body.u32()?, body.u32()?);
        let time = |seconds: u64, ns: u32, at: u32, now: u32| {
            let tv_nsec = match (valid & at != 0, valid & now != 0) {
                (_, true) => UTIME_NOW,
                (true, false) => i64::from(ns).min(999_999_999),
                (false, false) => UTIME_OMIT,
            };
            Timespec { tv_sec: seconds as i64, tv_nsec }
        };
        let times = Timestamps {
            last_access: time(atime, atime_ns, set::ATIME, set::ATIME_NOW),
            last_modification: time(mtime, mtime_ns, set::MTIME, set::MTIME_NOW),
        };
        Ok(Self { valid, file, size, times, mode, uid, gid })
    }
    fn has(&self, bits: u32) -> bool {
        self.valid & bits != 0
    }
}

fn attributes(stat: &Stat) -> Vec<u8> {
    let mut out = Writer::default();
    out.u64(VALID_S).zeros(8).attributes(stat);
    out.finish()
}

impl Server {
    pub(super) fn lookup(&self, mut request: Request<'_>) -> Result<Vec<u8>, Errno> {
        let place = self.place_in(request.node, request.body.name()?)?;
        let mut out = Writer::default();
        self.entry(request.node, &place, &mut out)?;
        Ok(out.finish())
    }

    pub(super) fn forget(&self, mut request: Request<'_>) -> Result<(), Errno> {
        let times = request.body.u64()?;
        self.nodes.lock().forget(request.node, times);
        Ok(())
    }

    pub(super) fn forget_many(&self, mut request: Request<'_>) -> Result<(), Errno> {
        let count = request.body.u32()?;
        request.body.skip(4)?;
        let mut nodes = self.nodes.lock();
        // What isn't there ends it.
        for _ in 0..count {
            nodes.forget(request.body.u64()?, request.body.u64()?);
        }
        Ok(())
    }

    /// Attributes of a node: by its name, or by a file that is still open when that is gone.
    fn stat(&self, node: u64, file: Option<u64>) -> Result<Stat, Errno> {
        if node == ROOT {
            return self.beneath.stat_root();
        }
        if let Some(file) = file {
            return fs::fstat(self.files.lock().get(file)?.file()?);
        }
        match self.place_of(node).and_then(|place| place.stat()) {
            Err(Errno::STALE | Errno::NOENT) => {
                let file = self.nodes.lock().open_file(node).ok_or(Errno::STALE)?;
                self.stat(node, Some(file))
            }
            other => other,
        }
    }

    pub(super) fn get_attributes(&self, mut request: Request<'_>) -> Result<Vec<u8>, Errno> {
        let flags = request.body.u32()?;
        request.body.skip(4)?;
        let file = request.body.u64()?;
        let file = (flags & set::GETATTR_FH != 0).then_some(file);
        Ok(attributes(&self.stat(request.node, file)?))
    }

    pub(super) fn set_attributes(&self, mut request: Request<'_>) -> Result<Vec<u8>, Errno> {
        let wanted = Wanted::read(&mut request.body)?;
        self.may_change()?;
        let mut file = wanted.has(set::FH).then_some(wanted.file);
        if file.is_none() && request.node != ROOT && self.nodes.lock().path(request.node).is_err() {
            file = self.nodes.lock().open_file(request.node);
        }
        match file {
            Some(number) => {
                let open = self.files.lock().get(number)?;
                self.set_by_file(&wanted, open.file()?)?;
            }
            None => self.set_by_name(request.node, &wanted)?,
        }
        Ok(attributes(&self.stat(request.node, file)?))
    }

    fn set_by_file(&self, wanted: &Wanted, file: &std::fs::File) -> Result<(), Errno> {
        let stat = fs::fstat(file)?;
        if wanted.has(set::MODE) {
            fs::fchmod(file, mode_for(kind(&stat), wanted.mode))?;
        }
        if let Some((uid, gid)) = owner(wanted, &stat) {
            fs::fchown(file, uid, gid)?;
        }
        if wanted.has(set::SIZE) {
            fs::ftruncate(file, wanted.size)?;
        }
        if wanted.has(set::ATIME | set::MTIME) {
            fs::futimens(file, &wanted.times)?;
        }
        Ok(())
    }

    fn set_by_name(&self, node: u64, wanted: &Wanted) -> Result<(), Errno> {
        let place = self.place_of(node)?;
        let stat = place.stat()?;
        if wanted.has(set::MODE) {
            place.chmod(mode_for(kind(&stat), wanted.mode))?;
        }
        if let Some((uid, gid)) = owner(wanted, &stat) {
            fs::chownat(&place.folder, &place.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if wanted.has(set::SIZE) {
            fs::ftruncate(place.open(OFlags::WRONLY)?, wanted.size)?;
        }
        if wanted.has(set::ATIME | set::MTIME) {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            fs::utimensat(&place.folder, &place.name, &wanted.times, flags)?;
        }
        Ok(())
    }

    pub(super) fn read_link(&self, request: Request<'_>) -> Result<Vec<u8>, Errno> {
        let place = self.place_of(request.node)?;
        let target = fs::readlinkat(&place.folder, &place.name, Vec::new())?.into_bytes();
        if target.len() > TARGET_MAX { Err(Errno::NAMETOOLONG) } else { Ok(target) }
    }

    pub(super) fn statfs(&self, _request: Request<'_>) -> Result<Vec<u8>, Errno> {
        let stat = self.beneath.statvfs()?;
        let mut out = Writer::default();
        out.u64(stat.f_blocks).u64(stat.f_bfree).u64(stat.f_bavail);
        out.u64(stat.f_files).u64(stat.f_ffree);
        out.u32(stat.f_bsize as u32).u32(stat.f_namemax as u32).u32(stat.f_frsize as u32).zeros(28);
        Ok(out.finish())
    }
}

/// The owner to set, if it isn't the one that the file has.
fn owner(wanted: &Wanted, stat: &Stat) -> Option<(Option<Uid>, Option<Gid>)> {
    // All ones are nobody's number, and mean "leave it".
    let uid = (wanted.has(set::UID) && wanted.uid != u32::MAX && wanted.uid != stat.st_uid)
        .then(|| Uid::from_raw(wanted.uid));
    let gid = (wanted.has(set::GID) && wanted.gid != u32::MAX && wanted.gid != stat.st_gid)
        .then(|| Gid::from_raw(wanted.gid));
    (uid.is_some() || gid.is_some()).then_some((uid, gid))
}
