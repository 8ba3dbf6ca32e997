//! Calls that the filter refuses, made on purpose by tests of that.

use std::ptr::{null, null_mut};

use crate::Provocation;

/// Makes the call, which does no harm where it is not refused.
pub fn provoke(provocation: Provocation) {
    match provocation {
        Provocation::Open => {
            // SAFETY: the path is a C string. The descriptor is left open, which harms nobody.
            unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        }
        Provocation::Connect => {
            // SAFETY: no descriptor and no address: at worst an error.
            unsafe { libc::connect(-1, null(), 0) };
        }
        Provocation::Exec => {
            let arguments = [null_mut::<libc::c_char>(); 1];
            // SAFETY: a C string and an empty list; there is no such program.
            unsafe {
                libc::execve(c"/dev/null".as_ptr(), arguments.as_ptr().cast(), null());
            }
        }
    }
}
