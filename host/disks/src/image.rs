//! What every kind of image can do.

use kasane_ports::{BlockInfo, ZeroedSpace};

use crate::job::{Failed, Job, Zeroing};

/// An open image. Jobs are for ranges that are on it, and writing ones only if it may be written.
pub(crate) trait Image: Send + Sync {
    /// What the disk is.
    fn info(&self) -> BlockInfo;
    /// Which way of making zeros is tried first.
    fn zeroing(&self, space: ZeroedSpace) -> Zeroing;
    /// Does the job on this thread if that takes about as long as a copy, or as much of it as
    /// does; `None` if there is something left.
    fn quick(&self, job: &mut Job) -> Option<Result<(), Failed>>;
    /// Does the job, or what is left of it, however long it takes.
    fn run(&self, job: &mut Job) -> Result<(), Failed>;
}
