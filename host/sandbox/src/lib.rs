//! What the process of a virtual machine gives up before its guest runs, so that a guest that
//! takes over a part of it gets little.
//!
//! - [`VcpuFilter`]: the threads of vCPUs do computations and I/O on what is open already; a
//!   seccomp filter refuses them everything else (open, connect, exec, memory that can be written
//!   and run). A refused call ends the machine with a report, see [`watch`].
//! - [`confine_files`]: the process reaches the files of its machine only, by Landlock.
//!
//! Both need Linux; the filter x86-64 too. Elsewhere nothing is confined, and [`support`] says so.

mod access;
mod error;
#[cfg(target_os = "linux")]
mod files;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod filter;
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod no_filter;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod provoke;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod refusal;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod rules;
mod support;

pub use access::{FileAccess, Right};
pub use error::SandboxError;
#[cfg(target_os = "linux")]
pub use files::confine_files;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use filter::VcpuFilter;
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub use no_filter::{VcpuFilter, provoke, watch};
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use provoke::provoke;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use refusal::watch;
pub use support::{Support, support};

/// Does nothing: this system has no Landlock.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub fn confine_files(_access: &FileAccess) -> Result<(), SandboxError> {
    Ok(())
}

/// A call that a vCPU thread made and must not make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which vCPU's thread.
    pub vcpu: u32,
    /// The system call: its name, or its number if it is none that we know.
    pub call: String,
}

/// A call that the filter refuses, for tests of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provocation {
    /// Opens a file.
    Open,
    /// Connects a socket.
    Connect,
    /// Runs a program.
    Exec,
}
