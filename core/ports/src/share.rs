//! Shared folders: messages of a file system between a guest and a server, by value.

use alloc::sync::Weak;
use alloc::vec::Vec;

use crate::block::GuestRange;

/// One message (of FUSE) and the room for its answer, both in guest memory. The guest may change
/// them at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareRequest {
    /// Comes back with the completion. Chosen by who submits, unique among those under way.
    pub token: u64,
    /// The message.
    pub message: Vec<GuestRange>,
    /// Room for the answer.
    pub answer: Vec<GuestRange>,
}

/// A server of a shared folder.
pub trait ShareBackend: Send + Sync {
    /// Where completions go; told once, before the first request. They come from any thread, also
    /// from inside `submit`, so who submits holds no lock that the receiver takes.
    fn connect(&self, to: Weak<dyn ShareCompletions>);
    /// Takes requests and returns soon. Each is completed exactly once, in any order, whatever
    /// happens.
    fn submit(&self, requests: Vec<ShareRequest>);
    /// Waits until nothing is under way.
    fn drain(&self);
    /// The guest has been reset: what it had open is closed. Nothing is under way.
    fn reset(&self);
}

/// Who waits for completions.
pub trait ShareCompletions: Send + Sync {
    /// The request is done; so many bytes of the room for the answer are filled.
    fn completed(&self, token: u64, written: u32);
}
