//! Directories that are open.

use std::mem::MaybeUninit;

use parking_lot::Mutex;
use rustix::fs::{self, FileType, RawDir, SeekFrom};
use rustix::io::Errno;

use super::open::Open;
use super::{Request, Server};
use crate::beneath::Place;
use crate::wire::{DATA_MAX, ROOT, Writer};

/// Bytes of entries that are read from the host at once.
const BUFFER: usize = 32 << 10;
/// Bytes of an entry before its name, and of the attributes before that.
const ENTRY_LEN: usize = 24;
const ATTRIBUTES_LEN: usize = 128;

/// What a listing has for each name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Listing {
    /// Number and type.
    Plain,
    /// All that a lookup tells.
    WithAttributes,
}

fn type_number(kind: FileType) -> u32 {
    // The upper bits of a mode are the numbers of directory entries.
    (kind.as_raw_mode() >> 12) & 0o17
}

impl Server {
    pub(super) fn open_folder(&self, request: Request<'_>) -> Result<Vec<u8>, Errno> {
        self.files.lock().has_room()?;
        let path = self.nodes.lock().path(request.node)?;
        let list = Mutex::new(self.beneath.list(&path)?);
        let number = self.files.lock().add(Open::Folder { list, node: request.node })?;
        let mut out = Writer::default();
        out.u64(number).zeros(8);
        Ok(out.finish())
    }

    pub(super) fn fsync_folder(&self, mut request: Request<'_>) -> Result<(), Errno> {
        match &*self.files.lock().get(request.body.u64()?)? {
            Open::Folder { list, .. } => fs::fsync(&*list.lock()),
            Open::File { .. } => Err(Errno::NOTDIR),
        }
    }

    pub(super) fn read_folder(
        &self,
        mut request: Request<'_>,
        listing: Listing,
    ) -> Result<Vec<u8>, Errno> {
        let (number, from, size) = (request.body.u64()?, request.body.u64()?, request.body.u32()?);
        let open = self.files.lock().get(number)?;
        let Open::Folder { list, node } = &*open else { return Err(Errno::NOTDIR) };
        let room = (size as usize).min(request.room).min(DATA_MAX);
        let list = list.lock();
        let from = i64::try_from(from).map_err(|_| Errno::INVAL)?;
        fs::seek(&*list, SeekFrom::Start(from as u64))?;
        let mut out = Writer::default();
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER.min(room.max(1024))];
        let mut entries = RawDir::new(&*list, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let len = (ENTRY_LEN + name.len()).next_multiple_of(8);
            let attributes = if listing == Listing::Plain { 0 } else { ATTRIBUTES_LEN };
            if out.len() + attributes + len > room {
                break;
            }
            let itself = matches!(name, b"." | b"..");
            if listing == Listing::WithAttributes {
                self.attributes_in_list(*node, (!itself).then_some(name), &mut out);
            }
            // What is above the folder is not the guest's to know.
            let hidden = itself && *node == ROOT;
            out.u64(if hidden { ROOT } else { entry.ino() }).u64(entry.next_entry_cookie());
            out.u32(name.len() as u32).u32(type_number(entry.file_type()));
            out.raw(name).zeros(len - ENTRY_LEN - name.len());
        }
        Ok(out.finish())
    }

    /// What a lookup tells; nothing for a name that is gone meanwhile, or none.
    fn attributes_in_list(&self, folder: u64, name: Option<&[u8]>, out: &mut Writer) {
        let before = out.len();
        let told = name.ok_or(Errno::NOENT).and_then(|name| {
            let place: Place = self.place_in(folder, name)?;
            self.entry(folder, &place, out)
        });
        if told.is_err() {
            out.zeros(ATTRIBUTES_LEN - (out.len() - before));
        }
    }
}
