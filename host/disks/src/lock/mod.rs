//! Who may open an image: one writer, or any number of readers.
//!
//! On Linux the locks are those of QEMU (its `block/file-posix.c` describes them), so that it and
//! its tools refuse our images and we refuse theirs. They belong to the open file: they go with it,
//! also when the program is killed.

mod holder;

#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod system;
#[cfg(not(target_os = "linux"))]
#[path = "other.rs"]
mod system;

use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::error::DiskError;
use crate::options::DiskAccess;

pub use holder::Holder;

/// Who lets an image go may need a moment for it: a program that ends, a child that a program has
/// just forked and that has its open files until it runs another program.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// Locks an open image until the file is closed.
///
/// # Errors
/// Somebody has it who doesn't share it, or a file that is to be written can't be locked.
pub(crate) fn lock(file: &File, path: &Path, access: DiskAccess) -> Result<(), DiskError> {
    let mut tries = TRIES;
    loop {
        match system::lock(file, path, access) {
            Err(DiskError::InUse { .. }) if tries > 0 => tries = tries.saturating_sub(1),
            result => return result,
        }
        thread::sleep(PAUSE);
    }
}
