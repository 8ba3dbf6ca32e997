//! What each device has to do.

pub mod console;
pub mod disk;
pub mod entropy;
pub mod net;
pub mod sockets;

use alloc::format;
use alloc::string::String;

/// What was done, or what went wrong.
pub type Outcome = Result<String, String>;

/// A driver's error as a sentence about `what`.
fn driver(what: &str) -> impl Fn(virtio_drivers::Error) -> String {
    move |error| format!("{what}: {error}")
}
