//! The server: one message in, one answer out, from any number of threads at once.

mod changes;
mod files;
mod folders;
mod lookup;
mod open;

use std::io;
use std::path::Path;

use parking_lot::Mutex;
use rustix::fs::{OFlags, Stat};
use rustix::io::Errno;

use crate::beneath::{Beneath, Place};
use crate::nodes::Nodes;
use crate::wire::{self, DATA_MAX, InHeader, OUT_HEADER, ROOT, Reader, Writer, init, op};
use crate::{ShareAccess, ShareError};
use open::OpenFiles;

/// How long the guest may believe what it was told, in seconds: what changes on the host is seen
/// after that.
const VALID_S: u64 = 1;
/// Requests that the guest may have under way for its read-ahead.
const BACKGROUND: u16 = 64;

/// The server of one folder.
pub struct Server {
    beneath: Beneath,
    access: ShareAccess,
    nodes: Mutex<Nodes>,
    files: Mutex<OpenFiles>,
}

/// A request that is being answered.
#[derive(Clone, Copy)]
struct Request<'a> {
    node: u64,
    body: Reader<'a>,
    /// Bytes that the answer may have behind its header.
    room: usize,
}

impl Server {
    /// Opens a folder. Nodes and open files get numbers behind `last`: a guest that goes on from a
    /// saved state has numbers of another server's, which must mean nothing here.
    ///
    /// # Errors
    /// When it can't be opened, or the kernel is too old.
    pub fn open(folder: &Path, access: ShareAccess, last: u64) -> Result<Self, ShareError> {
        let error = |error: Errno| ShareError::Open {
            path: folder.to_owned(),
            source: io::Error::from(error),
        };
        let beneath = Beneath::open(folder).map_err(error)?;
        match beneath.list(b"") {
            Err(Errno::NOSYS) => return Err(ShareError::OldKernel),
            other => drop(other.map_err(error)?),
        }
        let (nodes, files) = (Mutex::new(Nodes::behind(last)), Mutex::new(OpenFiles::new(last)));
        Ok(Self { beneath, access, nodes, files })
    }

    /// The guest has been reset: it knows nothing and has nothing open.
    pub fn forget_all(&self) {
        self.nodes.lock().forget_all();
        self.files.lock().clear();
    }

    /// Answers `message`; the answer has at most `room` bytes. Some messages have none.
    #[must_use]
    pub fn answer(&self, message: &[u8], room: usize) -> Option<Vec<u8>> {
        let mut body = Reader::new(message);
        // Without its header nobody knows whose answer it would be.
        let header = InHeader::read(&mut body).ok()?;
        let body_room = room.saturating_sub(OUT_HEADER);
        let request = Request { node: header.node, body, room: body_room };
        let result = if message.len() > wire::MESSAGE_MAX {
            Err(Errno::MSGSIZE)
        } else {
            match self.serve(header.op, request) {
                Ok(None) => return None,
                Ok(Some(bytes)) if bytes.len() > body_room => Err(Errno::OVERFLOW),
                Ok(Some(bytes)) => Ok(bytes),
                Err(error) => Err(error),
            }
        };
        let answer = wire::answer(header.unique, result.as_deref().map_err(|error| *error));
        (answer.len() <= room).then_some(answer)
    }

    /// The body of the answer, if there is one.
    fn serve(&self, operation: u32, request: Request<'_>) -> Result<Option<Vec<u8>>, Errno> {
        let done = |()| Vec::new();
        match operation {
            op::FORGET => return self.forget(request).map(|()| None),
            op::BATCH_FORGET => return self.forget_many(request).map(|()| None),
            op::INTERRUPT => return Ok(None),
            op::INIT => self.init(request),
            op::LOOKUP => self.lookup(request),
            op::GETATTR => self.get_attributes(request),
            op::SETATTR => self.set_attributes(request),
            op::READLINK => self.read_link(request),
            op::STATFS => self.statfs(request),
            op::SYMLINK => self.symlink(request),
            op::MKNOD => self.make_node(request),
            op::MKDIR => self.make_folder(request),
            op::UNLINK => self.unlink(request, changes::Gone::File).map(done),
            op::RMDIR => self.unlink(request, changes::Gone::Folder).map(done),
            op::RENAME => self.rename(request, changes::RenameForm::Plain).map(done),
            op::RENAME2 => self.rename(request, changes::RenameForm::WithFlags).map(done),
            op::LINK => self.link(request),
            op::OPEN => self.open_file(request),
            op::CREATE => self.create(request),
            op::READ => self.read(request),
            op::WRITE => self.write(request),
            // Nothing is held back, so there is nothing to do.
            op::FLUSH => Ok(Vec::new()),
            op::FSYNC => self.fsync(request).map(done),
            op::FSYNCDIR => self.fsync_folder(request).map(done),
            op::RELEASE | op::RELEASEDIR => self.release(request).map(done),
            op::FALLOCATE => self.allocate(request).map(done),
            op::LSEEK => self.seek(request),
            op::COPY_FILE_RANGE => self.copy(request),
            op::OPENDIR => self.open_folder(request),
            op::READDIR => self.read_folder(request, folders::Listing::Plain),
            op::READDIRPLUS => self.read_folder(request, folders::Listing::WithAttributes),
            op::DESTROY => {
                self.forget_all();
                Ok(Vec::new())
            }
            op::IOCTL => Err(Errno::NOTTY),
            // The guest then does without: extended attributes, locks of its own.
            _ => Err(Errno::NOSYS),
        }
        .map(Some)
    }

