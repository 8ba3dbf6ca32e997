//! A file that tells `perf` of translated code, in its jitdump format: `jit-PID.dump`.
//!
//! `perf record` notices that a process maps such a file executable; `perf inject --jit` reads it
//! then, and makes an ELF image of each piece of code, so that samples in it have a name and can
//! be annotated. Times are those of CLOCK_MONOTONIC, which `perf record -k mono` uses too, because
//! the same addresses hold other code after the code cache was emptied.
//!
//! The format is that of Linux's `tools/perf/Documentation/jitdump-specification.txt`, version 1,
//! in the byte order of the host:
//!
//! | bytes | file header | record header | of JIT_CODE_LOAD, behind the record header |
//! |---|---|---|---|
//! | 0 | magic, `JiTD` | kind | process |
//! | 4 | version | bytes of the record | thread |
//! | 8 | bytes of the header | time in ns (8 bytes) | address (8 bytes) |
//! | 12 | ELF machine | | |
//! | 16 | 0 | | where it runs: the same (8 bytes) |
//! | 20 | process | | |
//! | 24 | time in ns (8 bytes) | | bytes of code (8 bytes) |
//! | 32 | flags (8 bytes) | | number of the piece (8 bytes) |
//! | 40 | | | name, NUL, code |

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod linux;
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod other;

use std::path::PathBuf;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use linux::JitDump;
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub use other::JitDump;

/// Why there is no such file.
#[derive(Debug, thiserror::Error)]
pub enum JitDumpError {
    /// It can't be made.
    #[error("can't write the jitdump `{path}`")]
    Create {
        /// Its path.
        path: PathBuf,
        /// The host's reason.
        #[source]
        source: std::io::Error,
    },
    /// It can't be mapped executable, which is how `perf` finds it.
    #[error("can't map the jitdump `{path}` executable, so that perf would not find it")]
    Map {
        /// Its path.
        path: PathBuf,
        /// The host's reason.
        #[source]
        source: std::io::Error,
    },
    /// This host has no `perf`.
    #[error("only Linux on x86-64 has perf and its jitdump")]
    Unavailable,
}
