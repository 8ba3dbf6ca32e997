//! Disks in files of a host: [`Disk`] is a `BlockBackend` over a raw or qcow2 image, and [`tools`]
//! makes, describes, converts, resizes and checks images.
//!
//! A request's data goes between the image and guest memory without a copy in between: the memory
//! is pinned (`kasane_memory::PinnedMemory`) and its addresses are given to the host. What doesn't
//! wait is done by the thread that submits it, the rest by `io_uring` or threads (`disk` has the
//! measurements behind it). A thread that submits needs these system calls: `preadv2`, `pwritev`, `lseek`,
//! `io_uring_enter`, `futex`.
//!
//! This crate needs `unsafe` to give the kernel addresses of guest memory, of which there may be
//! no Rust references, and to call what no safe crate has (locks of open file descriptions, the
//! ring).

mod disk;
mod engine;
mod error;
mod files;
mod format;
mod image;
mod job;
mod limits;
mod lock;
mod options;
mod qcow2;
mod raw;
mod sink;
mod sys;
pub mod tools;

pub use disk::Disk;
pub use error::DiskError;
pub use files::files;
pub use lock::Holder;
pub use options::{
    DiskAccess, DiskFormat, DiskLimits, DiskOptions, HostCache, UnknownFormat, Waiting,
};
pub use sink::Trouble;
