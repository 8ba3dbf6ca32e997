//! Locks where only whole files can be locked.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::Holder;
use crate::error::DiskError;
use crate::options::DiskAccess;

pub(super) fn lock(file: &File, path: &Path, access: DiskAccess) -> Result<(), DiskError> {
    let locked = match access {
        DiskAccess::ReadWrite => file.try_lock(),
        DiskAccess::ReadOnly => file.try_lock_shared(),
    };
    match locked {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            Err(DiskError::InUse { path: path.to_owned(), holder: Holder::Unknown })
        }
        Err(TryLockError::Error(error)) => Err(DiskError::host("lock", path)(error)),
    }
}
