//! QEMU's lock bytes.
//!
//! Each permission has a number: 0 to read what is consistent, 1 to write, 3 to resize. Who has
//! permission *n* holds a shared lock on byte 100 + n of the file; who doesn't want anybody else
//! to have it, one on byte 200 + n. First one takes one's own locks, then one looks whether there
//! are any that contradict them. Of two that come at the same time both may see the other, and both
//! are refused, but never neither.
//!
//! The locks are open file description locks: they don't go when some other descriptor of the same
//! file is closed, as those of POSIX do (fcntl(2)).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::holder;
use crate::error::DiskError;
use crate::options::DiskAccess;

const HAS: i64 = 100;
const UNSHARED: i64 = 200;
const READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// Nobody else may do these, whether we write or only read.
const NOT_SHARED: [i64; 2] = [WRITE, RESIZE];

fn permissions(access: DiskAccess) -> &'static [i64] {
    match access {
        DiskAccess::ReadWrite => &[READ, WRITE, RESIZE],
        DiskAccess::ReadOnly => &[READ],
    }
}

pub(super) fn lock(file: &File, path: &Path, access: DiskAccess) -> Result<(), DiskError> {
    let own = permissions(access).iter().map(|n| HAS + n);
    for byte in own.chain(NOT_SHARED.map(|n| UNSHARED + n)) {
        match share(file, byte) {
            Ok(()) => {}
            Err(error) if has_no_locks(&error) && access == DiskAccess::ReadOnly => return Ok(()),
            Err(error) => return Err(DiskError::host("lock", path)(error)),
        }
    }
    let against = permissions(access).iter().map(|n| UNSHARED + n);
    for byte in against.chain(NOT_SHARED.map(|n| HAS + n)) {
        if is_held_by_others(file, byte).map_err(DiskError::host("lock", path))? {
            return Err(DiskError::InUse {
                path: path.to_owned(),
                holder: holder::find(file, byte),
            });
        }
    }
    Ok(())
}

/// The file system has no locks: then nobody can have one either, but a writer would be unsafe.
fn has_no_locks(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOLCK | libc::EOPNOTSUPP))
}

fn request(kind: libc::c_int, byte: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}

fn share(file: &File, byte: i64) -> io::Result<()> {
    let wanted = request(libc::F_RDLCK, byte);
    // SAFETY: the descriptor is open and `wanted` a lock request that outlives the call.
    let refused = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const wanted) };
    if refused == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether any other open file holds a lock on the byte.
fn is_held_by_others(file: &File, byte: i64) -> io::Result<bool> {
    let mut asked = request(libc::F_WRLCK, byte);
    // SAFETY: as in `share`; the kernel writes its answer into `asked`.
    let refused = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut asked) };
    match refused {
        0 => Ok(libc::c_int::from(asked.l_type) != libc::F_UNLCK),
        _ => {
            let error = io::Error::last_os_error();
            if has_no_locks(&error) { Ok(false) } else { Err(error) }
        }
    }
}
