//! What the tests share.
#![allow(dead_code)] // each test crate uses its part

pub(crate) mod client;
pub(crate) mod guest;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use guest::Guest;
use kasane_host_gdb::{ListenAddress, Server};

/// A socket of its own for each test.
pub(crate) fn socket() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("kasane-gdb-{}-{number}", std::process::id()))
}

/// A guest with a stub, and where the stub listens.
pub(crate) fn debugged(cpus: u32) -> (Arc<Guest>, Server, PathBuf) {
    let guest = Guest::start(cpus);
    let path = socket();
    let server = Server::start(&ListenAddress::Unix(path.clone()), guest.clone()).unwrap();
    (guest, server, path)
}