    /// Says what both sides can.
    fn init(&self, mut request: Request<'_>) -> Result<Vec<u8>, Errno> {
        let (major, minor) = (request.body.u32()?, request.body.u32()?);
        let mut out = Writer::default();
        if major > init::MAJOR {
            // The guest comes again with ours.
            out.u32(init::MAJOR).u32(init::MINOR).zeros(56);
            return Ok(out.finish());
        }
        if major < init::MAJOR || minor < init::OLDEST_MINOR {
            return Err(Errno::PROTO);
        }
        let (read_ahead, offered) = (request.body.u32()?, request.body.u32()?);
        let wanted = init::ASYNC_READ
            | init::BIG_WRITES
            | init::AUTO_INVAL_DATA
            | init::DO_READDIRPLUS
            | init::READDIRPLUS_AUTO
            | init::PARALLEL_DIROPS
            | init::MAX_PAGES;
        self.forget_all();
        out.u32(init::MAJOR).u32(init::MINOR).u32(read_ahead).u32(offered & wanted);
        out.u16(BACKGROUND).u16(BACKGROUND / 4 * 3).u32(DATA_MAX as u32).u32(1);
        out.u16((DATA_MAX / 4096) as u16).u16(0).zeros(32);
        Ok(out.finish())
    }

    /// Whether the folder may be changed.
    fn may_change(&self) -> Result<(), Errno> {
        match self.access {
            ShareAccess::ReadWrite => Ok(()),
            ShareAccess::ReadOnly => Err(Errno::ROFS),
        }
    }

    /// A name in a directory.
    fn place_in(&self, folder: u64, name: &[u8]) -> Result<Place, Errno> {
        let path = self.nodes.lock().path(folder)?;
        Ok(Place { folder: self.beneath.folder(&path)?, name: name.to_vec() })
    }

    /// Where a node is. The root is in nothing.
    fn place_of(&self, node: u64) -> Result<Place, Errno> {
        if node == ROOT {
            return Ok(Place { folder: self.beneath.folder(b"")?, name: b".".to_vec() });
        }
        let (path, name) = self.nodes.lock().place(node)?;
        Ok(Place { folder: self.beneath.folder(&path)?, name })
    }

    /// Tells the guest of a name (`fuse_entry_out`).
    fn entry(&self, folder: u64, place: &Place, out: &mut Writer) -> Result<u64, Errno> {
        let stat = place.stat()?;
        let identity = (stat.st_dev, stat.st_ino);
        let node = self.nodes.lock().told(folder, &place.name, identity)?;
        write_entry(node, &stat, out);
        Ok(node)
    }
}

fn write_entry(node: u64, stat: &Stat, out: &mut Writer) {
    // Numbers of nodes are never used again, so there are no generations.
    out.u64(node).u64(0).u64(VALID_S).u64(VALID_S).zeros(8).attributes(stat);
}

/// Flags of opening that a guest may choose (Linux' numbers on x86).
fn open_flags(flags: u32) -> OFlags {
    let allowed = OFlags::RWMODE | OFlags::APPEND | OFlags::DSYNC | OFlags::SYNC;
    OFlags::from_bits_retain(flags) & allowed
}

/// Whether these flags allow writing.
fn writes(flags: OFlags) -> bool {
    flags & OFlags::RWMODE != OFlags::RDONLY
}
